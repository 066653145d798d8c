package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/zap"

	"mamlog/cmd/mamlog/conformance"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// failer is a disk that takes no writes now and then: at the first operation that
// would change it, from begin on, until end.
type failer struct {
	mu     sync.Mutex
	armed  bool
	err    error
	failed int            // operations since begin
	at     map[string]int // operations that failed first after a begin, by kind and file
	wrote  int            // operations that went well since end
}

func (f *failer) String() string { return "failer" }

// MaybeError implements errorfs.Injector.
func (f *failer) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
		return nil
	}
	switch op.Kind { // what takes no room goes well on a full disk
	case errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpFilePreallocate:
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		f.wrote++
		return nil
	}
	if f.failed++; f.failed == 1 {
		f.at[fmt.Sprintf("%d %s", op.Kind, vfs.Default.PathBase(op.Path))]++
	}
	return f.err
}

func (f *failer) begin(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.err, f.failed = true, err, 0
}

func (f *failer) end() (failed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.wrote = false, 0
	return f.failed
}

func (f *failer) hasFailed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed > 0
}

// TestFailingWrites lets the disk fail again and again under a random workload,
// with EIO or ENOSPC, at whatever operation comes next, for as long as it pleases:
// nothing is acknowledged that isn't on the disk, appends are refused with an error
// that says so and are taken again when the disk is well, queries are answered all
// the time, and the server never ends. MAMLOG_SEED replays the workload.
func TestFailingWrites(t *testing.T) {
	t.Parallel()
	workloads := 1
	if conformance.Nightly() {
		workloads = 30
	}
	rng := rand.New(rand.NewPCG(seed(t), 28))
	f := &failer{at: make(map[string]int)}
	var all outages
	all.done = make(map[string]int)
	for range workloads {
		if all.run(t, rng, f); t.Failed() {
			return
		}
	}
	if all.refused == 0 {
		t.Error("nothing was refused")
	}
	conformance.Figures(t, "%d outages in %d workloads that began at %d kinds of operations, %d operations failed, %d appends refused or in doubt, of the maintenance %d runs given up, among %s",
		all.n, workloads, len(f.at), all.failed, all.refused, all.gaveUp, said(all.done))
}

// outages counts what they led to.
type outages struct {
	n, failed, gaveUp int
	done              map[string]int // by the workloads
	mu                sync.Mutex
	refused           int // under mu
}

// run lets the disk fail a hundred times under one workload.
func (o *outages) run(t *testing.T, rng *rand.Rand, f *failer) {
	mem := vfs.NewCrashableMem()
	l, clock := newLedger(), newSimulated()
	s, err := openIn(errorfs.Wrap(mem, f), clock.now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(rng, s, clock, l)
	if err != nil {
		t.Fatal(err)
	}
	w.done = o.done
	w.failed = func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.refused++
		var wait *stanza.Error
		if !errors.Is(err, log.ErrSuspended) && !(errors.As(err, &wait) && wait.Type == "wait") {
			t.Errorf("an append failed with %v", err)
		}
	}
	for n := 0; n < 100 && !t.Failed(); n++ {
		for range rng.IntN(12) {
			if err := w.step(); err != nil {
				t.Fatalf("outage %d: while the disk was well: %v", n, err)
			}
		}
		maintained := make(chan error, 1)
		if rng.IntN(4) == 0 {
			do := w.maintenance()
			go func() { maintained <- do() }() // which may take until the disk is well
		} else {
			maintained <- nil
		}
		f.begin([]error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)])
		for i := 0; i < 1+rng.IntN(8) || !f.hasFailed(); i++ {
			if err := w.use(); err != nil {
				t.Fatalf("outage %d: %v", n, err)
			}
			if err := w.look(); err != nil {
				t.Fatalf("outage %d: a query: %v", n, err)
			}
		}
		w.wg.Wait() // everybody is answered while the disk fails
		if n%10 == 0 {
			// What was acknowledged is on the disk even if nothing more gets there.
			c := crash{at: n, disk: mem.CrashClone(vfs.CrashCloneCfg{}), known: l.copy(), clock: clock}
			if err := c.verify(); err != nil {
				t.Fatalf("outage %d: a crash in it: %v", n, err)
			}
		}
		o.n++
		o.failed += f.end()
		if err := <-maintained; err != nil {
			o.gaveUp++
		}
		for deadline := time.Now().Add(time.Minute); w.suspended(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("outage %d: the disk is well, and nothing is appended", n)
			}
		}
	}
	if err := l.verify(s); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	c := crash{disk: mem.CrashClone(vfs.CrashCloneCfg{}), known: l.copy(), clock: clock}
	if err := c.verify(); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// suspended tells whether any store refuses appends.
func (w *workload) suspended() bool {
	for _, st := range w.stores.all() {
		if st.Log.Stats().Suspended {
			return true
		}
	}
	return false
}

// look asks for a page, which must hold nothing but what was to be appended.
func (w *workload) look() error {
	owner := w.owner()
	page, err := w.messages().Projections.Query(projections.Query{Class: w.class, Owner: owner, Backward: true, Max: 10})
	if err != nil {
		return err
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, r := range page.Rows {
		m, err := r.Message()
		if err != nil {
			return err
		}
		x := w.ledger.tried[m.GetStanzaId()]
		if x == nil || x.owner != owner {
			return fmt.Errorf("%s has %s, which is not theirs", owner, r.ID)
		}
	}
	return nil
}
