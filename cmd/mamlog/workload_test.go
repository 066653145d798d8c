package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/admin"
	"mamlog/cmd/mamlog/config"
	"mamlog/log"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
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

const storeName = "archive"

// openIn opens both stores in fsys, as openStores does in data_dir. now is the wall
// clock; nil: the real one.
func openIn(fsys vfs.FS, now func() time.Time, logger *zap.Logger) (*stores, error) {
	c := &config.Config{CacheSize: 4 << 20, MaxClockJump: 24 * time.Hour, DataDir: "/data", Hosts: []config.Host{{Name: "h"}}}
	c.Hosts[0].Archive = xep0313.DefaultOptions()
	c.Hosts[0].Archive.ExpiresAfter, c.Hosts[0].Archive.CleanupInterval = time.Hour, 10*time.Millisecond
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
	store   string
	text    string // by which it is known, unlike that of any other event
	content string // of it that can be erased, likewise; "": nothing
	owner   string
	peer    string // of a message
	key     string
	onceFor string    // within what the key names it
	id      ulid.ULID // zero: not acknowledged, or nobody said under which
	doubt   bool      // the append failed; it may come to pass all the same

	loss      loss // of the message, or of a preference change its content
	retracted loss // of a message
}

// loss is how far something is gone.
type loss int

const (
	kept     loss = iota
	doubtful      // what takes it away was begun
	ordered       // it is to be erased, which is durable: the server sees to it, if need be after its next start
	gone          // durably; with a clean-up from the files too
)

// ledger is what is known of all events. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	tried   map[string]*written // by text
	acked   []*written          // in the order of the acknowledgements
	erasing string              // whose erasure is under way
	expires bool                // a clean-up is
	cut     ulid.ULID           // messages before it may have been expired
	expired ulid.ULID           // messages before it have been, durably
}

func newLedger() *ledger { return &ledger{tried: make(map[string]*written)} }

// try notes that xs are about to be appended.
func (l *ledger) try(xs ...*written) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range xs {
		if x.owner == l.erasing {
			x.loss, x.key = doubtful, ""
		}
		l.tried[x.text] = x
	}
}

// ack notes that x is in the log.
func (l *ledger) ack(x *written, id ulid.ULID) {
	x.id = id
	l.acked = append(l.acked, x)
}

// lose notes how far that of owner's is gone which which selects.
func (l *ledger) lose(owner string, to loss, which func(*written) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.tried {
		if x.owner == owner && which(x) {
			x.loss = max(x.loss, to)
		}
	}
}

// copy is the ledger as of now.
func (l *ledger) copy() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newLedger()
	c.cut, c.expired = l.cut, l.expired
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
	rng     *rand.Rand
	stores  *stores
	archive *xep0313.Archive
	ledger  *ledger
	class   log.Class
	n       int // events made
	clock   *simulated
	wg      sync.WaitGroup
	done    map[string]int // how often, by what
	failed  func(error)    // something was refused, or is in doubt; nil: that must not be
}

func newWorkload(rng *rand.Rand, s *stores, clock *simulated, l *ledger) (*workload, error) {
	w := &workload{rng: rng, clock: clock, ledger: l, done: make(map[string]int)}
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
	if w.archive, err = s.archive(context.Background(), zap.NewNop(), nil, true); err == nil {
		w.class, err = w.messages().Log.Class("h")
	}
	return err
}

func (w *workload) messages() admin.Store { return w.stores.messages[0].opened }

func (w *workload) store(name string) admin.Store { return w.stores.all()[name] }

// made makes up an event that nothing else resembles.
func (w *workload) made(store, owner string) *written {
	w.n++
	id := fmt.Sprintf("%d-%016x", w.n, w.rng.Uint64())
	return &written{store: store, owner: owner, text: "text-" + id, content: "content-" + id}
}

func (w *workload) owner() string { return fmt.Sprintf("owner%d@h", w.rng.IntN(4)) }

// message makes up one.
func (w *workload) message(owner string) (*written, xep0313.Side) {
	x := w.made(storeName, owner)
	x.peer = fmt.Sprintf("peer%d@h/r", w.rng.IntN(3))
	s := side(x, stanza.New(stanza.NSClient, "body").AddText(x.content))
	if w.rng.IntN(3) == 0 {
		s.Key = "key of " + x.text
	}
	return x, s
}

