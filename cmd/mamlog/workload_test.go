package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"mamlog/admin"
	"mamlog/cmd/mamlog/config"
	"mamlog/log"
)

// The tests of faults run a random workload on the main store and a store of
// messages, opened as serve opens them, on a file system in memory. They remember
// what was acknowledged, and compare.

// seed is the one of the environment's MAMLOG_SEED, or a new one; it is printed.
func seed(t *testing.T) uint64 {
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("MAMLOG_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAMLOG_SEED=%d", n)
	return n
}

// nightly tells whether the long form of a test is wanted.
func nightly() bool { return os.Getenv("MAMLOG_NIGHTLY") != "" }

// figures reports what a test has gone through.
func figures(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf(format, args...)
	name := os.Getenv("MAMLOG_FIGURES")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\t%s\n", t.Name(), fmt.Sprintf(format, args...))
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

const storeName = "archive"

// openIn opens both stores in fsys, as openStores does in data_dir. now is the wall
// clock; nil: the real one.
func openIn(fsys vfs.FS, now func() time.Time, logger *zap.Logger) (*stores, error) {
	c := &config.Config{CacheSize: 4 << 20, MaxClockJump: 24 * time.Hour, DataDir: "/data", Hosts: []config.Host{{Name: "h"}}}
	c.Hosts[0].Archive.ExpiresAfter = time.Hour
	s := &stores{config: c, clock: log.NewClock(now), cache: pebble.NewCache(c.CacheSize)}
	o := openOptions{logger: logger, retry: time.Millisecond}
	var err error
	if s.main, err = s.open(config.MainStore, "/data/main", fsys, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	var m admin.Store
	if m, err = s.open(storeName, "/data/stores/"+storeName, fsys, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.messages = []messageStore{{Store: config.Store{Name: storeName, Hosts: []string{"h"}}, opened: m}}
	return s, nil
}

// written is one event that was to be appended.
type written struct {
	store string
	text  string // unlike that of any other event
	owner string
	key   string
	id    ulid.ULID // zero: not acknowledged
}

// ledger is what is known of all events. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	tried   map[string]*written // by text
	acked   []*written          // in the order of the acknowledgements
	cut     ulid.ULID           // messages before it may have been expired
	expired ulid.ULID           // messages before it have been, durably
}

func newLedger() *ledger { return &ledger{tried: make(map[string]*written)} }

// copy is the ledger as of now.
func (l *ledger) copy() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &ledger{tried: make(map[string]*written, len(l.tried)), cut: l.cut, expired: l.expired}
	for text, w := range l.tried {
		w := *w
		c.tried[text] = &w
	}
	for _, w := range l.acked {
		c.acked = append(c.acked, c.tried[w.text])
	}
	return c
}

// workload does random things to the stores.
type workload struct {
	rng    *rand.Rand
	stores *stores
	ledger *ledger
	class  log.Class
	n      int // events made
	clock  *simulated
	wg     sync.WaitGroup
	failed func(error) // an append was refused, or is in doubt; nil: that must not be
}

func newWorkload(rng *rand.Rand, s *stores, clock *simulated, l *ledger) (*workload, error) {
	w := &workload{rng: rng, clock: clock, ledger: l}
	return w, w.reopened(s)
}

// simulated is a wall clock that a workload sets.
type simulated struct{ ms atomic.Int64 }

func newSimulated() *simulated {
	c := new(simulated)
	c.ms.Store(time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *simulated) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *simulated) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func (w *workload) reopened(s *stores) (err error) {
	w.stores = s
	w.class, err = w.messages().Log.Class("h")
	return err
}

func (w *workload) messages() admin.Store { return w.stores.messages[0].opened }

func (w *workload) store(name string) admin.Store { return w.stores.all()[name] }

// message makes up one that nothing else resembles.
func (w *workload) message(owner string) (*written, log.Entry) {
	w.n++
	x := &written{store: storeName, owner: owner, text: fmt.Sprintf("message %d %x", w.n, w.rng.Uint64())}
	e := log.Entry{Class: w.class, Event: &log.Event{Kind: &log.Event_Message{Message: &log.MessageArchived{
		Owner: owner, Peer: fmt.Sprintf("peer%d@h/r", w.rng.IntN(3)), Direction: log.Direction_DIRECTION_IN,
		Reason: log.Reason_REASON_BODY, Stanza: []byte(x.text),
	}}}}
	if w.rng.IntN(3) == 0 {
		x.key = fmt.Sprintf("key %d", w.n)
		e.OnceOwner, e.OnceKey = owner, x.key
	}
	return x, e
}

// ofOwner makes up an event about an account.
func (w *workload) ofOwner(owner string) (*written, log.Entry) {
	w.n++
	x := &written{store: config.MainStore, owner: owner, text: fmt.Sprintf("actor %d", w.n)}
	var e *log.Event
	switch w.rng.IntN(3) {
	case 0:
		e = &log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: owner, Actor: x.text}}}
	case 1:
		e = &log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: owner, Actor: x.text, Credentials: &log.Credentials{}}}}
	default:
		e = &log.Event{Kind: &log.Event_Preferences{Preferences: &log.PreferencesChanged{
			Owner: owner, Actor: x.text, After: &log.Preferences{Default: log.Default_DEFAULT_NEVER},
		}}}
	}
	return x, log.Entry{Class: log.Audit, Event: e}
}

