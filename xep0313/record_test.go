package xep0313

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

const (
	juliet = "juliet@test.example/balcony"
	romeo  = "romeo@test.example/orchard"
)

func TestWorth(t *testing.T) {
	for _, c := range []struct{ name, xml, want string }{
		{"body", `<message><body>hi</body></message>`, "REASON_BODY"},
		{"normal", `<message type='normal'><body>hi</body></message>`, "REASON_BODY"},
		{"unknown type is normal", `<message type='nonsense'><body>hi</body></message>`, "REASON_BODY"},
		{"headline", `<message type='headline'><body>hi</body></message>`, skipType},
		{"groupchat", `<message type='groupchat'><body>hi</body></message>`, skipType},
		{"chat state", `<message type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>`, skipEmpty},
		{"empty", `<message type='chat'/>`, skipEmpty},
		{"thread alone", `<message type='chat'><thread>t</thread></message>`, skipEmpty},
		{"body of another namespace", `<message type='chat'><body xmlns='urn:example'>hi</body></message>`, skipEmpty},
		{"no-store", `<message><body>hi</body><no-store xmlns='urn:xmpp:hints'/></message>`, skipHint},
		{"no-permanent-store", `<message><body>hi</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>`, skipHint},
		{"no-copy", `<message><body>hi</body><no-copy xmlns='urn:xmpp:hints'/></message>`, "REASON_BODY"},
		{"store", `<message><foo xmlns='urn:example'/><store xmlns='urn:xmpp:hints'/></message>`, "REASON_STORE_HINT"},
		{"store and no-store", `<message><store xmlns='urn:xmpp:hints'/><no-store xmlns='urn:xmpp:hints'/></message>`, skipHint},
		{"subject", `<message><subject>hi</subject></message>`, "REASON_SUBJECT"},
		{"omemo", `<message type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>`, "REASON_ENCRYPTED"},
		{"eme", `<message type='chat'><encryption xmlns='urn:xmpp:eme:0' namespace='x'/></message>`, "REASON_ENCRYPTED"},
		{"receipt", `<message><received xmlns='urn:xmpp:receipts' id='1'/></message>`, "REASON_RECEIPT"},
		{"receipt request", `<message><request xmlns='urn:xmpp:receipts'/></message>`, skipEmpty},
		{"marker", `<message><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>`, "REASON_MARKER"},
		{"markable", `<message><markable xmlns='urn:xmpp:chat-markers:0'/></message>`, skipEmpty},
		{"delayed marker", `<message><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/><delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/></message>`, skipCopy},
		{"delayed body", `<message><body>hi</body><delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/></message>`, "REASON_BODY"},
		{"direct invite", `<message><x xmlns='jabber:x:conference' jid='r@m'/></message>`, "REASON_INVITE"},
		{"mediated invite", `<message><x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x></message>`, "REASON_INVITE"},
		{"muc status", `<message><x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x></message>`, skipEmpty},
		{"call", `<message><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>`, "REASON_CALL"},
		{"retraction", `<message><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>`, "REASON_RETRACTION"},
		{"reaction", `<message><reactions xmlns='urn:xmpp:reactions:0' id='1'/></message>`, "REASON_REACTION"},
		{"archive result", `<message><body>x</body><result xmlns='urn:xmpp:mam:2' id='1'/></message>`, skipCopy},
		{"carbon", `<message><body>x</body><sent xmlns='urn:xmpp:carbons:2'/></message>`, skipCopy},
		{"body after others", `<message><received xmlns='urn:xmpp:receipts' id='1'/><body>x</body></message>`, "REASON_BODY"},
	} {
		m, err := stanza.Parse([]byte(c.xml))
		if err != nil {
			t.Fatal(err)
		}
		reason, skip := worth(m, false)
		got := skip
		if skip == "" {
			got = reason.String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestBothSidesAreArchivedUnderTheirOwnIDs(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	d := f.chat(juliet, romeo, "hi")
	if d.SenderID == zeroID || d.RecipientID == zeroID || d.SenderID == d.RecipientID {
		t.Fatalf("ids %s and %s", d.SenderID, d.RecipientID)
	}
	if a := f.query(juliet, nil, ""); len(a.ids) != 1 || a.ids[0] != d.SenderID.String() {
		t.Errorf("the sender's archive: %+v", a)
	}
	if a := f.query(romeo, nil, ""); len(a.ids) != 1 || a.ids[0] != d.RecipientID.String() {
		t.Errorf("the recipient's archive: %+v", a)
	}
}

func TestMessageAcrossTwoStores(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	for i := range 20 {
		d := f.chat(juliet, "nurse@other.example", fmt.Sprint(i))
		if d.SenderID == zeroID || d.RecipientID == zeroID {
			t.Fatalf("ids %s and %s", d.SenderID, d.RecipientID)
		}
	}
	if n, m := f.archived("juliet@test.example"), f.archived("nurse@other.example"); n != 20 || m != 20 {
		t.Errorf("%d and %d archived, want 20 each", n, m)
	}
}

// The copies to the sender's own resources come in the order of the sender's
// archive, also where other messages go to another store.
func TestSentComesInTheOrderOfTheSendersArchive(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	var mu sync.Mutex
	var sent []string
	var wg sync.WaitGroup
	for i := range 200 {
		to := romeo
		if i%2 == 0 {
			to = "nurse@other.example/x"
		}
		st := stanza.New(stanza.NSClient, "message", "from", juliet, "to", to).Add(stanza.New(stanza.NSClient, "body").AddText("x"))
		m := Message{Stanza: st, From: jidOf(juliet), To: jidOf(to), FromLocal: true, ToLocal: true}
		m.Sent = func(d Delivery) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, d.SenderID.String())
		}
		wg.Add(1)
		if err := f.Record(m, func(d Delivery) {
			if d.Err != nil || d.SenderID == zeroID || d.RecipientID == zeroID {
				t.Errorf("%+v", d)
			}
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if len(sent) != 200 || !slices.IsSorted(sent) {
		t.Errorf("%d copies, in order: %v", len(sent), slices.IsSorted(sent))
	}
}

func TestMessageToOneselfIsArchivedOnce(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.chat(juliet, romeo, "to romeo")
	d := f.chat(juliet, "juliet@test.example", "note")
	if d.SenderID != d.RecipientID || d.SenderID == zeroID {
		t.Fatalf("ids %s and %s", d.SenderID, d.RecipientID)
	}
	f.chat(juliet, "juliet@test.example/phone", "to my phone")
	for with, want := range map[string]string{
		"":                            "[to romeo note to my phone]",
		"juliet@test.example":         "[note to my phone]",
		"juliet@test.example/balcony": "[note to my phone]",
		"juliet@test.example/phone":   "[to my phone]",
		"romeo@test.example":          "[to romeo]",
		"romeo@test.example/orchard":  "[to romeo]",
		"romeo@test.example/other":    "[]",
	} {
		if a := f.query(juliet, []string{field("with", with)}, ""); fmt.Sprint(a.bodies) != want || a.count != fmt.Sprint(len(a.bodies)) {
			t.Errorf("with %q: %v, count %s, want %s", with, a.bodies, a.count, want)
		}
	}
}

func TestForgedStanzaIDsAreStripped(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	d := f.send(juliet, "romeo@test.example", `<message type='chat'><body>x</body>
		<stanza-id xmlns='urn:xmpp:sid:0' by='romeo@test.example' id='forged1'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='ROMEO@test.example' id='forged2'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@test.example' id='forged3'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='test.example' id='forged4'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='room@muc.example.org' id='kept'/>
		<origin-id xmlns='urn:xmpp:sid:0' id='origin'/></message>`)
	for name, b := range map[string]string{
		"delivered": string(d.Stanza),
		"archived":  string(f.ask(romeo, "set", "", queryXML(nil, ""))[0].Bytes()),
	} {
		if strings.Contains(b, "forged") {
			t.Errorf("%s with a forged id: %s", name, b)
		}
		if !strings.Contains(b, "kept") || !strings.Contains(b, "origin") {
			t.Errorf("%s without another's id: %s", name, b)
		}
	}
}

func TestWithStanzaID(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	for _, xml := range []string{
		"<message type='chat'><body>x</body></message>", "<message id='1'><store xmlns='urn:xmpp:hints'/></message>",
	} {
		d := f.send(juliet, romeo, xml)
		e, err := stanza.Parse(WithStanzaID(d.Stanza, "o'brien@test.example", d.RecipientID))
		if err != nil {
			t.Fatal(err)
		}
		if id := e.Child(NSStanzaID, "stanza-id"); id.Attr("by") != "o'brien@test.example" || id.Attr("id") != d.RecipientID.String() {
			t.Errorf("got %s", e.Bytes())
		}
	}
	if got := string(WithStanzaID([]byte("<message/>"), "a", f.chat(juliet, romeo, "x").SenderID)); !strings.HasPrefix(got, "<message><stanza-id ") || !strings.HasSuffix(got, "/></message>") {
		t.Errorf("an empty message becomes %s", got)
	}
	if got := string(WithStanzaID([]byte("<message/>"), "a", zeroID)); got != "<message/>" {
		t.Errorf("without an id it becomes %s", got)
	}
}

func TestBouncesOfOwnMessagesAreArchived(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.send(juliet, "ghost@far.test", "<message type='chat' id='m1'><body>hello?</body></message>")
	bounce := func(from, to, id string) Delivery {
		return f.send(from, to, fmt.Sprintf("<message type='error' id='%s'><error type='cancel'/></message>", id))
	}
	for _, c := range []struct {
		from, to, id string
		want         bool
	}{
		{"ghost@far.test", juliet, "m1", true},
		{"ghost@far.test", juliet, "m2", false},    // answers nothing of hers
		{"ghost@far.test", juliet, "", false},      //
		{"stranger@far.test", juliet, "m1", false}, // she did not write to them
		{"ghost@far.test", romeo, "m1", false},     // nor did he
	} {
		if d := bounce(c.from, c.to, c.id); (d.RecipientID != zeroID) != c.want {
			t.Errorf("an error from %s to %s for %q: archived %v", c.from, c.to, c.id, !c.want)
		}
	}
	if d := bounce(juliet, "ghost@far.test", "m1"); d.SenderID != zeroID {
		t.Error("an error that she sent was archived")
	}
}

func TestDontArchiveNamespaces(t *testing.T) {
	o := DefaultOptions()
	o.DontArchiveNamespaces = append(o.DontArchiveNamespaces, "urn:xmpp:chat-markers:0")
	f := newFixture(t, o, nil)
	d := f.send(juliet, romeo, "<message type='chat'><body>x</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>")
	if !strings.Contains(string(d.Stanza), "active") {
		t.Error("the delivered message lost its chat state")
	}
	if got := f.ask(romeo, "set", "", queryXML(nil, ""))[0]; strings.Contains(string(got.Bytes()), "active") {
		t.Error("the chat state is in the archive")
	}
	o.DontArchiveNamespaces = []string{NSHints, NSDelay, NS}
	f2 := newFixture(t, o, nil)
	for _, veto := range []string{"<no-store xmlns='urn:xmpp:hints'/>", "<result xmlns='urn:xmpp:mam:2'/>"} {
		if d := f2.send(juliet, romeo, "<message><body>x</body>"+veto+"</message>"); d.RecipientID != zeroID {
			t.Errorf("%s has no effect where it is left out of the copy", veto)
		}
	}
	if d := f.send(juliet, romeo, "<message><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>"); d.RecipientID != zeroID {
		t.Error("what is left of a message is nothing, and was archived")
	}
}

func TestPreferencesDecide(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	ctx := context.Background()
	owner := jid.MustParse("juliet@test.example")
	contact := &log.RosterChanged{Owner: owner.String(), Contact: "romeo@test.example", Item: &log.RosterItem{Contact: "romeo@test.example", Listed: true}}
	if _, err := f.log.AppendWait(ctx, log.Entry{Event: &log.Event{Kind: &log.Event_Roster{Roster: contact}}}); err != nil {
		t.Fatal(err)
	}
	const full, bare, stranger = "romeo@test.example/orchard", "romeo@test.example", "paris@test.example/x"
	for _, c := range []struct {
		def           log.Default
		always, never []string
		peer          string
		want          bool
	}{
		{log.Default_DEFAULT_ALWAYS, nil, nil, stranger, true},
		{log.Default_DEFAULT_NEVER, nil, nil, full, false},
		{log.Default_DEFAULT_ROSTER, nil, nil, full, true},
		{log.Default_DEFAULT_ROSTER, nil, nil, stranger, false},
		{log.Default_DEFAULT_ROSTER, nil, nil, "juliet@test.example/phone", true},
		{log.Default_DEFAULT_ROSTER, []string{"paris@test.example"}, nil, stranger, true},
		{log.Default_DEFAULT_ROSTER, nil, []string{bare}, full, false},
		{log.Default_DEFAULT_NEVER, []string{bare}, nil, full, true},
		{log.Default_DEFAULT_NEVER, []string{full}, nil, full, true},
		{log.Default_DEFAULT_NEVER, []string{full}, nil, bare, false},
		{log.Default_DEFAULT_NEVER, []string{full}, nil, bare + "/other", false},
		{log.Default_DEFAULT_ALWAYS, nil, []string{full}, full, false},
		{log.Default_DEFAULT_ALWAYS, nil, []string{full}, bare + "/other", true},
		{log.Default_DEFAULT_ALWAYS, []string{full}, []string{bare}, full, true},
		{log.Default_DEFAULT_ALWAYS, []string{bare}, []string{full}, full, false},
		{log.Default_DEFAULT_ALWAYS, []string{bare}, []string{bare}, full, false},
		{log.Default_DEFAULT_NEVER, []string{"ROMEO@Test.Example"}, nil, full, true},
	} {
		if _, err := f.SetPreferences(ctx, owner, &log.Preferences{Default: c.def, Always: c.always, Never: c.never}, juliet, log.Cause_CAUSE_CLIENT); err != nil {
			t.Fatal(err)
		}
		in := f.chat(c.peer, "juliet@test.example", "in")
		out := f.chat(juliet, c.peer, "out")
		if got, got2 := in.RecipientID != zeroID, out.SenderID != zeroID; got != c.want || got2 != c.want {
			t.Errorf("%v always %v never %v, peer %s: in %v, out %v, want %v", c.def, c.always, c.never, c.peer, got, got2, c.want)
		}
	}
}

// Invariant 7: a preference change governs every message ordered after it and
// none before, however they race.
func TestPreferenceChangeGovernsWhatComesAfter(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	ctx := context.Background()
	owner := jid.MustParse("juliet@test.example")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f.chat(fmt.Sprintf("peer%d@far.test/x", w), "juliet@test.example", "x")
				}
			}
		})
	}
	for i := range 200 {
		p := &log.Preferences{Default: log.Default_DEFAULT_ALWAYS}
		if i%2 == 0 {
			p.Default = log.Default_DEFAULT_NEVER
		}
		if _, err := f.SetPreferences(ctx, owner, p, juliet, log.Cause_CAUSE_CLIENT); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()

	var changes []*log.PreferencesChanged
	var ids []string
	for c, err := range f.main.PreferenceHistory(owner.String()) {
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, c.Change)
		ids = append(ids, c.ID.String())
	}
	if len(changes) != 200 {
		t.Fatalf("%d changes, want 200", len(changes))
	}
	h := f.hosts["test.example"]
	checked := 0
	for r, err := range h.Log.Scan(zeroID) {
		if err != nil {
			t.Fatal(err)
		}
		m := r.Event.GetMessage()
		if m.GetOwner() != owner.String() {
			continue
		}
		// The newest change before the message must be one that allows it, and
		// the one that the message names.
		n := 0
		for n < len(ids) && ids[n] < r.ID.String() {
			n++
		}
		if n == 0 {
			continue // the server's policy
		}
		checked++
		if changes[n-1].After.Default != log.Default_DEFAULT_ALWAYS {
			t.Fatalf("message %s was archived after change %s forbade it", r.ID, ids[n-1])
		}
		if named := ulid.ULID(m.DecidedBy); named != mustID(t, ids[n-1]) {
			t.Fatalf("message %s names %s, in force was %s", r.ID, named, ids[n-1])
		}
	}
	if checked == 0 {
		t.Error("no message raced with a change; the test has shown nothing")
	}
}

