package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

func message(owner, body string) *Event {
	return &Event{Kind: &Event_Message{Message: &MessageArchived{Owner: owner, Stanza: []byte(body)}}}
}

func open(t testing.TB, fs vfs.FS, now func() time.Time) *Log {
	t.Helper()
	l, err := Open("log", Options{FS: fs, Clock: NewClock(now)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, entries ...Entry) []ulid.ULID {
	t.Helper()
	ids, err := l.AppendWait(context.Background(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func scanIDs(t testing.TB, l *Log, after ulid.ULID) (ids []ulid.ULID) {
	t.Helper()
	for r, err := range l.Scan(after) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

// recorder is a follower that remembers what it saw.
type recorder struct {
	mu   sync.Mutex
	seen []ulid.ULID
}

func (r *recorder) Position() (id ulid.ULID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.seen); n > 0 {
		id = r.seen[n-1]
	}
	return id
}

func (r *recorder) Apply(records []Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		r.seen = append(r.seen, rec.ID)
	}
	return nil
}

func (r *recorder) has(id ulid.ULID) bool { return r.Position().Compare(id) >= 0 }

// Invariant 1: the order of ids is the order of commits and of what readers
// see, for any number of concurrent writers.
func TestOrderOfIDsIsOrderOfCommits(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	f := new(recorder)
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, 200
	var mu sync.Mutex
	var acked []ulid.ULID
	var late atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				wg.Add(1)
				class := Class(0)
				err := l.Append([]Entry{{Class: class, Event: message("a@h", fmt.Sprint(w, i))}}, func(ids []ulid.ULID, err error) {
					defer wg.Done()
					if err != nil {
						t.Error(err)
						return
					}
					wg.Go(func() {
						if l.Await() != nil || !f.has(ids[0]) {
							late.Add(1)
						}
					})
					mu.Lock()
					acked = append(acked, ids...)
					mu.Unlock()
				})
				if err != nil {
					t.Error(err)
					wg.Done()
				}
			}
		})
	}
	wg.Wait()
	if late.Load() > 0 {
		t.Errorf("the follower did not have %d acknowledged appends when it was waited for", late.Load())
	}
	if len(acked) != writers*each {
		t.Fatalf("%d acknowledged, want %d", len(acked), writers*each)
	}
	for i := 1; i < len(acked); i++ {
		if acked[i-1].Compare(acked[i]) >= 0 {
			t.Fatalf("acknowledgement %d has id %s, after %s", i, acked[i], acked[i-1])
		}
	}
	if got := scanIDs(t, l, ulid.ULID{}); fmt.Sprint(got) != fmt.Sprint(acked) || fmt.Sprint(got) != fmt.Sprint(f.seen) {
		t.Error("scan, follower and acknowledgements do not agree on the order")
	}
}

