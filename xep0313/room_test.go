package xep0313

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

const verona = "verona@test.example"

// room is a message that the occupant sent to their room.
func (f *fixture) room(occupant, body string) Side {
	f.t.Helper()
	return f.roomXML(occupant, "<message type='groupchat'><body>"+body+"</body></message>")
}

func (f *fixture) roomXML(occupant, xml string) Side {
	f.t.Helper()
	return Side{Owner: jidOf(occupant).Bare(), Peer: jidOf(occupant), Direction: log.Direction_DIRECTION_ROOM, Stanza: f.parse(xml)}
}

// askRoom sends an iq to the room as the server passes it on.
func (f *fixture) askRoom(room, asker string, see RealJIDs, typ, payload string) (answer []*stanza.Element) {
	f.t.Helper()
	iq := f.parse(fmt.Sprintf("<iq id='q1' type='%s'>%s</iq>", typ, payload))
	if !f.HandleRoomIQ(context.Background(), jidOf(room), jidOf(asker), see, iq, func(b []byte) {
		e := f.parse(string(b))
		if e.Attr("from") != room || e.Attr("to") != asker {
			f.t.Errorf("from %s to %s: %s", e.Attr("from"), e.Attr("to"), b)
		}
		answer = append(answer, e)
	}) {
		f.t.Fatalf("not handled: %s", payload)
	}
	return answer
}

func (f *fixture) queryRoom(room, asker string, fields []string, set string) answer {
	f.t.Helper()
	return f.read(f.askRoom(room, asker, RealJIDsOwn, "set", queryXML(fields, set)))
}

// The room's copy has the occupant's address and no addressee, and nothing in it
// that only the room may say.
func TestStoredFormInARoom(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	s := f.roomXML(verona+"/nurse", `<message type='groupchat' id='m1' xml:lang='en' from='nurse@test.example/x' to='verona@test.example'>
		<body>hi</body>
		<x xmlns='http://jabber.org/protocol/muc#user'><item jid='forged@far.test'/></x>
		<x xmlns='jabber:x:oob'><url>http://far.test/</url></x>
		<stanza-id xmlns='urn:xmpp:sid:0' by='verona@test.example' id='forged'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='test.example' id='forged'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='far.test' id='kept'/>
		<active xmlns='http://jabber.org/protocol/chatstates'/></message>`)
	before := string(s.Stanza.Bytes())
	id := f.one(s).ID
	if string(s.Stanza.Bytes()) != before {
		t.Error("the stanza was changed")
	}
	r := f.askRoom(verona, juliet, RealJIDsAll, "set", queryXML(nil, ""))[0]
	m := r.First().First().Child(stanza.NSClient, "message")
	got := strings.Join(strings.Fields(string(m.Append(nil, stanza.NSClient))), " ")
	const want = `<message type='groupchat' id='m1' xml:lang='en' from='verona@test.example/nurse'> <body>hi</body> ` +
		`<x xmlns='jabber:x:oob'><url>http://far.test/</url></x> <stanza-id xmlns='urn:xmpp:sid:0' by='far.test' id='kept'/> </message>`
	if strings.NewReplacer(" ", "", "&#10;", "", "&#9;", "").Replace(got) != strings.ReplaceAll(want, " ", "") {
		t.Errorf("stored is\n%s, want\n%s", got, want)
	}
	if r.First().Attr("id") != id.String() {
		t.Errorf("under %s, want %s", r.First().Attr("id"), id)
	}
}