func TestSmartEnable(t *testing.T) {
	o := DefaultOptions()
	o.SmartEnable = true
	f := newFixture(t, o, nil)
	if d := f.chat(juliet, romeo, "before"); d.SenderID != zeroID || d.RecipientID != zeroID {
		t.Fatal("archived before the archive was ever used")
	}
	if a := f.query(juliet, nil, ""); a.err != "" || len(a.bodies) != 0 {
		t.Fatalf("first query: %+v", a)
	}
	if d := f.chat(juliet, romeo, "after"); d.SenderID == zeroID || d.RecipientID != zeroID {
		t.Errorf("after her first query: %v and %v", d.SenderID, d.RecipientID)
	}
	f.ask(romeo, "get", "", "<prefs xmlns='urn:xmpp:mam:2'/>")
	if d := f.chat(juliet, romeo, "after"); d.RecipientID == zeroID {
		t.Error("asking for preferences did not turn archiving on")
	}
	for c, err := range f.main.PreferenceHistory("juliet@test.example") {
		if err != nil || c.Change.Cause != log.Cause_CAUSE_SMART_ENABLE || c.Change.Actor != juliet || c.Change.After.Default != log.Default_DEFAULT_ALWAYS {
			t.Errorf("history: %v, %v", c, err)
		}
	}
}

