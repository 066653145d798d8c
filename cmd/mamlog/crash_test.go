package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/zap"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/xep0313"
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
	oneIn   int // of the operations is crashed at
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
	if c.at == c.limit || c.rng.IntN(c.oneIn) > 0 {
		return nil
	}
	c.at++
	known := c.ledger.copy() // before the copy: what comes between is more than is asked for
	disk := c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.IntN(3) * 50, RNG: c.rng})
	clock := new(simulated) // that stands still: what expires by the workload's is not known
	clock.ms.Store(c.clock.ms.Load())
	c.crashes <- crash{c.at, op, disk, known, clock}
	return nil
}

func (c *crasher) String() string { return "crasher" }

// lockable is the crasher's disk. No copy of it is taken while a directory is being
// locked: a MemFS takes its own lock twice then, and would wait for itself.
type lockable struct {
	*vfs.MemFS
	crasher *crasher
}

func (l lockable) Lock(name string) (io.Closer, error) {
	l.crasher.mu.Lock()
	defer l.crasher.mu.Unlock()
	return l.MemFS.Lock(name)
}

// TestCrashAtEveryWrite crashes at every file operation of a random workload, in
// turn, and of the starts between; in the short form at one in four. MAMLOG_SEED replays the workload; which of its
// goroutines comes first the seed does not decide.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	points, oneIn := 500, 4
	if conformance.Nightly() {
		points, oneIn = 10_000, 1
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
	did := make(map[string]int)
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
		c := &crasher{rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), disk: mem, ledger: l, clock: clock, oneIn: oneIn, limit: points - done, crashes: crashes}
		err := live(rng, errorfs.Wrap(lockable{mem, c}, c), clock, l, did, func() bool { return ended() || done+c.count() >= points })
		if err != nil {
			t.Error(err)
			failed.Do(func() { close(stop) })
		}
		done += c.count()
	}
	close(crashes)
	verifiers.Wait()
	conformance.Figures(t, "%d crash points in %d workloads with %s", done, runs, said(did))
}

func (c *crasher) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// live is one workload from an empty disk on, with a few restarts; it counts in did
// what it does.
func live(rng *rand.Rand, disk vfs.FS, clock *simulated, l *ledger, did map[string]int, enough func() bool) error {
	var w *workload
	for range 3 {
		s, err := openIn(disk, clock.now, zap.NewNop())
		if err != nil {
			return err
		}
		if w == nil {
			if w, err = newWorkload(rng, s, clock, l); err == nil {
				w.done = did
			}
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
// writes must not do harm either, and completes what was cut short.
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
			err = c.known.verify(s)
		} else {
			err = c.complete(s)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	if starts == 1 {
		return nil
	}
	return c.known.verifyFiles(c.disk)
}

// complete does what is left to do.
func (c crash) complete(s *stores) error {
	w, err := newWorkload(nil, s, c.clock, c.known)
	if err != nil {
		return err
	}
	if err := w.cleanUp(); err != nil {
		return err
	}
	return c.known.verify(s)
}

// TestErasureWaitsForReaders: who reads a log when something in it is erased keeps
// the files from losing it; the erasure waits until they have.
func TestErasureWaitsForReaders(t *testing.T) {
	mem := vfs.NewMem()
	l, clock := newLedger(), newSimulated()
	s, err := openIn(mem, clock.now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(rand.New(rand.NewPCG(seed(t), 0)), s, clock, l)
	if err != nil {
		t.Fatal(err)
	}
	x, side := w.message("owner0@h")
	if err := w.append([]*written{x}, []xep0313.Side{side}, nil); err != nil {
		t.Fatal(err)
	}
	w.wg.Wait()
	reading, err := w.messages().Log.Snapshot(func() {})
	if err != nil {
		t.Fatal(err)
	}
	erased := make(chan error)
	go func() { erased <- w.erase("owner0@h") }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, _, owed := w.messages().Log.Owed(w.class); owed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is erased")
		}
	}
	select {
	case err := <-erased:
		t.Errorf("the erasure ends with %v while what it erases is read", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := reading.Close(); err != nil {
		t.Error(err)
	}
	if !t.Failed() {
		if err := <-erased; err != nil {
			t.Error(err)
		}
	}
	// The store is open: a compaction may be writing a table, or take one away
	// between its listing and its reading. Only a pass over whole files counts.
	verified := l.verifyFiles(mem)
	for deadline := time.Now().Add(time.Minute); verified != nil && !errors.Is(verified, errHeld) && time.Now().Before(deadline); {
		verified = l.verifyFiles(mem)
	}
	if verified != nil {
		t.Error(verified)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if x.loss != gone {
		t.Error("it is not erased")
	}
}