func (w *workload) owner() string { return fmt.Sprintf("owner%d@h", w.rng.IntN(4)) }

// append queues entries without waiting for them.
func (w *workload) append(xs []*written, entries []log.Entry) {
	w.ledger.mu.Lock()
	for _, x := range xs {
		w.ledger.tried[x.text] = x
	}
	w.ledger.mu.Unlock()
	w.wg.Add(1)
	err := w.store(xs[0].store).Log.Append(entries, func(ids []ulid.ULID, err error) {
		defer w.wg.Done()
		if err != nil {
			w.fail(err)
			return
		}
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		for i, x := range xs {
			x.id = ids[i]
			w.ledger.acked = append(w.ledger.acked, x)
		}
	})
	if err != nil {
		w.wg.Done()
		w.fail(err)
	}
}

func (w *workload) fail(err error) {
	if w.failed == nil {
		panic(fmt.Sprintf("an append failed: %v", err))
	}
	w.failed(err)
}

// step does one random thing.
func (w *workload) step() error {
	if w.rng.IntN(20) == 0 {
		return w.maintain(w.rng.IntN(2) == 0)
	}
	return w.use()
}

// use does one random thing that clients cause.
func (w *workload) use() error {
	switch n := w.rng.IntN(38); {
	case n < 26:
		var xs []*written
		var entries []log.Entry
		for range 1 + w.rng.IntN(4) {
			x, e := w.message(w.owner())
			xs, entries = append(xs, x), append(entries, e)
		}
		w.append(xs, entries)
	case n < 33:
		x, e := w.ofOwner(w.owner())
		w.append([]*written{x}, []log.Entry{e})
	case n < 35:
		w.clock.advance(time.Duration(w.rng.IntN(60)) * time.Minute)
		return w.repeat()
	default:
		w.wg.Wait()
	}
	return nil
}

// maintain does what a server does of its own accord, or an operator.
func (w *workload) maintain(expire bool) error {
	if expire {
		return w.expire()
	}
	for _, st := range w.stores.all() {
		if err := st.Projections.Rebuild(nil); err != nil {
			return err
		}
	}
	return nil
}

// repeat appends again what was acknowledged under a key.
func (w *workload) repeat() error {
	w.ledger.mu.Lock()
	var keyed []*written
	for _, x := range w.ledger.acked {
		if x.key != "" && w.clock.now().Sub(log.IDTime(x.id)) < 6*24*time.Hour { // they are remembered for seven days
			keyed = append(keyed, x)
		}
	}
	w.ledger.mu.Unlock()
	if len(keyed) == 0 {
		return nil
	}
	x := keyed[w.rng.IntN(len(keyed))]
	_, e := w.message(x.owner)
	e.OnceOwner, e.OnceKey = x.owner, x.key
	ids, err := w.messages().Log.AppendWait(context.Background(), e)
	if err != nil {
		w.fail(err)
		return nil
	}
	if ids[0] != x.id {
		return fmt.Errorf("the key of %s was answered with %s", x.id, ids[0])
	}
	return nil
}