func TestDeletedAccountsArchiveIsNobodys(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	d := f.chat(juliet, romeo, "secret")
	del := &log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: "juliet@test.example"}}}
	if _, err := f.log.AppendWait(context.Background(), log.Entry{Event: del}); err != nil {
		t.Fatal(err)
	}
	if a := f.query(juliet, nil, ""); a.count != "0" || len(a.bodies) != 0 {
		t.Errorf("who has the name now sees %+v", a)
	}
	if a := f.query(juliet, []string{field("ids", d.SenderID.String())}, ""); a.err != "cancel/item-not-found" {
		t.Errorf("and by id %+v", a)
	}
	if a := f.query(romeo, nil, ""); len(a.bodies) != 1 {
		t.Errorf("the other side lost its copy: %+v", a)
	}
}

// While the clock is set back, all ids stay in one millisecond: that of the
// deletion too.
func TestRecreatedAccountWithTheClockSetBack(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, DefaultOptions(), func() time.Time { return now })
	f.chat(juliet, romeo, "old")
	now = now.Add(-time.Hour)
	del := &log.Event{Kind: &log.Event_Account{Account: &log.AccountChanged{Owner: "juliet@test.example"}}}
	if _, err := f.log.AppendWait(context.Background(), log.Entry{Event: del}); err != nil {
		t.Fatal(err)
	}
	f.chat(juliet, romeo, "new")
	if a := f.query(juliet, nil, ""); fmt.Sprint(a.bodies) != "[new]" || a.count != "1" {
		t.Errorf("got %+v", a)
	}
}

