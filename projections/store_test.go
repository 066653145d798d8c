package projections

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

func openBoth(t testing.TB, fs vfs.FS, now func() time.Time, o Options) (*log.Log, *Store, log.Class) {
	t.Helper()
	l, err := log.Open("log", log.Options{FS: fs, Clock: log.NewClock(now)})
	if err != nil {
		t.Fatal(err)
	}
	o.FS = fs
	s, err := Open("rows", l, o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Class("h")
	if err != nil {
		t.Fatal(err)
	}
	return l, s, c
}

func archive(t testing.TB, l *log.Log, c log.Class, owner, peer string, n int) (ids []ulid.ULID) {
	t.Helper()
	entries := make([]log.Entry, n)
	for i := range entries {
		entries[i] = log.Entry{Class: c, Event: &log.Event{Kind: &log.Event_Message{Message: &log.MessageArchived{
			Owner: owner, Peer: peer, Direction: log.Direction_DIRECTION_IN, Stanza: fmt.Appendf(nil, "<message>%d</message>", i),
		}}}}
	}
	ids, err := l.AppendWait(context.Background(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// What Check is for: a row that was tampered with, one that is missing and one
// too many are each found and named.
func TestCheckFindsWrongRows(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	ids := archive(t, l, c, "a@h", "b@h/x", 3*chunkMessages)
	if r, err := s.Check(context.Background(), nil); err != nil || r.Differences != 0 || r.Records != len(ids) || r.Rows != 9 {
		t.Fatalf("before: %+v, %v", r, err)
	}
	prefix := rowsPrefix(c, s.rows.widths[c].bucketOf(ids[0]), "a@h", "")
	db := s.rows.db
	for _, err := range []error{
		db.Set(appendRowID(bytes.Clone(prefix), ids[0]), []byte("wrong"), pebble.NoSync),
		db.Delete(appendRowID(bytes.Clone(prefix), ids[chunkMessages]), pebble.NoSync),
		db.Set(appendRowID(bytes.Clone(prefix), ulid.ULID{1}), []byte("extra"), pebble.NoSync),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Check(context.Background(), nil)
	if err != nil || r.Differences != 3 {
		t.Fatalf("after: %+v, %v", r, err)
	}
	all := strings.Join(r.Problems, "\n")
	for _, want := range []string{ids[0].String() + " of a@h: the row does not say", ids[chunkMessages].String() + " of a@h: the row is missing", "knows of no such row"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among the problems:\n%s", want, all)
		}
	}
	if err := s.Rebuild(nil); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(context.Background(), nil); err != nil || r.Differences != 0 {
		t.Errorf("after a rebuild: %+v, %v", r, err)
	}
}

// The first message of a host makes its class known while others are queried.
func TestFirstMessageOfAClassBesideQueries(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	archive(t, l, c, "a@h", "b@h", 10)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if p, err := s.Query(Query{Class: c, Owner: "a@h", Max: 5}); err != nil || p.Count != 10 {
					t.Errorf("count %d, %v", p.Count, err)
					return
				}
			}
		}
	})
	for i := range 50 {
		other, err := l.Class(fmt.Sprint("host", i))
		if err != nil {
			t.Fatal(err)
		}
		archive(t, l, other, "a@h", "b@h", 1)
	}
	close(stop)
	wg.Wait()
}

// A rebuild comes to its end however fast appends come, and has them all.
func TestRebuildEndsUnderLoad(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	archive(t, l, c, "a@h", "b@h", 2000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			owner := fmt.Sprint("u", i, "@h")
			for {
				select {
				case <-stop:
					return
				default:
					archive(t, l, c, owner, "b@h", 200)
				}
			}
		})
	}
	err := s.Rebuild(nil)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(context.Background(), nil); err != nil || r.Differences != 0 {
		t.Errorf("after a rebuild: %+v, %v", r, err)
	}
}