// expire deletes what has expired by now, and gives the space back.
func (w *workload) expire() error {
	at := w.messages().Projections.ExpiryCut(w.class, w.messages().Log.Clock().Now().Add(-time.Hour))
	w.ledger.mu.Lock()
	w.ledger.cut = later(w.ledger.cut, log.FirstAt(at))
	w.ledger.mu.Unlock()
	ctx := context.Background()
	if _, err := w.messages().Log.Expire(ctx, w.class, at, ""); err != nil {
		w.fail(err)
		return nil
	}
	w.ledger.mu.Lock()
	w.ledger.expired = later(w.ledger.expired, log.FirstAt(at))
	w.ledger.mu.Unlock()
	return errors.Join(w.messages().Log.Compact(ctx, w.class, at), w.messages().Projections.Compact(ctx, w.class, at))
}

func later(a, b ulid.ULID) ulid.ULID {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

// text is what tells an event from all others; "" for those not of the workload.
func text(e *log.Event) string {
	switch k := e.GetKind().(type) {
	case *log.Event_Message:
		return string(k.Message.GetStanza())
	case *log.Event_Account:
		return k.Account.GetActor()
	case *log.Event_Preferences:
		return k.Preferences.GetActor()
	}
	return ""
}

// verify compares the stores with what is known: what was acknowledged is there,
// nothing is there twice, the order is that of the ids, rows are what the log
// says, and ids go on behind all that there ever were.
func (l *ledger) verify(s *stores) error {
	found := make(map[string]ulid.ULID)
	ids := make(map[ulid.ULID]bool)
	var newest ulid.ULID
	for name, st := range s.all() {
		var before ulid.ULID
		for r, err := range st.Log.Scan(ulid.ULID{}) {
			if err != nil {
				return err
			}
			if r.ID.Compare(before) <= 0 || ids[r.ID] {
				return fmt.Errorf("%s: record %s comes after %s", name, r.ID, before)
			}
			before, ids[r.ID] = r.ID, true
			newest = later(newest, r.ID)
			t := text(r.Event)
			if t == "" {
				continue
			}
			if _, ok := found[t]; ok {
				return fmt.Errorf("%s: %q is there twice", name, t)
			}
			if w := l.tried[t]; w == nil || w.store != name {
				return fmt.Errorf("%s: %q was never appended", name, t)
			}
			found[t] = r.ID
			if name == storeName && r.ID.Compare(l.expired) < 0 {
				return fmt.Errorf("%q was expired, and is there", t)
			}
		}
	}
	for _, w := range l.acked {
		newest = later(newest, w.id)
		id, ok := found[w.text]
		switch {
		case !ok && w.store == storeName && w.id.Compare(l.cut) < 0:
		case !ok:
			return fmt.Errorf("%s: %q was acknowledged as %s and is lost", w.store, w.text, w.id)
		case id != w.id:
			return fmt.Errorf("%s: %q was acknowledged as %s and is %s", w.store, w.text, w.id, id)
		}
	}
	for i := 1; i < len(l.acked); i++ {
		// Acknowledgements of one store come in its order.
		for j := i - 1; j >= 0; j-- {
			if l.acked[j].store == l.acked[i].store {
				if l.acked[j].id.Compare(l.acked[i].id) >= 0 {
					return fmt.Errorf("%s was acknowledged after %s", l.acked[i].id, l.acked[j].id)
				}
				break
			}
		}
	}
	ctx := context.Background()
	for name, st := range s.all() {
		report, err := st.Projections.Check(ctx, nil)
		if err != nil {
			return err
		}
		if report.Differences > 0 {
			return fmt.Errorf("%s: %d rows differ from the log: %v", name, report.Differences, report.Problems[0])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.all())) {
		got, err := s.all()[name].Log.AppendWait(ctx, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Read{Read: &log.ArchiveRead{}}}})
		if err != nil {
			return err
		}
		if got[0].Compare(newest) <= 0 {
			return fmt.Errorf("%s: the new id %s is not behind %s", name, got[0], newest)
		}
		newest = got[0]
	}
	return l.verifyKeys(s)
}

// verifyKeys repeats an append with a key, which must be known.
func (l *ledger) verifyKeys(s *stores) error {
	for i, n := len(l.acked)-1, 0; i >= 0 && n < 3; i-- {
		w := l.acked[i]
		if w.key == "" {
			continue
		}
		n++
		id, ok, err := s.messages[0].opened.Log.Appended(w.owner, w.key)
		if err != nil || !ok || id != w.id {
			return fmt.Errorf("the key of %s is answered with %s, %v, %v", w.id, id, ok, err)
		}
	}
	return nil
}
