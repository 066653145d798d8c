package xep0313

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

const (
	in  = log.Direction_DIRECTION_IN
	out = log.Direction_DIRECTION_OUT
)

func (f *fixture) parse(xml string) *stanza.Element {
	f.t.Helper()
	e, err := stanza.Parse([]byte(xml))
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

// side is one of a chat message with that body.
func (f *fixture) side(d log.Direction, owner, peer, body string) Side {
	f.t.Helper()
	from, to := owner+"/x", peer
	if d == in {
		from, to = peer, owner
	}
	return Side{Owner: jidOf(owner), Peer: jidOf(peer), Direction: d, Stanza: f.parse(fmt.Sprintf(
		"<message type='chat' from='%s' to='%s'><body>%s</body></message>", from, to, body))}
}

// append waits for the outcomes.
func (f *fixture) append(sides ...Side) []Outcome {
	f.t.Helper()
	c := make(chan []Outcome, 1)
	if err := f.Append(sides, func(o []Outcome) { c <- o }); err != nil {
		f.t.Fatal(err)
	}
	return <-c
}

// one appends one side, which must not fail.
func (f *fixture) one(s Side) Outcome {
	f.t.Helper()
	o := f.append(s)[0]
	if o.Err != nil {
		f.t.Fatal(o.Err)
	}
	return o
}

func condition(err error) string {
	var se *stanza.Error
	if err == nil || !errors.As(err, &se) {
		return fmt.Sprint(err)
	}
	return se.Type + "/" + se.Condition
}

func TestSidesAreArchivedUnderTheirOwnIDs(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	sent := f.side(out, "juliet@test.example", "nurse@other.example", "hi")
	received := Side{Owner: jidOf("nurse@other.example"), Peer: jidOf(juliet), Direction: in, Stanza: sent.Stanza}
	o := f.append(sent, received)
	if a := f.query(juliet, nil, ""); len(a.ids) != 1 || a.ids[0] != o[0].ID.String() {
		t.Errorf("the sender's archive: %+v; %v", a, o)
	}
	if a := f.query("nurse@other.example/x", nil, ""); len(a.ids) != 1 || a.ids[0] != o[1].ID.String() {
		t.Errorf("the recipient's archive: %+v; %v", a, o)
	}
	if o := f.append(); len(o) != 0 {
		t.Errorf("no side has the outcomes %v", o)
	}
}

// A side that can't be archived fails alone, and one that is not to be says so.
func TestOutcomes(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	good := func() Side { return f.side(in, "juliet@test.example", romeo, "x") }
	room := f.room("verona@test.example/nurse", "x")
	presence := good()
	presence.Stanza = f.parse("<presence/>")
	state := good()
	state.Stanza = f.parse("<message type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>")
	for _, c := range []struct {
		name string
		side Side
		with func(*Side)
		want string
	}{
		{"good", good(), nil, "archived"},
		{"another host", good(), func(s *Side) { s.Owner = jidOf("juliet@far.test") }, "cancel/item-not-found"},
		{"no owner", good(), func(s *Side) { s.Owner = jid.JID{} }, "cancel/item-not-found"},
		{"a full JID", good(), func(s *Side) { s.Owner = jidOf(juliet) }, "modify/bad-request"},
		{"the host itself", good(), func(s *Side) { s.Owner = jidOf("test.example") }, "modify/bad-request"},
		{"no peer", good(), func(s *Side) { s.Peer = jid.JID{} }, "modify/bad-request"},
		{"no direction", good(), func(s *Side) { s.Direction = 0 }, "modify/bad-request"},
		{"no stanza", good(), func(s *Side) { s.Stanza = nil }, "modify/bad-request"},
		{"no message", presence, nil, "modify/bad-request"},
		{"a room's occupant of another room", room, func(s *Side) { s.Peer = jidOf("mantua@test.example/nurse") }, "modify/bad-request"},
		{"an import of no time", good(), func(s *Side) { s.Import = true }, "modify/bad-request"},
		{"not worth it", state, nil, "not archived"},
	} {
		if c.with != nil {
			c.with(&c.side)
		}
		o := f.append(good(), c.side, good())
		got := condition(o[1].Err)
		switch {
		case o[1].Err == nil && o[1].ID != zeroID:
			got = "archived"
		case o[1].Err == nil:
			got = "not archived"
		}
		if got != c.want || o[1].Err != nil && o[1].ID != zeroID {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if o[0].ID == zeroID || o[2].ID == zeroID {
			t.Errorf("%s: of its neighbours became %v", c.name, o)
		}
	}
}

func TestAppendsAreDoneInOrder(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	var mu sync.Mutex
	var order []int
	var ids []string
	var wg sync.WaitGroup
	for i := range 300 {
		var sides []Side
		switch i % 3 {
		case 0:
			sides = []Side{f.side(in, "juliet@test.example", romeo, "x"), f.side(out, "romeo@test.example", juliet, "x")}
		case 1:
			sides = []Side{f.side(in, "juliet@test.example", romeo, "x")}
			sides[0].Stanza.SetAttr("type", "headline") // is not archived, and waits its turn
		case 2:
			sides = []Side{f.side(in, "romeo@test.example", juliet, "x")}
		}
		wg.Add(1)
		if err := f.Append(sides, func(o []Outcome) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
			for _, o := range o {
				if o.ID != zeroID {
					ids = append(ids, o.ID.String())
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if !slices.IsSorted(order) || !slices.IsSorted(ids) || len(ids) != 300 {
		t.Errorf("done in the order %v, %d ids sorted: %v", order, len(ids), slices.IsSorted(ids))
	}
}

// A key names one append of one owner, whatever is decided when it is repeated.
func TestRepeatsGetTheFirstID(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	keyed := func(owner, body string) Side {
		s := f.side(in, owner, romeo, body)
		s.Key = "k1"
		return s
	}
	o := f.append(keyed("juliet@test.example", "first"), keyed("juliet@test.example", "again"), keyed("nurse@test.example", "hers"))
	if o[0].ID == zeroID || o[1].ID != o[0].ID || o[2].ID == zeroID || o[2].ID == o[0].ID {
		t.Fatalf("%v", o)
	}
	if again := f.one(keyed("juliet@test.example", "again")); again.ID != o[0].ID {
		t.Errorf("a repeat got %s, the first %s", again.ID, o[0].ID)
	}
	never := &log.Preferences{Default: log.Default_DEFAULT_NEVER}
	if _, err := f.SetPreferences(context.Background(), jidOf(juliet), never, juliet, log.Cause_CAUSE_CLIENT); err != nil {
		t.Fatal(err)
	}
	if again := f.one(keyed("juliet@test.example", "again")); again.ID != o[0].ID {
		t.Errorf("a repeat under other preferences got %s, the first %s", again.ID, o[0].ID)
	}
	other := keyed("juliet@test.example", "never archived")
	other.Key = "k2"
	if o := f.one(other); o.ID != zeroID {
		t.Error("archived against the preferences")
	}
	if a := f.query(juliet, nil, ""); fmt.Sprint(a.bodies) != "[first]" {
		t.Errorf("archived are %v", a.bodies)
	}
}

// With the default "roster" it is the server's word that counts, not the rosters
// that are known here.
func TestContactIsTheServersWord(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	roster := &log.Preferences{Default: log.Default_DEFAULT_ROSTER}
	if _, err := f.SetPreferences(context.Background(), jidOf(juliet), roster, juliet, log.Cause_CAUSE_CLIENT); err != nil {
		t.Fatal(err)
	}
	contact := &log.RosterChanged{Owner: "juliet@test.example", Contact: "romeo@test.example", Item: &log.RosterItem{Contact: "romeo@test.example", Listed: true}}
	if _, err := f.log.AppendWait(context.Background(), log.Entry{Event: &log.Event{Kind: &log.Event_Roster{Roster: contact}}}); err != nil {
		t.Fatal(err)
	}
	for _, contact := range []bool{false, true} {
		s := f.side(in, "juliet@test.example", romeo, "x")
		s.Contact = contact
		if o := f.one(s); (o.ID != zeroID) != contact {
			t.Errorf("contact %v: archived %v", contact, !contact)
		}
	}
}

// What waited in a spool shows when it was sent, and is where it was appended.
func TestStamp(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	f.chat(juliet, romeo, "before")
	now = now.Add(time.Minute)
	s := f.side(in, "juliet@test.example", romeo, "spooled")
	s.Stamp = time.Date(2026, 11, 22, 19, 30, 0, 123456789, time.UTC)
	f.one(s)
	s = f.side(in, "juliet@test.example", romeo, "ahead")
	s.Stamp = now.Add(time.Second) // the server's clock is ahead
	f.one(s)
	var got []string
	for _, r := range f.ask(juliet, "set", "", queryXML(nil, ""))[:3] {
		fw := r.First().First()
		got = append(got, fw.Child(stanza.NSClient, "message").ChildText(stanza.NSClient, "body")+" "+fw.Child(NSDelay, "delay").Attr("stamp"))
	}
	if want := "[before 2026-11-22T20:00:00.000Z spooled 2026-11-22T19:30:00.123Z ahead 2026-11-22T20:01:00.000Z]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	// Time bounds go by the archive ids, as the order does.
	if a := f.query(juliet, []string{field("start", "2026-11-22T20:01:00Z")}, ""); fmt.Sprint(a.bodies) != "[spooled ahead]" {
		t.Errorf("since it was appended: %v", a.bodies)
	}
	s.Stamp = now.Add(-time.Hour)
	f.one(s)
	meta := f.ask(juliet, "get", "", "<metadata xmlns='urn:xmpp:mam:2'/>")[0].First()
	if end := meta.Child(NS, "end").Attr("timestamp"); end != "2026-11-22T19:01:00.000Z" {
		t.Errorf("the last message is of %s", end)
	}
}

func TestSideToOneselfIsArchivedOnce(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.one(f.side(out, "juliet@test.example", romeo, "to romeo"))
	f.one(f.side(out, "juliet@test.example", "juliet@test.example", "note"))
	f.one(f.side(out, "juliet@test.example", "juliet@test.example/phone", "to my phone"))
	unsigned := f.side(out, "juliet@test.example", "juliet@test.example", "unsigned")
	unsigned.Stanza.SetAttr("from", "")
	f.one(unsigned)
	forged := f.side(out, "juliet@test.example", "juliet@test.example", "forged")
	forged.Stanza.SetAttr("from", "paris@far.test/x")
	f.one(forged)
	for with, want := range map[string]string{
		"juliet@test.example":       "[note to my phone unsigned forged]",
		"paris@far.test":            "[]",
		"juliet@test.example/x":     "[note to my phone]",
		"juliet@test.example/phone": "[to my phone]",
		"romeo@test.example":        "[to romeo]",
	} {
		if a := f.query(juliet, []string{field("with", with)}, ""); fmt.Sprint(a.bodies) != want {
			t.Errorf("with %q: %v, want %s", with, a.bodies, want)
		}
	}
}

// Private messages in rooms are found by the room and by the occupant, and never
// by who that is.
func TestPrivateMessagesInAnAccountsArchive(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	const muc = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
	for _, m := range []struct {
		d          log.Direction
		peer, body string
	}{
		{in, "verona@muc.far.test/romeo", "pm in"},
		{out, "verona@muc.far.test/romeo", "pm out"},
		{in, "verona@muc.far.test/paris", "pm from paris"},
		{in, "romeo@test.example/orchard", "direct"},
	} {
		s := f.side(m.d, "juliet@test.example", m.peer, m.body)
		if strings.Contains(m.peer, "muc") {
			s.Stanza = f.parse(strings.Replace(string(s.Stanza.Bytes()), "</message>", muc+"</message>", 1))
		}
		f.one(s)
	}
	for with, want := range map[string]string{
		"":                           "[pm in pm out pm from paris direct]",
		"verona@muc.far.test":        "[pm in pm out pm from paris]",
		"verona@muc.far.test/romeo":  "[pm in pm out]",
		"romeo@test.example":         "[direct]",
		"romeo@test.example/orchard": "[direct]",
	} {
		if a := f.query(juliet, []string{field("with", with)}, ""); fmt.Sprint(a.bodies) != want {
			t.Errorf("with %q: %v, want %s", with, a.bodies, want)
		}
	}
	s := f.ask(juliet, "set", "", queryXML(nil, ""))[0]
	if !strings.Contains(string(s.Bytes()), "muc#user") {
		t.Errorf("what tells a private message is lost: %s", s.Bytes())
	}
}

func TestIDsThatClaimToBeTheHostsAreNotArchived(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	s := f.side(out, "juliet@test.example", romeo, "x")
	for _, by := range []string{"juliet@test.example", "ROMEO@test.example", "test.example", "muc.far.test"} {
		s.Stanza.Add(stanza.New(NSStanzaID, "stanza-id", "by", by, "id", "by "+by))
	}
	before := string(s.Stanza.Bytes())
	received := Side{Owner: jidOf("romeo@test.example"), Peer: jidOf(juliet), Direction: in, Stanza: s.Stanza}
	elsewhere := Side{Owner: jidOf("nurse@other.example"), Peer: jidOf(juliet), Direction: in, Stanza: s.Stanza}
	f.append(s, received, elsewhere)
	if string(s.Stanza.Bytes()) != before {
		t.Error("the stanza was changed")
	}
	for asker, want := range map[string]string{
		juliet: "[muc.far.test]", romeo: "[muc.far.test]",
		"nurse@other.example/x": "[juliet@test.example ROMEO@test.example test.example muc.far.test]",
	} {
		var got []string
		m := f.ask(asker, "set", "", queryXML(nil, ""))[0].First().First().Child(stanza.NSClient, "message")
		for _, e := range m.Elements() {
			if e.Is(NSStanzaID, "stanza-id") {
				got = append(got, e.Attr("by"))
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s finds ids by %v, want %s", asker, got, want)
		}
	}
}

// From the deletion on the archive, and the preferences, are nobody's; what was
// sent before and comes late too.
func TestDeletedArchive(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	ctx := context.Background()
	keyed := f.side(in, "juliet@test.example", romeo, "secret")
	keyed.Key = "k"
	f.one(keyed)
	always := &log.Preferences{Default: log.Default_DEFAULT_ALWAYS, Never: []string{"paris@far.test"}}
	if _, err := f.SetPreferences(ctx, jidOf(juliet), always, juliet, log.Cause_CAUSE_CLIENT); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if err := f.DeleteArchive(ctx, jidOf("juliet@test.example"), "the server"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	late := f.side(in, "juliet@test.example", romeo, "late")
	late.Stamp = now.Add(-90 * time.Second)
	if o := f.one(late); o.ID != zeroID {
		t.Error("who has the name now gets what was sent to the one before")
	}
	if a := f.query(juliet, nil, ""); a.count != "0" {
		t.Errorf("who has the name now sees %+v", a)
	}
	if _, _, own, err := f.Preferences(jidOf(juliet)); own || err != nil {
		t.Errorf("and is bound by preferences that are not theirs: %v, %v", own, err)
	}
	late.Stamp = now.Add(-30 * time.Second)
	f.one(late)
	keyed.Stanza = f.parse("<message><body>new</body></message>")
	f.one(keyed) // the key belonged to the archive that is gone
	if a := f.query(juliet, nil, ""); fmt.Sprint(a.bodies) != "[late new]" {
		t.Errorf("they see %v", a.bodies)
	}
	n := 0
	for c, err := range f.main.PreferenceHistory("juliet@test.example") {
		if n++; err != nil || n == 2 && (c.Change.Actor != "the server" || c.Change.Cause != log.Cause_CAUSE_ACCOUNT_DELETED) {
			t.Errorf("history: %v, %v", c, err)
		}
	}
	if n != 2 {
		t.Errorf("%d entries in the history", n)
	}
	for owner, want := range map[string]string{
		"juliet@far.test": "cancel/item-not-found", juliet: "modify/bad-request", "test.example": "modify/bad-request",
	} {
		if err := f.DeleteArchive(ctx, jidOf(owner), "the server"); condition(err) != want {
			t.Errorf("deleting %s: %v", owner, err)
		}
	}
}

// A store that fails fails its own sides.
func TestFailedStore(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	here, there := f.side(in, "juliet@test.example", romeo, "x"), f.side(in, "nurse@other.example", romeo, "x")
	if err := f.hosts["other.example"].Log.Close(); err != nil {
		t.Fatal(err)
	}
	o := f.append(here, there)
	if o[0].ID == zeroID || condition(o[1].Err) != "wait/internal-server-error" {
		t.Errorf("%v", o)
	}
	called := false
	if err := f.Append([]Side{there}, func([]Outcome) { called = true }); !errors.Is(err, log.ErrClosed) || called {
		t.Errorf("with nothing queued: %v, done called: %v", err, called)
	}
}

// An answer is cut by its bytes, wherever the page begins and in both directions,
// and says rightly where it is and whether anything is left.
func TestPageIsCutByBytes(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	const size, n = 60 << 10, 12
	fill := strings.Repeat("x", size)
	var ids []string
	for i := range n {
		ids = append(ids, f.one(f.side(in, "juliet@test.example", romeo, fmt.Sprint(i, " ", fill))).ID.String())
	}
	byID := []string{field("ids", ids...)}
	with, withFull := []string{field("with", "romeo@test.example")}, []string{field("with", romeo)}
	for _, c := range []struct {
		fields   []string
		set      string
		first, n int
		complete bool
	}{
		{nil, "", 0, 5, false},
		{nil, "<max>4</max>", 0, 4, false},
		{nil, "<before/>", 7, 5, false},
		{nil, "<after>" + ids[6] + "</after>", 7, 5, true},
		{nil, "<after>" + ids[5] + "</after>", 6, 5, false},
		{nil, "<before>" + ids[5] + "</before>", 0, 5, true},
		{nil, "<before>" + ids[6] + "</before>", 1, 5, false},
		{nil, "<index>6</index>", 6, 5, false},
		{byID, "", 0, 5, false},
		{byID, "<before/>", 7, 5, false},
		{byID, "<after>" + ids[6] + "</after>", 7, 5, true},
		{byID, "<before>" + ids[6] + "</before>", 1, 5, false},
		{with, "<before/>", 7, 5, false},
		{withFull, "", 0, 5, false},
		{withFull, "<before>" + ids[6] + "</before>", 1, 5, false},
	} {
		stanzas := f.ask(juliet, "set", "", queryXML(c.fields, c.set))
		bytes := 0
		for _, s := range stanzas[:len(stanzas)-1] {
			bytes += len(s.Bytes())
		}
		if bytes > maxPageBytes+size+1000 {
			t.Errorf("%v %s: %d bytes", c.fields, c.set, bytes)
		}
		a := f.read(stanzas)
		if fmt.Sprint(a.ids) != fmt.Sprint(ids[c.first:c.first+c.n]) || a.complete != c.complete ||
			a.index != fmt.Sprint(c.first) || a.count != fmt.Sprint(n) || a.first != ids[c.first] || a.last != ids[c.first+c.n-1] {
			t.Errorf("%v %s: %d results from index %s of %s, complete %v; want %d from %d, %v", len(c.fields), c.set, len(a.ids), a.index, a.count, a.complete, c.n, c.first, c.complete)
		}
	}
	// One result is given, however long.
	f.one(f.side(in, "nurse@other.example", romeo, strings.Repeat("x", 2*maxPageBytes)))
	f.one(f.side(in, "nurse@other.example", romeo, "short"))
	if a := f.query("nurse@other.example/x", nil, ""); len(a.ids) != 1 || a.complete || a.count != "2" {
		t.Errorf("%d results, complete %v", len(a.ids), a.complete)
	}
	// What goes around the stanza counts too.
	for range 60 {
		f.one(f.side(in, "mercutio@test.example", romeo, "x"))
	}
	queryID := strings.Repeat("f", 20<<10)
	q := strings.Replace(queryXML(nil, ""), "f&amp;27", queryID, 1)
	if n := len(f.ask("mercutio@test.example/x", "set", "", q)) - 1; n != 13 {
		t.Errorf("with a query id of 20 KiB, %d results", n)
	}
}