func TestWorthInARoom(t *testing.T) {
	for _, c := range []struct{ name, xml, want string }{
		{"body", `<message type='groupchat'><body>hi</body></message>`, "REASON_BODY"},
		{"subject", `<message type='groupchat'><subject>hi</subject></message>`, "REASON_SUBJECT"},
		{"cleared subject", `<message type='groupchat'><subject/></message>`, "REASON_SUBJECT"},
		{"chat state", `<message type='groupchat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>`, skipEmpty},
		{"status", `<message type='groupchat'><x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x></message>`, skipEmpty},
		{"invite that is none", `<message type='groupchat'><x xmlns='http://jabber.org/protocol/muc#user'><invite/></x></message>`, skipEmpty},
		{"no-store", `<message type='groupchat'><body>hi</body><no-store xmlns='urn:xmpp:hints'/></message>`, skipHint},
		{"encrypted", `<message type='groupchat'><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>`, "REASON_ENCRYPTED"},
		{"marker", `<message type='groupchat'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>`, "REASON_MARKER"},
		{"reaction", `<message type='groupchat'><reactions xmlns='urn:xmpp:reactions:0' id='1'/></message>`, "REASON_REACTION"},
		{"retraction", `<message type='groupchat'><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>`, "REASON_RETRACTION"},
		{"private message", `<message type='chat'><body>hi</body></message>`, skipType},
		{"normal message", `<message><body>hi</body></message>`, skipType},
		{"error", `<message type='error'><body>hi</body></message>`, skipType},
		{"result", `<message type='groupchat'><body>x</body><result xmlns='urn:xmpp:mam:2' id='1'/></message>`, skipCopy},
	} {
		f := newFixture(t, DefaultOptions(), nil)
		s := f.roomXML(verona+"/nurse", c.xml)
		sd := side{Side: s, host: f.hosts["test.example"]}
		var form stored
		form.prepare(&sd)
		got := form.skip
		if form.skip == "" {
			got = form.reason.String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if o := f.one(s); (o.ID != zeroID) != strings.HasPrefix(c.want, "REASON") {
			t.Errorf("%s: archived %v", c.name, o.ID != zeroID)
		}
	}
}

func TestWithInARoom(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	for i, nick := range []string{"nurse", "nurse/2", "romeo", ""} {
		s := f.room(strings.TrimSuffix(verona+"/"+nick, "/"), fmt.Sprint(i))
		s.Sender, s.Whois = jidOf("nurse@test.example/x"), true
		f.one(s)
	}
	f.one(f.room("mantua@test.example/nurse", "elsewhere"))
	for with, want := range map[string]string{
		"":                          "[0 1 2 3]",
		verona:                      "[0 1 2 3]",
		verona + "/nurse":           "[0]",
		verona + "/nurse/2":         "[1]",
		verona + "/romeo":           "[2]",
		verona + "/nobody":          "[]",
		"nurse@test.example":        "[]", // would tell who is who
		"nurse@test.example/x":      "[]",
		"mantua@test.example/nurse": "[]",
		"test.example":              "[]",
	} {
		a := f.queryRoom(verona, "nurse@test.example/x", []string{field("with", with)}, "")
		if fmt.Sprint(a.bodies) != want && !(want == "[]" && len(a.bodies) == 0) || a.count != fmt.Sprint(len(a.bodies)) {
			t.Errorf("with %q: %v, count %s, want %s", with, a.bodies, a.count, want)
		}
	}
}

func TestRealJIDsAreShownToWhoMaySeeThem(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	for _, m := range []struct {
		nick, sender string
		whois        bool
	}{
		{"nurse", "nurse@test.example/x", false},
		{"o'brien", "o@far.test/o'b&c", false},
		{"romeo", "romeo@test.example", true},
		{"ghost", "", true},
		{"nurse-like", "nurse@test.example.far.test/x", false},
	} {
		s := f.room(verona+"/"+m.nick, m.nick)
		if m.sender != "" {
			s.Sender = jidOf(m.sender)
		}
		s.Whois = m.whois
		f.one(s)
	}
	for _, c := range []struct {
		asker string
		see   RealJIDs
		want  string
	}{
		{"paris@far.test/x", RealJIDsOwn, "[- - romeo@test.example - -]"},
		{"nurse@test.example/other", RealJIDsOwn, "[nurse@test.example/x - romeo@test.example - -]"},
		{"paris@far.test/x", RealJIDsAll, "[nurse@test.example/x o@far.test/o'b&c romeo@test.example - nurse@test.example.far.test/x]"},
	} {
		var got []string
		stanzas := f.askRoom(verona, c.asker, c.see, "set", queryXML(nil, ""))
		for _, s := range stanzas[:len(stanzas)-1] {
			m := s.First().First().Child(stanza.NSClient, "message")
			x := m.Child(nsMUCUser, "x")
			if x == nil {
				got = append(got, "-")
				continue
			}
			item := x.Child(nsMUCUser, "item")
			if len(x.Elements()) != 1 || len(item.Attrs) != 1 || m.Nodes[len(m.Nodes)-1].Element != x {
				t.Errorf("%s", m.Bytes())
			}
			got = append(got, item.Attr("jid"))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s sees %v, want %s", c.asker, got, c.want)
		}
	}
	// An account's own archive is no room's.
	if got := f.ask(verona+"/x", "set", "", queryXML(nil, ""))[2]; strings.Contains(string(got.Bytes()), "muc#user") {
		t.Errorf("%s", got.Bytes())
	}
}

// Whether a room is archived is for its owner to say: what the host's accounts
// do does not matter.
func TestPoliciesAreForAccounts(t *testing.T) {
	o := DefaultOptions()
	o.DefaultPolicy, o.SmartEnable = log.Default_DEFAULT_NEVER, true
	f := newFixture(t, o, nil)
	if got := f.one(f.room(verona+"/nurse", "x")); got.ID == zeroID {
		t.Error("not archived")
	}
	if a := f.queryRoom(verona, juliet, nil, ""); a.count != "1" {
		t.Errorf("%+v", a)
	}
	if _, _, own, err := f.Preferences(jidOf(verona)); own || err != nil {
		t.Errorf("reading the archive turned something on: %v, %v", own, err)
	}
	var m *log.MessageArchived
	for r, err := range f.hosts["test.example"].Log.Scan(zeroID) {
		if err != nil {
			t.Fatal(err)
		}
		m = r.Event.GetMessage()
	}
	if id := f.hosts["test.example"].policyID; string(m.DecidedBy) != string(id[:]) {
		t.Errorf("decided by %x", m.DecidedBy)
	}
}

func TestRequestsToARoom(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	first, last := f.one(f.room(verona+"/nurse", "one")).ID, zeroID
	for i := range 9 {
		last = f.one(f.room(verona+"/nurse", fmt.Sprint(i))).ID
	}
	ask := func(typ, payload string) *stanza.Element {
		return f.askRoom(verona, juliet, RealJIDsOwn, typ, payload)[0]
	}
	meta := ask("get", "<metadata xmlns='urn:xmpp:mam:2'/>").First()
	if meta.Child(NS, "start").Attr("id") != first.String() || meta.Child(NS, "end").Attr("id") != last.String() {
		t.Errorf("%s", meta.Bytes())
	}
	var fields []string
	for _, e := range ask("get", "<query xmlns='urn:xmpp:mam:2'/>").First().Child(NSForm, "x").Elements() {
		fields = append(fields, e.Attr("var"))
	}
	if fmt.Sprint(fields) != "[FORM_TYPE with start end before-id after-id ids]" {
		t.Errorf("the form has %v", fields)
	}
	for _, typ := range []string{"get", "set"} {
		if a := f.read([]*stanza.Element{ask(typ, "<prefs xmlns='urn:xmpp:mam:2' default='never'/>")}); a.err != "cancel/feature-not-implemented" {
			t.Errorf("%s of preferences: %s", typ, a.err)
		}
	}
	if a := f.queryRoom(verona, juliet, nil, "<max>3</max><before>"+last.String()+"</before>"); fmt.Sprint(a.bodies) != "[5 6 7]" || a.index != "6" || a.count != "10" || a.complete {
		t.Errorf("%+v", a)
	}
	if a := f.queryRoom(verona, juliet, []string{field("nonsense", "1")}, ""); a.err != "cancel/feature-not-implemented" {
		t.Errorf("%+v", a)
	}
	if a := f.queryRoom(verona, juliet, nil, "<after>nonsense</after>"); a.err != "cancel/item-not-found" {
		t.Errorf("%+v", a)
	}
	if a := f.queryRoom("mantua@test.example", juliet, nil, ""); a.count != "0" || !a.complete {
		t.Errorf("a room without an archive: %+v", a)
	}
	for name, iq := range map[string]string{
		"another namespace": "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
		"a result":          "<iq type='result' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>",
		"nothing":           "<iq type='get' id='1'/>",
	} {
		if f.HandleRoomIQ(context.Background(), jidOf(verona), jidOf(juliet), RealJIDsOwn, f.parse(iq), func([]byte) {}) {
			t.Errorf("%s is handled", name)
		}
	}
	if f.HandleRoomIQ(context.Background(), jidOf("verona@far.test"), jidOf(juliet), RealJIDsOwn, f.parse("<iq type='get' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>"), func([]byte) {}) {
		t.Error("a room of another host is handled")
	}
}

func TestDestroyedRoom(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	f.one(f.room(verona+"/nurse", "old"))
	if err := f.DeleteArchive(context.Background(), jidOf(verona), "the server"); err != nil {
		t.Fatal(err)
	}
	if a := f.queryRoom(verona, juliet, []string{field("with", verona+"/nurse")}, ""); a.count != "0" {
		t.Errorf("%+v", a)
	}
	f.one(f.room(verona+"/nurse", "new"))
	if a := f.queryRoom(verona, juliet, nil, ""); fmt.Sprint(a.bodies) != "[new]" {
		t.Errorf("%+v", a)
	}
}

// Also where the room's copy is made of what somebody's archive was offered.
func TestRoomsFormIsItsOwn(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	s := f.room(verona+"/nurse", "x")
	o := f.append(Side{Owner: jidOf("nurse@test.example"), Peer: jidOf(verona), Direction: out, Stanza: s.Stanza}, s)
	if o[0].ID != zeroID || o[1].ID == zeroID {
		t.Errorf("%v", o)
	}
}
