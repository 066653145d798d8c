package xep0313

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// imported is a message of before noon.
func (f *fixture) imported(before time.Duration, body string) Side {
	f.t.Helper()
	s := f.side(in, "juliet@test.example", romeo, body)
	s.Import, s.Stamp, s.Key = true, noon.Add(-before), "mam:"+body
	return s
}

func atNoon() time.Time { return noon }

// shown are the bodies of juliet's archive with the times of their ids and their
// stamps, where these differ.
func (f *fixture) shown() (all []string) {
	f.t.Helper()
	stanzas := f.ask(juliet, "set", "", queryXML(nil, ""))
	last := ""
	for _, s := range stanzas[:len(stanzas)-1] {
		id := s.First().Attr("id")
		if id <= last {
			f.t.Errorf("%s comes after %s", id, last)
		}
		last = id
		at := log.IDTime(mustID(f.t.(*testing.T), id)).Format("15:04")
		fw := s.First().First()
		stamp, err := time.Parse(time.RFC3339, fw.Child(NSDelay, "delay").Attr("stamp"))
		if err != nil {
			f.t.Fatal(err)
		}
		if sent := stamp.Format("15:04"); sent != at {
			at += "<" + sent
		}
		all = append(all, fw.Child(stanza.NSClient, "message").ChildText(stanza.NSClient, "body")+" "+at)
	}
	return all
}

func TestImportsKeepTheirTimes(t *testing.T) {
	f := newFixture(t, DefaultOptions(), atNoon)
	o := f.append(
		f.imported(3*time.Hour, "1"), f.imported(2*time.Hour, "2"), f.imported(2*time.Hour, "3"),
		f.imported(4*time.Hour, "late"), f.imported(time.Hour, "4"), f.imported(-time.Hour, "future"), f.imported(time.Hour, "5"))
	for i := range o {
		if o[i].Err != nil || i > 0 && o[i].ID.Compare(o[i-1].ID) <= 0 {
			t.Errorf("%d: %v", i, o[i])
		}
	}
	f.chat(juliet, romeo, "live")
	if got, want := fmt.Sprint(f.shown()), "[1 09:00 2 10:00 3 10:00 late 10:00<08:00 4 11:00 future 12:00 5 12:00<11:00 live 12:00]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if a := f.query(juliet, []string{field("start", "2026-11-22T10:00:00Z"), field("end", "2026-11-22T11:00:00Z")}, ""); fmt.Sprint(a.bodies) != "[2 3 late 4]" || a.count != "4" {
		t.Errorf("from 10 to 11: %+v", a)
	}
	if a := f.query(juliet, nil, "<max>2</max><after>"+o[1].ID.String()+"</after>"); fmt.Sprint(a.bodies) != "[3 late]" || a.index != "2" {
		t.Errorf("after an imported id: %+v", a)
	}
	if n := len(f.imports.owners); n != 0 || f.imports.active.Load() != 0 {
		t.Errorf("%d archives are remembered when nothing is in flight", n)
	}
}