func TestExpiredIsInvisibleAtOnce(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	f := newFixture(t, DefaultOptions(), func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	advance := func(d time.Duration) { mu.Lock(); now = now.Add(d); mu.Unlock() }
	first := f.chat(juliet, romeo, "one")
	advance(time.Hour)
	f.chat(juliet, romeo, "two")
	advance(7*24*time.Hour - time.Hour)
	if a := f.query(juliet, nil, ""); a.count != "2" {
		t.Errorf("a week old to the millisecond: %+v", a)
	}
	advance(time.Millisecond)
	if a := f.query(juliet, nil, ""); fmt.Sprint(a.bodies) != "[two]" || a.count != "1" || a.index != "0" {
		t.Errorf("older than a week: %+v", a)
	}
	if a := f.query(juliet, nil, "<after>"+first.SenderID.String()+"</after>"); a.err != "cancel/item-not-found" {
		t.Errorf("an expired id: %+v", a)
	}
	advance(48 * time.Hour)
	if err := f.expire(context.Background(), f.hosts["test.example"], ""); err != nil {
		t.Fatal(err)
	}
	if a := f.query(juliet, nil, ""); a.count != "0" || !a.complete {
		t.Errorf("after the run: %+v", a)
	}
	n := 0
	for r, err := range f.hosts["test.example"].Log.Scan(zeroID) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Event.GetMessage() != nil {
			n++
		}
	}
	if n != 0 {
		t.Errorf("%d messages are left in the log", n)
	}
}