// side is what x is to be appended as, to the archive of who received it.
func side(x *written, payload *stanza.Element) xep0313.Side {
	return xep0313.Side{
		Owner: jid.MustParse(x.owner), Peer: jid.MustParse(x.peer), Direction: log.Direction_DIRECTION_IN,
		Stanza: stanza.New(stanza.NSClient, "message", "type", "chat", "id", x.text, "from", x.peer, "to", x.owner).Add(payload),
	}
}

// append queues messages without waiting for them. done, if not nil, is called
// when they are acknowledged, under the ledger's lock.
func (w *workload) append(xs []*written, sides []xep0313.Side, done func()) error {
	for i, x := range xs {
		x.key = sides[i].Key
		deleted, err := w.stores.main.Projections.DeletedAt(x.owner)
		if err != nil {
			return err
		}
		if x.onceFor = x.owner; deleted != (ulid.ULID{}) {
			x.onceFor += " " + deleted.String()
		}
	}
	w.ledger.try(xs...)
	w.wg.Add(1)
	err := w.archive.Append(sides, func(outcomes []xep0313.Outcome) {
		defer w.wg.Done()
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		for i, o := range outcomes {
			switch {
			case o.Err == nil && o.ID == ulid.ULID{}:
				w.fail(fmt.Errorf("%s was not archived", xs[i].text))
			case o.Err != nil:
				xs[i].doubt = true
				w.fail(o.Err)
			default:
				w.ledger.ack(xs[i], o.ID)
			}
		}
		if done != nil && !slices.ContainsFunc(outcomes, func(o xep0313.Outcome) bool { return o.Err != nil }) {
			done()
		}
	})
	if err != nil {
		w.wg.Done()
		w.fail(err)
	}
	return nil
}

func (w *workload) fail(err error) {
	if w.failed == nil {
		panic(fmt.Sprintf("it failed: %v", err))
	}
	w.failed(err)
}

// step does one random thing.
func (w *workload) step() error {
	if w.rng.IntN(20) == 0 {
		return w.maintenance()()
	}
	return w.use()
}

// use does one random thing that clients cause.
func (w *workload) use() error {
	switch n := w.rng.IntN(42); {
	case n < 25:
		var xs []*written
		var sides []xep0313.Side
		for range 1 + w.rng.IntN(4) {
			x, s := w.message(w.owner())
			xs, sides = append(xs, x), append(sides, s)
		}
		return w.append(xs, sides, nil)
	case n < 32:
		return w.changeAccount(w.owner())
	case n < 34:
		w.later(time.Duration(w.rng.IntN(60)) * time.Minute)
		return w.repeat()
	case n < 36:
		return w.retract()
	case n < 38:
		return w.trim()
	default:
		w.wg.Wait()
	}
	return nil
}

// later lets time pass.
func (w *workload) later(d time.Duration) {
	w.ledger.mu.Lock()
	if w.ledger.expires {
		w.ledger.cut = later(w.ledger.cut, w.expiryCut(d))
	}
	w.ledger.mu.Unlock()
	w.clock.advance(d)
}

// changeAccount sets preferences or credentials, or lets the account end.
func (w *workload) changeAccount(owner string) error {
	x := w.made(config.MainStore, owner)
	ctx, j := context.Background(), jid.MustParse(owner)
	main := w.stores.main
	var id ulid.ULID
	var err error
	switch n := w.rng.IntN(8); {
	case n < 3:
		w.ledger.try(x)
		p := &log.Preferences{Default: log.Default_DEFAULT_ALWAYS, Always: []string{x.content + "@h"}}
		if _, err = w.archive.SetPreferences(ctx, j, p, x.text, log.Cause_CAUSE_CLIENT); err == nil {
			_, id, err = main.Projections.Preferences(owner)
		}
	case n < 7:
		x.content = ""
		w.ledger.try(x)
		return w.credentials(x)
	default:
		x.content = ""
		w.ledger.lose(owner, doubtful, func(*written) bool { return true })
		w.done["ends of accounts"]++
		w.ledger.try(x)
		if err = w.archive.DeleteArchive(ctx, j, x.text); err == nil {
			w.ledger.lose(owner, ordered, func(*written) bool { return true })
			id, err = main.Projections.DeletedAt(owner)
		}
	}
	if err != nil {
		w.fail(err)
		return nil
	}
	if r, ok, err := main.Log.Get(log.Audit, id); err != nil {
		return err
	} else if !ok || text(r.Event) != x.text {
		id = ulid.ULID{} // that of an erasure meanwhile
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	w.ledger.ack(x, id)
	return nil
}

// credentials queues a change of them without waiting for it.
func (w *workload) credentials(x *written) error {
	w.wg.Add(1)
	e := log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Account{
		Account: &log.AccountChanged{Owner: x.owner, Actor: x.text, Credentials: &log.Credentials{}},
	}}}
	err := w.stores.main.Log.Append([]log.Entry{e}, func(ids []ulid.ULID, err error) {
		defer w.wg.Done()
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		if err != nil {
			w.fail(err)
			return
		}
		w.ledger.ack(x, ids[0])
	})
	if err != nil {
		w.wg.Done()
		w.fail(err)
	}
	return nil
}