// Histories can be read within each other, and slowly, while the rows are
// rebuilt: nothing is held between two entries.
func TestHistoriesDoNotHoldUpARebuild(t *testing.T) {
	l, s, _ := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	for range 3 {
		_, err := l.AppendWait(context.Background(),
			log.Entry{Event: &log.Event{Kind: &log.Event_Preferences{Preferences: &log.PreferencesChanged{Owner: "a@h", After: &log.Preferences{}}}}},
			log.Entry{Event: &log.Event{Kind: &log.Event_Policy{Policy: &log.PolicyChanged{Host: "h", After: &log.Policy{}}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, err := range s.PolicyHistory("h") {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Rebuild(nil); err != nil {
			t.Fatal(err)
		}
		for _, err := range s.PreferenceHistory("a@h") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n != 9 {
		t.Errorf("%d entries, want 9", n)
	}
}

func TestLongHistoryIsReadInBatches(t *testing.T) {
	l, s, _ := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	for _, n := range []int{underBatch - 1, 1, 1, underBatch} {
		entries := make([]log.Entry, n)
		for i := range entries {
			entries[i].Event = &log.Event{Kind: &log.Event_Preferences{Preferences: &log.PreferencesChanged{Owner: "a@h", After: &log.Preferences{}}}}
		}
		ids, err := l.AppendWait(context.Background(), entries...)
		if err != nil {
			t.Fatal(err)
		}
		var last ulid.ULID
		count := 0
		for c, err := range s.PreferenceHistory("a@h") {
			if err != nil || c.ID.Compare(last) <= 0 {
				t.Fatalf("%s after %s, %v", c.ID, last, err)
			}
			last = c.ID
			count++
		}
		if last != ids[n-1] || count < n {
			t.Errorf("%d entries up to %s, want up to %s", count, last, ids[n-1])
		}
	}
}

// A check whose caller has left ends, and lets the next one in.
func TestCheckEndsWithItsCaller(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	archive(t, l, c, "a@h", "b@h", 5000)
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := s.Check(ctx, func(int) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("check: %v", err)
	}
	if r, err := s.Check(context.Background(), nil); err != nil || r.Records != 5000 {
		t.Errorf("the next check: %+v, %v", r, err)
	}
}

func TestOtherFormatIsRebuilt(t *testing.T) {
	fs := vfs.NewMem()
	l, s, c := openBoth(t, fs, nil, Options{})
	archive(t, l, c, "a@h", "b@h", 3)
	if err := s.rows.db.Set(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion+1), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	l.Close()
	s.Close()
	folded := 0
	l, s, c = openBoth(t, fs, nil, Options{Progress: func(n int) { folded = n }})
	defer s.Close()
	defer l.Close()
	if folded != 3 {
		t.Errorf("%d records were folded again, want 3", folded)
	}
	if p, err := s.Query(Query{Class: c, Owner: "a@h", Max: 10}); err != nil || len(p.Rows) != 3 {
		t.Errorf("%d rows, %v", len(p.Rows), err)
	}
}

// A clean stop leaves nothing to fold again, and a rebuild that was cut short
// leaves the old rows.
func TestReopenGoesOnWhereItStopped(t *testing.T) {
	fs := vfs.NewMem()
	l, s, c := openBoth(t, fs, nil, Options{})
	archive(t, l, c, "a@h", "b@h", 100)
	cut, err := s.createRows(s.generation(2)) // as a rebuild begins
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.db.Close(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	s.Close()
	folded := 0
	l, s, c = openBoth(t, fs, nil, Options{Progress: func(n int) { folded = n }})
	defer s.Close()
	defer l.Close()
	if folded != 0 {
		t.Errorf("%d records were folded again", folded)
	}
	if p, err := s.Query(Query{Class: c, Owner: "a@h", Max: 1}); err != nil || p.Count != 100 {
		t.Errorf("count %d, %v", p.Count, err)
	}
	if names, err := fs.List("rows"); err != nil || len(names) != 1 {
		t.Errorf("in the directory: %v, %v", names, err)
	}
}

// Invariant 5: an archive loses only its oldest messages. Invariant 6: expired
// messages can't be seen, before they are deleted and after.
func TestExpiredIsInvisibleAndLeavesNoHoles(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l, s, c := openBoth(t, vfs.NewMem(), func() time.Time { return now }, Options{
		Retention: func(log.Class) time.Duration { return 7 * 24 * time.Hour },
	})
	defer s.Close()
	defer l.Close()
	var ids []ulid.ULID
	for range 200 {
		ids = append(ids, archive(t, l, c, "a@h", "b@h", 1)...)
		now = now.Add(time.Hour)
	}
	floor := now.Add(-50 * time.Hour)
	look := func() Page {
		t.Helper()
		p, err := s.Query(Query{Class: c, Owner: "a@h", NotBefore: floor, Max: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := look()
	if len(before.Rows) != 50 || before.Count != 50 || before.Rows[0].ID != ids[150] {
		t.Fatalf("%d rows, count %d", len(before.Rows), before.Count)
	}
	if _, err := s.Query(Query{Class: c, Owner: "a@h", NotBefore: floor, Max: 1, PageAfter: ids[149]}); err == nil {
		t.Error("an expired id is still known")
	}
	cut := s.ExpiryCut(c, floor)
	if cut.After(floor) || floor.Sub(cut) >= 24*time.Hour {
		t.Fatalf("cut at %s for %s", cut, floor)
	}
	if _, err := l.Expire(context.Background(), c, cut, ""); err != nil {
		t.Fatal(err)
	}
	if after := look(); describePage(after) != describePage(before) {
		t.Errorf("deleting what could not be seen changed what can be:\n%s\n%s", describePage(after), describePage(before))
	}
	p, err := s.Query(Query{Class: c, Owner: "a@h", Max: 1000})
	if err != nil || len(p.Rows) >= 200 || p.Count != len(p.Rows) {
		t.Fatalf("%d rows are left, count %d, %v", len(p.Rows), p.Count, err)
	}
	for i, r := range p.Rows {
		if r.ID != ids[200-len(p.Rows)+i] {
			t.Fatalf("a hole at %d", i)
		}
	}
}

// Where the retention was raised, an import may go into a time bucket that was
// expired: it finds it empty, in the rows that were there and in rebuilt ones.
func TestExpiredBucketIsFilledAgain(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	l, s, c := openBoth(t, vfs.NewMem(), func() time.Time { return now }, Options{
		Retention: func(log.Class) time.Duration { return time.Hour },
	})
	defer s.Close()
	defer l.Close()
	put := func(ago time.Duration) ulid.ULID {
		t.Helper()
		id, ok := l.Clock().Past(now.Add(-ago), ulid.ULID{})
		if !ok {
			t.Fatal("not in the past")
		}
		ids, err := l.AppendWait(context.Background(), log.Entry{Class: c, Event: &log.Event{Kind: &log.Event_Message{
			Message: &log.MessageArchived{Owner: "a@h", Peer: "b@h", ArchiveId: id[:]},
		}}})
		if err != nil || ids[0] != id {
			t.Fatalf("appended under %v, want %s; %v", ids, id, err)
		}
		return id
	}
	archive(t, l, c, "other@h", "b@h", 1) // stays
	put(9 * time.Hour)
	put(9*time.Hour - time.Minute)
	if ok, err := l.Expire(context.Background(), c, s.ExpiryCut(c, now.Add(-5*time.Hour)), ""); !ok || err != nil {
		t.Fatalf("expire: %v, %v", ok, err)
	}
	id := put(9*time.Hour - 2*time.Minute)
	look := func(when string) {
		t.Helper()
		p, err := s.Query(Query{Class: c, Owner: "a@h", Max: 10})
		if err != nil || len(p.Rows) != 1 || p.Rows[0].ID != id || p.Count != 1 || p.Index != 0 {
			t.Errorf("%s: %s, %v; want only %s", when, describePage(p), err, id)
		}
		if r, err := s.Check(context.Background(), nil); err != nil || r.Differences != 0 {
			t.Errorf("%s: %+v, %v", when, r, err)
		}
	}
	look("in the rows")
	if err := s.Rebuild(nil); err != nil {
		t.Fatal(err)
	}
	look("rebuilt")
}

// Expiry gives back nearly all of the disk space, in the log and in the rows.
func TestExpiryGivesSpaceBack(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l, s, c := openBoth(t, vfs.NewMem(), func() time.Time { return now }, Options{
		Retention: func(log.Class) time.Duration { return 24 * time.Hour },
	})
	defer s.Close()
	defer l.Close()
	noise := make([]byte, 1000)
	rng := rand.NewChaCha8([32]byte{})
	for range 40 {
		entries := make([]log.Entry, 1000)
		for i := range entries {
			rng.Read(noise) // which compression can't shrink
			entries[i] = log.Entry{Class: c, Event: &log.Event{Kind: &log.Event_Message{Message: &log.MessageArchived{
				Owner: fmt.Sprintf("user%d@h", i), Peer: "b@h", Stanza: slices.Clone(noise),
			}}}}
		}
		if _, err := l.AppendWait(context.Background(), entries...); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	if err := s.settleTail(); err != nil {
		t.Fatal(err)
	}
	logBefore, rowsBefore := l.Stats().DiskBytes, s.Stats().DiskBytes
	if logBefore < 20e6 || rowsBefore < 20e6 {
		t.Fatalf("only %d and %d bytes are on disk", logBefore, rowsBefore)
	}
	cut := s.ExpiryCut(c, now.Add(2*time.Hour))
	if _, err := l.Expire(context.Background(), c, cut, ""); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Compact(context.Background(), c, cut), s.Compact(context.Background(), c, cut)); err != nil {
		t.Fatal(err)
	}
	// Tables are deleted in the background.
	deadline := time.Now().Add(time.Minute)
	for {
		log, rows := l.Stats().DiskBytes, s.Stats().DiskBytes
		if log < logBefore/20 && rows < rowsBefore/20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %d and %d bytes, %d and %d are still on disk", logBefore, rowsBefore, log, rows)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func FuzzRow(f *testing.F) {
	for _, m := range []*log.MessageArchived{
		{Peer: "b@h", Stanza: []byte("<message/>")},
		{Peer: "r@h/nick", Direction: log.Direction_DIRECTION_ROOM, Sender: "b@h/x", Whois: true, SentUnixMs: -1},
	} {
		f.Add(appendContent(nil, m, 9))
	}
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, v []byte) {
		var r Row
		if err := r.read(ulid.ULID{1}, "a@h", v); err != nil {
			return
		}
		if len(r.event)+len(r.Stanza) > len(v) {
			t.Error("more came out than went in")
		}
		// What is taken in steps is what the whole says.
		m, err := r.Message()
		if err != nil {
			return // text that is not UTF-8, say: nothing that an answer needs
		}
		if m.Sender != r.Sender || m.Whois != r.Whois || m.SentUnixMs != r.sent || (m.Reason == log.Reason_REASON_IMPORT) != r.Imported {
			t.Errorf("%+v of %v", r, m)
		}
	})
}