// The archive must not hold a message that is newer and was not imported.
func TestImportConflictsWithNewerMessages(t *testing.T) {
	now := noon.Add(-5 * time.Hour)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	f.one(f.side(in, "juliet@test.example", romeo, "live"))
	now = noon
	first := f.one(f.imported(4*time.Hour, "1"))
	f.one(f.imported(2*time.Hour, "2"))
	for _, c := range []struct {
		name, want string
		side       Side
	}{
		{"older than the live one", "cancel/conflict", f.imported(6*time.Hour, "older")},
		{"behind its own place, but newer than the live one", "<nil>", f.imported(3*time.Hour, "between")},
		{"a repeat", "<nil>", f.imported(4*time.Hour, "1")},
		{"of the very millisecond", "<nil>", f.imported(5*time.Hour, "same")},
	} {
		if o := f.append(c.side)[0]; condition(o.Err) != c.want || (o.ID == zeroID) != (o.Err != nil) {
			t.Errorf("%s: %v, want %s", c.name, o, c.want)
		}
	}
	f.one(f.side(in, "juliet@test.example", romeo, "live again"))
	o := f.append(f.imported(time.Hour, "3"), f.imported(4*time.Hour, "1"), f.side(in, "romeo@test.example", juliet, "x"))
	if condition(o[0].Err) != "cancel/conflict" || o[1].ID != first.ID || o[2].ID == zeroID {
		t.Errorf("after a live message: %v", o)
	}
	if got, want := fmt.Sprint(f.shown()), "[live 07:00 1 08:00 2 10:00 between 10:00<09:00 same 10:00<07:00 live again 12:00]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Nor one that is on its way: what the rows do not show yet counts too.
func TestImportConflictsWithMessagesInFlight(t *testing.T) {
	f := newFixture(t, DefaultOptions(), atNoon)
	done := make(chan struct{})
	if err := f.Append([]Side{f.side(in, "juliet@test.example", romeo, "live")}, func([]Outcome) { close(done) }); err != nil {
		t.Fatal(err)
	}
	if o := f.append(f.imported(time.Hour, "1"))[0]; condition(o.Err) != "cancel/conflict" {
		t.Errorf("with a message queued before: %v", o)
	}
	<-done

	// An import is in flight for as long as the other store does not come on.
	hold := make(chan struct{})
	if err := f.hosts["other.example"].Log.Append(nil, func([]ulid.ULID, error) { <-hold }); err != nil {
		t.Fatal(err)
	}
	nurse := f.imported(3*time.Hour, "1")
	nurse.Owner = jidOf("nurse@test.example")
	landed := make(chan []Outcome, 1)
	if err := f.Append([]Side{nurse, f.side(in, "nurse@other.example", romeo, "x")}, func(o []Outcome) { landed <- o }); err != nil {
		t.Fatal(err)
	}
	next := nurse
	next.Stamp, next.Key = noon.Add(-2*time.Hour), "mam:2"
	second := f.one(next)
	if len(f.imports.owners) != 1 {
		t.Error("the archive is forgotten while an import into it is in flight")
	}
	// A message that is queued between two imports, and in no row.
	holdToo := make(chan struct{})
	if err := f.hosts["test.example"].Log.Append(nil, func([]ulid.ULID, error) { <-holdToo }); err != nil {
		t.Fatal(err)
	}
	if err := f.Append([]Side{f.side(in, "nurse@test.example", romeo, "live")}, func([]Outcome) {}); err != nil {
		t.Fatal(err)
	}
	last := nurse
	last.Stamp, last.Key = noon.Add(-time.Hour), "mam:3"
	third := make(chan []Outcome, 1)
	if err := f.Append([]Side{last, next}, func(o []Outcome) { third <- o }); err != nil {
		t.Fatal(err)
	}
	close(holdToo)
	if o := <-third; condition(o[0].Err) != "cancel/conflict" || o[1].ID != second.ID {
		t.Errorf("with a message that came between two imports: %v", o)
	}
	// What it was in the way of is gone with the archive.
	if err := f.DeleteArchive(context.Background(), nurse.Owner, "the server"); err != nil {
		t.Fatal(err)
	}
	if o := f.append(last)[0]; o.Err != nil {
		t.Errorf("after the deletion: %v", o)
	}
	close(hold)
	if o := <-landed; o[0].ID.Compare(second.ID) >= 0 {
		t.Errorf("the second import, %s, is not behind the first: %v", second.ID, o)
	}
	if n := len(f.imports.owners); n != 0 {
		t.Errorf("%d archives are remembered when nothing is in flight", n)
	}
}

// What another archive held is kept whatever the rules here would say, but for
// what has expired and what only one of rooms and accounts can hold.
func TestWhatIsImported(t *testing.T) {
	o := DefaultOptions()
	o.DefaultPolicy, o.SmartEnable = log.Default_DEFAULT_NEVER, true
	f := newFixture(t, o, atNoon)
	for _, c := range []struct {
		name, xml string
		before    time.Duration
		room      bool
		want      bool
	}{
		{"body", "<message><body>x</body></message>", time.Hour, false, true},
		{"nothing of worth", "<message><thread>x</thread></message>", time.Hour, false, true},
		{"hint", "<message><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", time.Hour, false, true},
		{"error", "<message type='error'><error/></message>", time.Hour, false, true},
		{"nothing", "<message/>", time.Hour, false, false},
		{"nothing that is kept", "<message><active xmlns='http://jabber.org/protocol/chatstates'/></message>", time.Hour, false, false},
		{"groupchat", "<message type='groupchat'><body>x</body></message>", time.Hour, false, false},
		{"expired", "<message><body>x</body></message>", o.ExpiresAfter + time.Millisecond, false, false},
		{"not expired", "<message><body>x</body></message>", o.ExpiresAfter, false, true},
		{"room", "<message type='groupchat'><body>x</body></message>", time.Hour, true, true},
		{"private message", "<message type='chat'><body>x</body></message>", time.Hour, true, false},
	} {
		s := f.imported(c.before, "")
		s.Owner, s.Stanza, s.Key = jidOf(fmt.Sprintf("%d@test.example", len(c.name))), f.parse(c.xml), c.name
		if c.room {
			s = f.roomXML(verona+"/nurse", c.xml)
			s.Import, s.Stamp = true, noon.Add(-c.before)
		}
		if got := f.one(s); (got.ID != zeroID) != c.want {
			t.Errorf("%s: imported %v", c.name, !c.want)
		}
	}
	n := 0
	for r, err := range f.hosts["test.example"].Log.Scan(zeroID) {
		if r.Class == log.Audit {
			continue // TestImportsAreAccountedFor
		}
		if m := r.Event.GetMessage(); err != nil || m.GetReason() != log.Reason_REASON_IMPORT || len(m.GetDecidedBy()) != 0 || m.GetSentUnixMs() != 0 {
			t.Errorf("%v, %v", r, err)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d events, want 6", n)
	}
}

// An archive that was deleted can be imported anew: nothing of the new one lies
// before the deletion, where it would be hidden.
func TestImportAfterDeletion(t *testing.T) {
	now := noon.Add(-time.Minute)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	sides := []Side{f.imported(3*time.Hour, "1"), f.imported(2*time.Hour, "2")}
	f.append(sides...)
	f.one(f.side(in, "juliet@test.example", romeo, "live"))
	if err := f.DeleteArchive(context.Background(), jidOf("juliet@test.example"), "the server"); err != nil {
		t.Fatal(err)
	}
	now = noon
	for _, o := range append(f.append(sides...), f.append(sides...)...) {
		if o.Err != nil || o.ID == zeroID {
			t.Errorf("%v", o)
		}
	}
	if got, want := fmt.Sprint(f.shown()), "[1 11:59<09:00 2 11:59<10:00]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Imports of one owner in batches, many of them in flight, beside messages of
// others: all are there once, in their order.
func TestPipelinedImports(t *testing.T) {
	o := DefaultOptions()
	o.MaxQueryResults = 10000
	f := newFixture(t, o, nil)
	start := time.Now().Add(-time.Hour)
	const batches, each = 20, 256
	var wg sync.WaitGroup
	var want []string
	for b := range batches {
		sides := make([]Side, each)
		for i := range sides {
			n := b*each + i
			sides[i] = f.side(in, "juliet@test.example", romeo, fmt.Sprint(n))
			sides[i].Import, sides[i].Key = true, fmt.Sprint(n)
			sides[i].Stamp = start.Add(time.Duration(n/7) * time.Second / 10)
			want = append(want, fmt.Sprint(n))
		}
		wg.Add(2)
		if err := f.Append(sides, func(o []Outcome) {
			defer wg.Done()
			if i := slices.IndexFunc(o, func(o Outcome) bool { return o.Err != nil || o.ID == zeroID }); i >= 0 {
				t.Errorf("%v", o[i])
			}
		}); err != nil {
			t.Fatal(err)
		}
		if err := f.Append([]Side{f.side(in, "romeo@test.example", juliet, "x")}, func([]Outcome) { wg.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if a := f.query(juliet, nil, "<max>10000</max>"); a.count != fmt.Sprint(batches*each) {
		t.Errorf("%s messages", a.count)
	}
	var got []string
	for set := "<max>1000</max>"; ; {
		a := f.query(juliet, nil, set)
		got = append(got, a.bodies...)
		if a.complete {
			break
		}
		set = "<max>1000</max><after>" + a.last + "</after>"
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, in order: %v", len(got), slices.Equal(got, want))
	}
	if n := len(f.imports.owners); n != 0 {
		t.Errorf("%d archives are remembered when nothing is in flight", n)
	}
}

// However many bring them, the messages of an archive get growing ids in the order
// of the log: otherwise its rows could not be counted.
func TestImportsOfSeveralAtOnce(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	stamp := time.Now().Add(-time.Hour)
	const workers, batches, each = 4, 50, 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for b := range batches {
				var sides []Side
				for i := range each {
					s := f.side(in, "juliet@test.example", romeo, fmt.Sprint(w, b, i))
					s.Import, s.Stamp = true, stamp
					sides = append(sides, s)
				}
				f.append(sides...)
			}
		})
	}
	wg.Wait()
	var last ulid.ULID
	n := 0
	for r, err := range f.hosts["test.example"].Log.Scan(zeroID) {
		if r.Class == log.Audit {
			continue
		}
		if id := r.ArchiveID(); err != nil || id.Compare(last) <= 0 {
			t.Fatalf("%s is behind %s; %v", id, last, err)
		}
		last = r.ArchiveID()
		n++
	}
	if n != workers*batches*each {
		t.Errorf("%d messages", n)
	}
}

// TestImportsAreAccountedFor: with every import goes an audit record that counts
// what is new of it, in the same commit; other messages leave none.
func TestImportsAreAccountedFor(t *testing.T) {
	f := newFixture(t, DefaultOptions(), atNoon)
	f.one(f.side(in, "nurse@test.example", romeo, "live"))
	f.append(f.imported(3*time.Hour, "1"), f.imported(2*time.Hour, "2"), f.imported(2*time.Hour, "2"), f.side(in, "nurse@test.example", romeo, "beside"))
	f.append(f.imported(2*time.Hour, "2"))                             // all of it repeated
	f.append(f.imported(2*time.Hour, "2"), f.imported(time.Hour, "3")) // and in part
	var got []string
	for r, err := range f.hosts["test.example"].Log.ScanAudit(ulid.ULID{}) {
		if err != nil {
			t.Fatal(err)
		}
		i := r.Event.GetImported()
		got = append(got, fmt.Sprint(i.GetOwner(), " ", i.GetActor(), " ", i.GetMessages()))
	}
	want := []string{"juliet@test.example test.example 2", "juliet@test.example test.example 1"}
	if !slices.Equal(got, want) || f.archived("juliet@test.example") != 3 {
		t.Errorf("got %q and %d messages, want %q and 3", got, f.archived("juliet@test.example"), want)
	}
}