// pick returns an acknowledged message that is surely there, rather an old one; nil
// if there is none.
func (w *workload) pick() *written {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	var there []*written
	for _, x := range w.ledger.acked {
		if x.store == storeName && x.loss == kept && x.content != "" && w.clock.now().Sub(log.IDTime(x.id)) < 59*time.Minute {
			there = append(there, x)
		}
	}
	if len(there) == 0 {
		return nil
	}
	return there[w.rng.IntN(len(there)/2+1)]
}

// retract lets the sender of a message retract it.
func (w *workload) retract() error {
	target := w.pick()
	if target == nil {
		return nil
	}
	w.ledger.mu.Lock()
	target.retracted = max(target.retracted, doubtful)
	w.ledger.mu.Unlock()
	w.done["retractions"]++
	x := w.made(storeName, target.owner)
	x.peer, x.content = target.peer, ""
	s := side(x, stanza.New(xep0313.NSRetract, "retract", "id", target.text))
	return w.append([]*written{x}, []xep0313.Side{s}, func() {
		if target.loss == kept {
			target.retracted = gone
		}
	})
}

// trim lets a client delete its oldest messages.
func (w *workload) trim() error {
	until := w.pick()
	if until == nil {
		return nil
	}
	upTo := func(x *written) bool {
		return x.store == storeName && (x.doubt || x.id != ulid.ULID{} && x.id.Compare(until.id) <= 0)
	}
	w.ledger.lose(until.owner, doubtful, upTo)
	w.done["trims"]++
	iq := stanza.New(stanza.NSClient, "iq", "type", "set", "id", "t").Add(stanza.New(xep0313.NSTrim, "trim", "until", until.id.String()))
	var answer string
	if !w.archive.HandleIQ(context.Background(), iq, jid.MustParse(until.owner+"/r"), func(b []byte) { answer = string(b) }) {
		return errors.New("a trim is not for the archive")
	}
	switch {
	case strings.Contains(answer, "<trimmed"):
		w.ledger.lose(until.owner, gone, func(x *written) bool { return upTo(x) && !x.doubt })
	case strings.Contains(answer, "type='wait'"):
		w.fail(log.ErrSuspended)
	case w.failed != nil && strings.Contains(answer, "<item-not-found"): // an erasure was faster
	default:
		return fmt.Errorf("a trim is answered with %s", answer)
	}
	return nil
}

// maintenance picks what a server does of its own accord, or an operator.
func (w *workload) maintenance() func() error {
	owner := w.owner()
	switch n := w.rng.IntN(5); n {
	case 0:
		w.done["rebuilds"]++
		return w.rebuild
	case 1, 2:
		w.done["expiry runs"]++
		return w.expire
	case 3:
		w.done["clean-ups"]++
		return w.cleanUp
	}
	w.done["erasures"]++
	return func() error { return w.erase(owner) }
}

