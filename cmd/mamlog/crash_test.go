package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/zap"
)

// crash is the state of the disk after one, with what was known before.
type crash struct {
	at    int
	op    errorfs.Op
	disk  *vfs.MemFS
	known *ledger
	clock *simulated
}

// crasher lets the power fail at every operation that changes the disk.
type crasher struct {
	mu      sync.Mutex
	rng     *rand.Rand
	disk    *vfs.MemFS
	ledger  *ledger
	clock   *simulated
	at      int
	limit   int
	crashes chan<- crash
}

// MaybeError takes a copy of the disk as it would be found after a crash just
// before op: what was not synced is there by chance, or not at all. The operation
// itself goes on.
func (c *crasher) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpFilePreallocate {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == c.limit {
		return nil
	}
	c.at++
	known := c.ledger.copy() // before the copy: what comes between is more than is asked for
	disk := c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(3) * 50, RNG: c.rng})
	c.crashes <- crash{c.at, op, disk, known, c.clock}
	return nil
}

func (c *crasher) String() string { return "crasher" }

// TestCrashAtEveryWrite crashes at every file operation of a random workload, in
// turn, and of the starts between. MAMLOG_SEED replays the workload; which of its
// goroutines comes first the seed does not decide.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	points := 500
	if nightly() {
		points = 10_000
	}
	rng := rand.New(rand.NewPCG(seed(t), 5))
	crashes := make(chan crash)
	var verifiers sync.WaitGroup
	var failed sync.Once
	stop := make(chan struct{})
	for range 2 {
		verifiers.Go(func() {
			for c := range crashes {
				if err := c.verify(); err != nil {
					t.Errorf("crash %d, before %v of %s: %v", c.at, c.op.Kind, c.op.Path, err)
					failed.Do(func() { close(stop) })
				}
			}
		})
	}
	done, runs := 0, 0
	ended := func() bool {
		select {
		case <-stop:
			return true
		default:
			return done >= points
		}
	}
	for !ended() {
		runs++
		mem := vfs.NewCrashableMem()
		l, clock := newLedger(), newSimulated()
		c := &crasher{rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), disk: mem, ledger: l, clock: clock, limit: points - done, crashes: crashes}
		err := live(rng, errorfs.Wrap(mem, c), clock, l, func() bool { return ended() || done+c.count() >= points })
		if err != nil {
			t.Error(err)
			failed.Do(func() { close(stop) })
		}
		done += c.count()
	}
	close(crashes)
	verifiers.Wait()
	figures(t, "%d crash points in %d workloads", done, runs)
}

func (c *crasher) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// live is one workload from an empty disk on, with a few restarts.
func live(rng *rand.Rand, disk vfs.FS, clock *simulated, l *ledger, enough func() bool) error {
	var w *workload
	for range 3 {
		s, err := openIn(disk, clock.now, zap.NewNop())
		if err != nil {
			return err
		}
		if w == nil {
			w, err = newWorkload(rng, s, clock, l)
		} else {
			err = w.reopened(s)
		}
		for n := 0; err == nil && n < 60 && !enough(); n++ {
			err = w.step()
		}
		w.wg.Wait()
		if err != nil {
			return fmt.Errorf("workload: %w", err)
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// verify starts on what the crash left; now and then twice: what the first start
// writes must not do harm either.
func (c crash) verify() error {
	starts := 1
	if c.at%8 == 0 {
		starts = 2
	}
	for n := range starts {
		s, err := openIn(c.disk, c.clock.now, zap.NewNop())
		if err != nil {
			return err
		}
		if n == 0 {
			if err := c.known.verify(s); err != nil {
				return err
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}