// A reader that asks again and again for what is after the last id it saw
// misses nothing.
func TestFollowingReaderMissesNothing(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	const total = 2000
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range total / 8 {
				if err := l.Append([]Entry{{Event: message("a@h", "x")}}, func([]ulid.ULID, error) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var followed []ulid.ULID
	var last ulid.ULID
	deadline := time.Now().Add(time.Minute)
	for len(followed) < total && time.Now().Before(deadline) {
		for _, id := range scanIDs(t, l, last) {
			followed = append(followed, id)
			last = id
		}
	}
	wg.Wait()
	if got := scanIDs(t, l, ulid.ULID{}); fmt.Sprint(got) != fmt.Sprint(followed) {
		t.Fatalf("the reader saw %d records, the log has %d", len(followed), len(got))
	}
}

// Invariant 2: what was acknowledged survives a crash that drops everything
// that was not synced.
func TestAcknowledgedIsDurable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 20 {
		fs := vfs.NewCrashableMem()
		l := open(t, fs, nil)
		var mu sync.Mutex
		acked := make(map[ulid.ULID]bool)
		for range 1 + rng.IntN(300) {
			err := l.Append([]Entry{{Event: message("a@h", "x")}}, func(ids []ulid.ULID, err error) {
				if err == nil {
					mu.Lock()
					acked[ids[0]] = true
					mu.Unlock()
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		mu.Lock() // no acknowledgement between the look and the crash
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
		known := maps.Clone(acked)
		mu.Unlock()
		again := open(t, crashed, nil)
		held := scanIDs(t, again, ulid.ULID{})
		for i := 1; i < len(held); i++ {
			if held[i-1].Compare(held[i]) >= 0 {
				t.Fatal("order is lost")
			}
		}
		for _, id := range held {
			delete(known, id)
		}
		if len(known) > 0 {
			t.Fatalf("round %d: %d acknowledged records are lost", round, len(known))
		}
		next := mustAppend(t, again, Entry{Event: message("a@h", "y")})
		if len(held) > 0 && next[0].Compare(held[len(held)-1]) <= 0 {
			t.Fatal("an id after the crash is not greater than those before")
		}
		if err := errors.Join(again.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Invariant 3: an append that repeats an idempotency key is not a second record.
func TestRetryIsNotASecondRecord(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, nil)
	entry := func(owner, key string) Entry {
		return Entry{Event: message(owner, "x"), OnceOwner: owner, OnceKey: key}
	}
	// Eight at once, so that some meet the key while it is still queued.
	var wg sync.WaitGroup
	got := make([]ulid.ULID, 8)
	for i := range got {
		wg.Go(func() { got[i] = mustAppend(t, l, entry("a@h", "k1"))[0] })
	}
	wg.Wait()
	for _, id := range got {
		if id != got[0] {
			t.Errorf("one key has the ids %s and %s", id, got[0])
		}
	}
	other := mustAppend(t, l, entry("b@h", "k1"), entry("a@h", "k2"), entry("a@h", "k2"))
	if other[1] != other[2] {
		t.Error("one call with the same key twice made two records")
	}
	if other[0] == got[0] || other[1] == got[0] {
		t.Error("another owner's or another key is taken for the same")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, fs, nil)
	defer l.Close()
	if id := mustAppend(t, l, entry("a@h", "k1"))[0]; id != got[0] {
		t.Errorf("after a restart the key has the id %s, before it %s", id, got[0])
	}
	if n := len(scanIDs(t, l, ulid.ULID{})); n != 3 {
		t.Errorf("there are %d records, want 3", n)
	}
	if n := l.Stats().Duplicates; n != 1 {
		t.Errorf("%d duplicates counted, want 1 since the restart", n)
	}
}

func TestIdempotencyKeysAreForgottenInTheEnd(t *testing.T) {
	now := time.UnixMilli(rememberFor.Milliseconds() * 100)
	l := open(t, vfs.NewMem(), func() time.Time { return now })
	defer l.Close()
	e := Entry{Event: message("a@h", "x"), OnceOwner: "a@h", OnceKey: "k"}
	first := mustAppend(t, l, e)[0]
	now = now.Add(rememberFor)
	if id := mustAppend(t, l, e)[0]; id != first {
		t.Error("the key was forgotten within its time")
	}
	now = now.Add(rememberFor)
	if id := mustAppend(t, l, e)[0]; id == first {
		t.Error("the key is remembered for ever")
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindOnce}, UpperBound: []byte{kindOnce + 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for it.First(); it.Valid(); it.Next() {
		n++
	}
	if n != 1 {
		t.Errorf("%d keys are stored, want the one that is still looked for", n)
	}
}

// A thousand records of one millisecond keep their order, and so do records
// appended after the clock was set back.
func TestOrderDoesNotDependOnTheClock(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	fs := vfs.NewMem()
	l := open(t, fs, func() time.Time { return now })
	var want []ulid.ULID
	for range 1000 {
		want = append(want, mustAppend(t, l, Entry{Event: message("a@h", "x")})...)
	}
	now = now.Add(-time.Hour)
	for range 1000 {
		want = append(want, mustAppend(t, l, Entry{Event: message("a@h", "x")})...)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(-24 * time.Hour) // and set back once more while it was stopped
	l = open(t, fs, func() time.Time { return now })
	defer l.Close()
	want = append(want, mustAppend(t, l, Entry{Event: message("a@h", "x")})...)
	for i := 1; i < len(want); i++ {
		if want[i-1].Compare(want[i]) >= 0 {
			t.Fatalf("record %d has id %s, after %s", i, want[i], want[i-1])
		}
	}
	if fmt.Sprint(scanIDs(t, l, ulid.ULID{})) != fmt.Sprint(want) {
		t.Error("the log has another order")
	}
}

// Nobody can tell the next id from the last: within a millisecond the steps
// differ, and are large.
func TestIDsCanNotBeGuessed(t *testing.T) {
	now := time.UnixMilli(1)
	c := NewClock(func() time.Time { return now })
	steps := make(map[uint64]bool)
	last := c.Next()
	small := 0
	for range 10000 {
		next := c.Next()
		step := binary.BigEndian.Uint64(next[8:]) - binary.BigEndian.Uint64(last[8:])
		if steps[step] {
			t.Fatal("a step came twice")
		}
		if steps[step] = true; step < 1<<40 {
			small++
		}
		last = next
	}
	if small > 10 { // one in 2^16 is expected
		t.Errorf("%d of 10000 steps are below 2^40", small)
	}
}

func TestIDsOverflowIntoTheNextMillisecond(t *testing.T) {
	now := time.UnixMilli(5)
	c := NewClock(func() time.Time { return now })
	full := c.Next()
	for i := 6; i < 16; i++ {
		full[i] = 0xff
	}
	c.Observe(full)
	if next := c.Next(); next.Time() != 6 || next.Compare(full) <= 0 {
		t.Errorf("after the last id of millisecond 5 comes %s of millisecond %d", next, next.Time())
	}
}

func TestScanFromAPosition(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	class, err := l.Class("test.example")
	if err != nil {
		t.Fatal(err)
	}
	var want []ulid.ULID
	for i := range 100 {
		c := Audit
		if i%3 > 0 {
			c = class
		}
		want = append(want, mustAppend(t, l, Entry{Class: c, Event: message("a@h", "x")})...)
	}
	for i := range want {
		if got := scanIDs(t, l, want[i]); fmt.Sprint(got) != fmt.Sprint(want[i+1:]) {
			t.Fatalf("after record %d there are %d records, want %d in order", i, len(got), len(want)-i-1)
		}
	}
}

func TestExpiryIsOneRangeAndLeavesTheRest(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fs := vfs.NewMem()
	l := open(t, fs, func() time.Time { return now })
	kept, err := l.Class("kept.example")
	if err != nil {
		t.Fatal(err)
	}
	class, err := l.Class("test.example")
	if err != nil {
		t.Fatal(err)
	}
	var late, other []ulid.ULID
	for i := range 1000 {
		if i == 500 {
			now = now.Add(time.Hour)
		}
		ids := mustAppend(t, l, Entry{Class: class, Event: message("a@h", "x")}, Entry{Class: kept, Event: message("a@h", "y")})
		other = append(other, ids[1])
		if i >= 500 {
			late = append(late, ids[0])
		}
	}
	done, err := l.Expire(context.Background(), class, now, "")
	if err != nil || !done {
		t.Fatalf("expired: %v, %v", done, err)
	}
	check := func() {
		t.Helper()
		counts := make(map[Class][]ulid.ULID)
		for r, err := range l.Scan(ulid.ULID{}) {
			if err != nil {
				t.Fatal(err)
			}
			counts[r.Class] = append(counts[r.Class], r.ID)
		}
		if fmt.Sprint(counts[class]) != fmt.Sprint(late) || fmt.Sprint(counts[kept]) != fmt.Sprint(other) {
			t.Errorf("%d and %d records are left, want %d and %d", len(counts[class]), len(counts[kept]), len(late), len(other))
		}
		if len(counts[Audit]) != 1 {
			t.Errorf("%d audit records tell of the run, want 1", len(counts[Audit]))
		}
	}
	check()
	if done, err := l.Expire(context.Background(), class, now, ""); err != nil || done {
		t.Errorf("a second run: deleted %v, %v; there was nothing left", done, err)
	}
	if _, err := l.Expire(context.Background(), Audit, now, ""); err == nil {
		t.Error("the audit class was expired")
	}
	if err := l.Compact(context.Background(), class, now); err != nil {
		t.Fatal(err)
	}
	check()
	// With everything gone, ids go on growing all the same.
	now = now.Add(time.Hour)
	last := l.Last()
	if _, err := l.Expire(context.Background(), class, now, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(-10 * time.Hour)
	l = open(t, fs, func() time.Time { return now })
	defer l.Close()
	if id := mustAppend(t, l, Entry{Class: class, Event: message("a@h", "x")})[0]; id.Compare(last) <= 0 {
		t.Error("an id was given out again")
	}
}

// imported is a message with an archive id of the time t.
func imported(t testing.TB, l *Log, c Class, at time.Time) Entry {
	t.Helper()
	id, ok := l.Clock().Past(at, ulid.ULID{})
	if !ok {
		t.Fatalf("%s is not in the past", at)
	}
	e := message("a@h", "x")
	e.GetMessage().ArchiveId = id[:]
	return Entry{Class: c, Event: e}
}

// What was imported expires by the time of its archive id, wherever its record
// lies.
func TestImportsExpireByTheirArchiveIDs(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	fs := vfs.NewMem()
	l := open(t, fs, func() time.Time { return now })
	class, err := l.Class("test.example")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Class("other.example")
	if err != nil {
		t.Fatal(err)
	}
	cut := now.Add(-time.Hour)
	mustAppend(t, l, imported(t, l, class, cut.Add(-2*time.Hour)), imported(t, l, class, cut.Add(-time.Millisecond)))
	last := l.Last()
	mustAppend(t, l, imported(t, l, class, cut), imported(t, l, other, cut.Add(-time.Hour)), Entry{Class: class, Event: message("a@h", "y")})
	want := scanIDs(t, l, last)
	expired := func() []ulid.ULID {
		t.Helper()
		if done, err := l.Expire(context.Background(), class, cut, ""); err != nil || !done {
			t.Fatalf("expired: %v, %v", done, err)
		}
		ids := scanIDs(t, l, ulid.ULID{})
		return ids[:len(ids)-1] // the event that says so
	}
	if got := expired(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	if done, err := l.Expire(context.Background(), class, cut, ""); err != nil || done {
		t.Errorf("a second run: %v, %v", done, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, fs, func() time.Time { return now })
	defer l.Close()
	cut = now
	if got := expired(); len(got) != 3 || got[0] != want[1] || got[1] != want[2] {
		t.Errorf("after a restart %v are left; want %v and the first run", got, want[1:])
	}
}

// An append is known by the archive id of what it appended, also if it is asked
// for before it is durable.
func TestRepeatOfAnImportYieldsTheArchiveID(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, nil)
	first := imported(t, l, Audit, time.Now().Add(-time.Hour))
	first.OnceOwner, first.OnceKey = "a@h", "k"
	want := ulid.ULID(first.Event.GetMessage().GetArchiveId())
	again := imported(t, l, Audit, time.Now().Add(-time.Minute))
	again.OnceOwner, again.OnceKey = "a@h", "k"
	if id, ok, err := l.Appended("a@h", "k"); ok || err != nil {
		t.Errorf("known before: %s, %v", id, err)
	}
	done := make(chan []ulid.ULID, 1)
	if err := l.Append([]Entry{first, again}, func(ids []ulid.ULID, _ error) { done <- ids }); err != nil {
		t.Fatal(err)
	}
	if id, ok, err := l.Appended("a@h", "k"); id != want || !ok || err != nil {
		t.Errorf("queued: %s, %v, %v; want %s", id, ok, err, want)
	}
	if ids := <-done; ids[0] != want || ids[1] != want {
		t.Errorf("answered with %v, want %s", ids, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, fs, nil)
	defer l.Close()
	if id, ok, err := l.Appended("a@h", "k"); id != want || !ok || err != nil {
		t.Errorf("after a restart: %s, %v, %v; want %s", id, ok, err, want)
	}
	if ids := mustAppend(t, l, again); ids[0] != want || len(scanIDs(t, l, ulid.ULID{})) != 1 {
		t.Errorf("the repeat is answered with %v, want %s", ids, want)
	}
}

func TestIDsOfThePast(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	c := NewClock(func() time.Time { return now })
	past := func(ago time.Duration, after ulid.ULID) ulid.ULID {
		t.Helper()
		id, ok := c.Past(now.Add(-ago), after)
		if !ok || id.Compare(after) <= 0 || IDTime(id).Before(now.Add(-ago).Truncate(time.Millisecond)) {
			t.Fatalf("%s ago, after %s: %s, %v", ago, after, id, ok)
		}
		return id
	}
	first := past(time.Hour, ulid.ULID{})
	if !IDTime(first).Equal(now.Add(-time.Hour)) {
		t.Errorf("the time is %s", IDTime(first))
	}
	if same := past(time.Hour, first); same.Time() != first.Time() {
		t.Errorf("the next of that time has another: %s", IDTime(same))
	}
	if older := past(2*time.Hour, first); older.Time() != first.Time() {
		t.Errorf("an older one, which comes after, is of %s", IDTime(older))
	}
	if later := past(time.Minute, first); !IDTime(later).Equal(now.Add(-time.Minute)) {
		t.Errorf("a later one is of %s", IDTime(later))
	}
	full := first
	for i := range full[6:] {
		full[6+i] = 0xff
	}
	if next := past(time.Hour, full); next.Time() != first.Time()+1 {
		t.Errorf("behind a full millisecond it is %s", IDTime(next))
	}
	if id := past(now.Sub(time.Unix(-1e9, 0)), ulid.ULID{}); id.Time() != 0 {
		t.Errorf("before 1970 it is %s", IDTime(id))
	}
	// Nothing that could be in the way of an id to come.
	full.SetTime(uint64(now.UnixMilli() - 1))
	for name, ok := range map[string]bool{
		"now":                  second(c.Past(now, ulid.ULID{})),
		"in the future":        second(c.Past(now.Add(time.Hour), ulid.ULID{})),
		"behind the last full": second(c.Past(now.Add(-time.Hour), full)),
	} {
		if ok {
			t.Errorf("an id for what happened %s", name)
		}
	}
	c.Next()
	now = now.Add(-time.Hour) // which is in the past of the ids still
	if a, b := past(-time.Hour+time.Millisecond, ulid.ULID{}), c.Next(); a.Compare(b) >= 0 {
		t.Errorf("%s is not before the next, %s", a, b)
	}
}

func second(_ ulid.ULID, ok bool) bool { return ok }

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs, nil)
	if err := l.db.Set(keyFormat, binary.BigEndian.AppendUint32(nil, FormatVersion+1), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open("log", Options{FS: fs})
	if err == nil || !strings.Contains(err.Error(), "format version 2") || !strings.Contains(err.Error(), "newer mamlog") {
		t.Errorf("opening a newer store: %v", err)
	}
}

func TestAppendAfterClose(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	acked := make(chan error, 1)
	if err := l.Append([]Entry{{Event: message("a@h", "x")}}, func(_ []ulid.ULID, err error) { acked <- err }); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-acked; err != nil {
		t.Errorf("what was queued before Close: %v", err)
	}
	if err := l.Append(nil, func([]ulid.ULID, error) { t.Error("called") }); !errors.Is(err, ErrClosed) {
		t.Errorf("append after Close: %v", err)
	}
}

// failing fails when it is released.
type failing struct {
	recorder
	calls   atomic.Int64
	called  chan struct{}
	release chan struct{}
}

func (f *failing) Apply([]Record) error {
	if f.calls.Add(1) == 1 {
		close(f.called)
		<-f.release
	}
	return errors.New("no space left on device")
}

// A failed follower stops the log. Messages are acknowledged, as they are durable,
// what is more than a message is not; nobody reads on as if all were there; and the
// follower, which has missed a group, is given none of the next.
func TestFailedFollower(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	f := &failing{called: make(chan struct{}), release: make(chan struct{})}
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	add := func(e Entry) <-chan error {
		acked := make(chan error, 1)
		if err := l.Append([]Entry{e}, func(_ []ulid.ULID, err error) { acked <- err }); err != nil {
			t.Fatal(err)
		}
		return acked
	}
	first := add(Entry{Event: message("a@h", "x")})
	<-f.called
	if err := <-first; err != nil {
		t.Errorf("a durable message is acknowledged with %v", err)
	}
	second := add(Entry{Event: message("a@h", "x")})
	if err := <-second; err != nil {
		t.Errorf("another is acknowledged with %v", err)
	}
	third := add(Entry{Class: Audit, Event: &Event{Kind: &Event_Read{Read: &ArchiveRead{Owner: "a@h"}}}})
	read := make(chan error)
	go func() { read <- l.Await() }()
	select {
	case err := <-read:
		t.Errorf("a reader went on before the follower had anything, with %v", err)
	case err := <-third:
		t.Errorf("what the follower does not have is acknowledged with %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(f.release)
	if err := <-third; !errors.Is(err, ErrFailed) {
		t.Errorf("acknowledged with %v", err)
	}
	if err := <-read; !errors.Is(err, ErrBehind) {
		t.Errorf("a reader gets %v", err)
	}
	if n := f.calls.Load(); n != 1 {
		t.Errorf("a follower that failed was given %d groups more", n-1)
	}
	if _, err := l.AppendWait(context.Background(), Entry{Event: message("a@h", "x")}); !errors.Is(err, ErrFailed) {
		t.Errorf("append after a failure: %v", err)
	}
}

// slow applies nothing until it is released.
type slow struct {
	recorder
	release chan struct{}
}

func (s *slow) Apply(records []Record) error {
	<-s.release
	return s.recorder.Apply(records)
}

// Acknowledgements run ahead of a slow follower by so many bytes, and not further.
func TestAcknowledgementsWaitForSlowFollowers(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	f := &slow{release: make(chan struct{})}
	if err := l.Follow(f, nil); err != nil {
		t.Fatal(err)
	}
	const n, size = 64, 256 << 10 // 16 MiB
	var acked atomic.Int64
	all := make(chan struct{})
	for range n {
		err := l.Append([]Entry{{Event: message("a@h", strings.Repeat("x", size))}}, func(_ []ulid.ULID, err error) {
			if err != nil {
				t.Error(err)
			}
			if acked.Add(1) == n {
				close(all)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for l.Queued() > size { // so that each has a group of its own
			if l.behind.Load() > maxBehindBytes {
				break
			}
			runtime.Gosched()
		}
	}
	time.Sleep(50 * time.Millisecond) // for those that should not come
	if got := acked.Load(); got == 0 || got > maxBehindBytes/size+4 {
		t.Errorf("%d messages of %d bytes were acknowledged before the follower had any", got, size)
	}
	close(f.release)
	<-all
	if err := l.Await(); err != nil || len(f.seen) != n {
		t.Errorf("the follower has %d of %d, %v", len(f.seen), n, err)
	}
}

// An append without entries is a barrier: it is answered behind all before it.
func TestEmptyAppendWaitsItsTurn(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	var order []int
	done := make(chan struct{})
	for i := range 100 {
		var entries []Entry
		if i%2 == 0 {
			entries = []Entry{{Event: message("a@h", "x")}}
		}
		err := l.Append(entries, func([]ulid.ULID, error) {
			if order = append(order, i); i == 99 {
				close(done)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-done
	for i, n := range order {
		if i != n {
			t.Fatalf("callback %d came at place %d", n, i)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(recordKey(1, ulid.ULID{1}), []byte{0x0a, 0x03, 0x0a, 0x01, 'a'})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeRecord(key, value)
		if err == nil && r.Event == nil {
			t.Error("neither an event nor an error")
		}
	})
}