func (w *workload) rebuild() error {
	for _, name := range slices.Sorted(maps.Keys(w.stores.all())) {
		if err := w.store(name).Projections.Rebuild(nil); err != nil {
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
		deleted, err := w.stores.main.Projections.DeletedAt(x.owner)
		if err != nil {
			w.ledger.mu.Unlock()
			return err
		}
		if x.key != "" && x.id.Compare(deleted) > 0 && w.clock.now().Sub(log.IDTime(x.id)) < 6*24*time.Hour { // they are remembered for seven days
			keyed = append(keyed, x)
		}
	}
	w.ledger.mu.Unlock()
	if len(keyed) == 0 {
		return nil
	}
	x := keyed[w.rng.IntN(len(keyed))]
	again := side(&written{owner: x.owner, peer: "peer@h/r", text: "again"}, stanza.New(stanza.NSClient, "body").AddText("again"))
	again.Key = x.key
	answer := make(chan xep0313.Outcome, 1)
	if err := w.archive.Append([]xep0313.Side{again}, func(o []xep0313.Outcome) { answer <- o[0] }); err != nil {
		w.fail(err)
		return nil
	}
	switch o := <-answer; {
	case o.Err != nil:
		w.fail(o.Err)
	case o.ID != x.id:
		return fmt.Errorf("the key of %s was answered with %s", x.id, o.ID)
	}
	return nil
}

// expiryCut is before what messages expire after d more.
func (w *workload) expiryCut(d time.Duration) ulid.ULID {
	return log.FirstAt(w.messages().Projections.ExpiryCut(w.class, w.messages().Log.Clock().Now().Add(d-time.Hour)))
}

// cleaning notes that what expires from now on may go; the function that it
// returns, that no more does, and whether what has expired now is gone.
func (w *workload) cleaning() (done func(gone bool)) {
	cut := w.expiryCut(0)
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	w.ledger.cut, w.ledger.expires = later(w.ledger.cut, cut), true
	return func(gone bool) {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		w.ledger.expires = false
		if gone {
			w.ledger.expired = later(w.ledger.expired, cut)
		}
	}
}

// expire deletes what has expired by now.
func (w *workload) expire() (err error) {
	done := w.cleaning()
	defer func() { done(err == nil) }()
	_, err = w.archive.Expire(context.Background(), "h", "operator", false)
	return err
}

// erase does what an operator orders.
func (w *workload) erase(owner string) error {
	erasing := func(owner string) {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		w.ledger.erasing = owner
	}
	erasing(owner)
	w.ledger.lose(owner, doubtful, func(*written) bool { return true })
	ctx, j := context.Background(), jid.MustParse(owner)
	err := w.archive.OrderErasure(ctx, j, "operator")
	erasing("")
	if err != nil {
		return err
	}
	order, err := w.stores.main.Projections.DeletedAt(owner)
	if err != nil {
		return err
	}
	before := func(x *written) bool { return x.id != ulid.ULID{} && x.id.Compare(order) < 0 }
	w.ledger.lose(owner, ordered, before)
	if _, err := w.archive.Erase(ctx, j, "operator"); err != nil {
		return err
	}
	w.ledger.lose(owner, gone, before)
	return nil
}

// cleanUp does what a server does from its start on, until nothing is left to do.
func (w *workload) cleanUp() error {
	done := w.cleaning()
	w.ledger.mu.Lock()
	var all []*written
	for _, x := range w.ledger.tried {
		if x.loss == ordered {
			all = append(all, x)
		}
	}
	w.ledger.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.archive.RunExpiry(ctx) })
	defer func() {
		cancel()
		running.Wait()
		done(false)
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		left, err := w.owed()
		switch {
		case err != nil:
			return err
		case len(left) == 0:
			w.ledger.mu.Lock()
			defer w.ledger.mu.Unlock()
			for _, x := range all {
				x.loss = gone
			}
			return nil
		case w.suspended():
			return log.ErrSuspended
		case time.Now().After(deadline):
			return fmt.Errorf("a minute after the start %v is left to do", left)
		}
	}
}

// owed is what the server has still to do.
func (w *workload) owed() (left []string, err error) {
	for owner, err := range w.stores.main.Projections.Unerased() {
		if err != nil {
			return nil, err
		}
		left = append(left, "the erasure of "+owner)
	}
	for _, name := range slices.Sorted(maps.Keys(w.stores.all())) {
		for class, c := range w.store(name).Log.Classes() {
			if _, _, ok := w.store(name).Log.Owed(c); ok {
				left = append(left, fmt.Sprintf("a scrub of the class %s of %s", class, name))
			}
		}
	}
	return left, nil
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
		return k.Message.GetStanzaId()
	case *log.Event_Account:
		return k.Account.GetActor()
	case *log.Event_Preferences:
		if k.Preferences.GetCause() == log.Cause_CAUSE_CLIENT {
			return k.Preferences.GetActor()
		}
	}
	return ""
}

// verifyContent compares what an event has of what can be erased with what it
// should have.
func (w *written) verifyContent(e *log.Event) error {
	if w.content == "" {
		return nil
	}
	retracted := loss(kept)
	has := slices.Contains(e.GetPreferences().GetAfter().GetAlways(), w.content+"@h")
	if m := e.GetMessage(); m != nil {
		has, retracted = bytes.Contains(m.GetStanza(), []byte(w.content)), w.retracted
	}
	switch {
	case has && (w.loss == gone || retracted == gone):
		return fmt.Errorf("%s: the content of %q was erased, and is there", w.store, w.text)
	case !has && w.loss == kept && retracted == kept:
		return fmt.Errorf("%s: the content of %q is lost", w.store, w.text)
	}
	return nil
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
			w := l.tried[t]
			if err := w.verifyContent(r.Event); err != nil {
				return err
			}
			if name == storeName && w.loss == gone {
				return fmt.Errorf("%q was deleted, and is there", t)
			}
			if name == storeName && r.ID.Compare(l.expired) < 0 {
				return fmt.Errorf("%q was expired, and is there", t)
			}
		}
	}
	for _, w := range l.acked {
		newest = later(newest, w.id)
		id, ok := found[w.text]
		switch {
		case !ok && w.store == storeName && (w.id.Compare(l.cut) < 0 || w.loss > kept):
		case !ok:
			return fmt.Errorf("%s: %q was acknowledged as %s and is lost", w.store, w.text, w.id)
		case id != w.id && w.id != ulid.ULID{}:
			return fmt.Errorf("%s: %q was acknowledged as %s and is %s", w.store, w.text, w.id, id)
		}
	}
	last := make(map[string]ulid.ULID)
	for _, w := range l.acked { // of one store, in its order
		if w.id == (ulid.ULID{}) {
			continue
		}
		if w.id.Compare(last[w.store]) <= 0 {
			return fmt.Errorf("%s was acknowledged after %s", w.id, last[w.store])
		}
		last[w.store] = w.id
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
		id, ok, err := s.messages[0].opened.Log.Appended(w.onceFor, w.key)
		if err != nil || !ok || id != w.id {
			return fmt.Errorf("the key of %s is answered with %s, %v, %v", w.id, id, ok, err)
		}
	}
	return nil
}

var contents = regexp.MustCompile(`content-[0-9]+-[0-9a-f]{16}`)

// said is what was done, in words.
func said(done map[string]int) string {
	var words []string
	for _, what := range slices.Sorted(maps.Keys(done)) {
		words = append(words, fmt.Sprintf("%d %s", done[what], what))
	}
	return strings.Join(words, ", ")
}

var errHeld = errors.New("a file holds what is gone")

// verifyFiles looks through all files of the stores, which are cleaned up, for what
// is gone: errHeld if a file has it.
func (l *ledger) verifyFiles(fsys vfs.FS) error {
	by := make(map[string]*written)
	for _, w := range l.tried {
		by[w.content] = w
	}
	return eachFile(fsys, "/data", func(name string) error {
		b, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		blocks := [][]byte{b}
		switch path.Ext(name) {
		case ".sst":
			decompressed, err := tableBlocks(b)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			blocks = append(blocks, decompressed...)
		case ".blob":
			return fmt.Errorf("%s: this test does not know how values outside of tables are stored", name)
		}
		for _, b := range blocks {
			for _, content := range contents.FindAll(b, -1) {
				if w := by[string(content)]; w == nil || w.loss == gone || w.retracted == gone {
					return fmt.Errorf("%s: %w %s: %+v", name, errHeld, content, w)
				}
			}
		}
		return nil
	})
}

// eachFile calls do for every file below dir.
func eachFile(fsys vfs.FS, dir string, do func(name string) error) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		name := fsys.PathJoin(dir, n)
		info, err := fsys.Stat(name)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = eachFile(fsys, name, do)
		} else {
			err = do(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}
