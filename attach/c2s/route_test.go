package c2s

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

func TestMessageDelivery(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo", "nurse")
	romeo := f.online("romeo", "garden")
	low := f.online("juliet", "low")
	high := f.online("juliet", "high")
	high.send("<presence><priority>5</priority></presence>")
	high.settled()
	low.settled()

	body := "<body>x</body>"
	for _, tt := range []struct {
		id, to, typ, payload string
		low, high            bool
		err                  string
	}{
		{"bare", "juliet@test.example", "chat", body, false, true, ""},
		{"full", "juliet@test.example/low", "chat", body, true, false, ""},
		{"full-case", "Juliet@TEST.example/low", "chat", body, true, false, ""},
		{"full-gone", "juliet@test.example/gone", "normal", body, false, true, ""},
		{"headline", "juliet@test.example", "headline", body, true, true, ""},
		{"headline-gone", "juliet@test.example/gone", "headline", body, false, false, ""},
		{"groupchat", "juliet@test.example", "groupchat", body, false, false, "cancel/service-unavailable"},
		{"groupchat-full", "juliet@test.example/low", "groupchat", body, true, false, ""},
		{"error", "juliet@test.example", "error", body, false, false, ""},
		{"error-full", "juliet@test.example/low", "error", body, true, false, ""},
		{"error-gone", "juliet@test.example/gone", "error", body, false, false, ""},
		{"error-nobody", "nobody@test.example", "error", body, false, false, ""},
		{"nobody", "nobody@test.example", "chat", body, false, false, "cancel/service-unavailable"},
		{"foreign", "juliet@other.example", "chat", body, false, false, "cancel/remote-server-not-found"},
		{"server", "test.example", "chat", body, false, false, "cancel/service-unavailable"},
		{"malformed", "@test.example", "chat", body, false, false, "modify/jid-malformed"},
		{"unknown-type", "juliet@test.example", "wrong", body, false, true, ""},
		{"offline", "nurse@test.example", "chat", body, false, false, ""},
		{"offline-unarchived", "nurse@test.example", "chat", body + "<no-store xmlns='urn:xmpp:hints'/>", false, false, "cancel/service-unavailable"},
		{"offline-headline", "nurse@test.example", "headline", body, false, false, ""},
		{"offline-bodiless", "nurse@test.example", "chat", "", false, false, ""},
	} {
		t.Run(tt.id, func(t *testing.T) {
			romeo.send("<message id='%s' to='%s' type='%s'>%s</message>", tt.id, tt.to, tt.typ, tt.payload)
			var err string
			if tt.err != "" {
				err = condition(romeo.message(tt.id))
			}
			for _, e := range romeo.settled() {
				t.Errorf("the sender got %s", e.Bytes())
			}
			if err != tt.err {
				t.Errorf("error %q, want %q", err, tt.err)
			}
			for _, r := range []struct {
				name string
				c    *client
				want bool
			}{{"low", low, tt.low}, {"high", high, tt.high}} {
				got := r.c.settled()
				if len(got) != map[bool]int{true: 1}[r.want] {
					t.Fatalf("%s got %d stanzas, want %v", r.name, len(got), r.want)
				}
				if r.want && (got[0].Attr("from") != romeo.full || got[0].Attr("id") != tt.id) {
					t.Errorf("%s got %s", r.name, got[0].Bytes())
				}
			}
		})
	}
	low.send("<presence><priority>-1</priority></presence>")
	high.send("<presence type='unavailable'/>")
	high.settled()
	low.settled()
	romeo.send("<message id='negative' to='juliet@test.example' type='chat'><body>x</body></message>" +
		"<message id='connected' to='juliet@test.example/high' type='chat'><body>x</body></message>")
	romeo.nothing("an archived message is accepted")
	low.nothing("a negative priority gets nothing for the bare JID")
	if got := high.message("connected"); got == nil {
		t.Error("a connected resource gets what is for it")
	}
}

func TestStanzaIDs(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo, juliet := f.online("romeo", "garden"), f.online("juliet", "balcony")
	romeo.send("<message id='m1' to='juliet@test.example' type='chat'><body>x</body>" +
		"<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@test.example' id='forged'/></message>")
	got := stanzaIDs(juliet.message("m1"))
	if len(got) != 1 || len(got["juliet@test.example"]) != 26 {
		t.Fatalf("the recipient sees the ids %v", got)
	}
	archived := juliet.archive()
	if len(archived) != 1 || archived[0] != got["juliet@test.example"] {
		t.Errorf("archive %v, live %v", archived, got)
	}
	if own := romeo.archive(); len(own) != 1 || own[0] == archived[0] {
		t.Errorf("the sender's archive has %v, the recipient's %v", own, archived)
	}
	// A note to oneself is there once.
	romeo.send("<message id='note' type='chat'><body>x</body></message>")
	note := stanzaIDs(romeo.message("note"))
	if own := romeo.archive(); len(own) != 2 || own[1] != note["romeo@test.example"] || len(note) != 1 {
		t.Errorf("note to self: archive %v, live %v", own, note)
	}
}

// archive queries the whole own archive and returns the ids.
func (c *client) archive() (ids []string) {
	c.t.Helper()
	c.n++
	id := fmt.Sprintf("archive-%d", c.n)
	c.send("<iq type='set' id='%s'><query xmlns='urn:xmpp:mam:2'/></iq>", id)
	for {
		e := c.next()
		if r := e.Child(xep0313.NS, "result"); r != nil {
			ids = append(ids, r.Attr("id"))
		}
		if e.Attr("id") == id {
			if e.Attr("type") != "result" {
				c.t.Fatalf("archive: %s", e.Bytes())
			}
			return ids
		}
	}
}

// TestOrder: whatever order senders race in, the recipient sees the order of the
// archive, and a sender's stanzas don't overtake each other.
func TestOrder(t *testing.T) {
	f := start(t, nil)
	const senders, each = 4, 300
	f.account("juliet")
	juliet := f.online("juliet", "balcony")
	var wg sync.WaitGroup
	for i := range senders {
		name := fmt.Sprintf("s%d", i)
		f.account(name)
		c := f.dial().login(name, "r")
		wg.Add(1)
		go func() {
			defer wg.Done()
			var b strings.Builder
			for n := range each {
				hint := ""
				if n%3 == 0 {
					hint = "<no-store xmlns='urn:xmpp:hints'/>"
				}
				fmt.Fprintf(&b, "<message id='%d' to='juliet@test.example/balcony' type='chat'><body>x</body>%s</message>", n, hint)
				fmt.Fprintf(&b, "<iq id='q%d' type='get' to='juliet@test.example/balcony'><ping xmlns='urn:xmpp:ping'/></iq>", n)
			}
			c.send("%s", b.String())
		}()
	}
	next := make(map[string]int)
	lastID := ""
	for seen := 0; seen < 2*senders*each; seen++ {
		e := juliet.next()
		from, n := e.Attr("from"), next[e.Attr("from")]
		next[from]++
		want := fmt.Sprint(n / 2)
		if n%2 == 1 {
			want = "q" + want
		}
		if e.Attr("id") != want {
			t.Fatalf("%s: got %s, want %s", from, e.Attr("id"), want)
		}
		if id := stanzaIDs(e)["juliet@test.example"]; id != "" {
			if id <= lastID {
				t.Fatalf("%s came after %s", id, lastID)
			}
			lastID = id
		}
	}
	wg.Wait()
	if got := testutil.ToFloat64(f.s.metrics.delivered); got != senders*each {
		t.Errorf("%v messages counted", got)
	}
}

// TestQueryBehindMessage: a query sent behind messages finds them.
func TestQueryBehindMessage(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo := f.online("romeo", "garden")
	for round := 1; round <= 20; round++ {
		romeo.send("<message to='juliet@test.example' type='chat'><body>x</body></message>"+
			"<iq type='set' id='c%d'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>0</max></set></query></iq>", round)
		e := romeo.until("the count", func(e *stanza.Element) bool { return e.Attr("id") == fmt.Sprintf("c%d", round) })
		count := e.Child(xep0313.NS, "fin").Child(xep0313.NSRSM, "set").ChildText(xep0313.NSRSM, "count")
		if count != fmt.Sprint(round) {
			t.Fatalf("the query behind message %d counts %s", round, count)
		}
	}
}

// TestManyBounces: more failing messages than may be in flight, each of which
// needs the worker.
func TestManyBounces(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.InFlight = 4 })
	f.account("juliet", "romeo")
	romeo := f.online("romeo", "garden")
	const n = 100
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<message id='%d' to='juliet@test.example' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", i)
	}
	romeo.send("%s", b.String())
	for i := range n {
		wantCondition(t, romeo.message(fmt.Sprint(i)), "cancel/service-unavailable")
	}
}

func TestCarbons(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo, romeo2, romeo3 := f.online("romeo", "garden"), f.online("romeo", "home"), f.online("romeo", "deaf")
	juliet, juliet2 := f.online("juliet", "balcony"), f.online("juliet", "chamber")
	for _, c := range []*client{romeo, romeo2, juliet, juliet2} {
		for range 2 {
			wantCondition(t, c.iq("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>"), "result")
		}
	}
	all := []*client{romeo, romeo2, romeo3, juliet, juliet2}
	for _, c := range all {
		c.settled()
	}
	romeo.send("<message id='m' to='juliet@test.example/balcony' type='chat'><body>x &amp; y</body></message>")
	romeo.nothing("the sender gets no copy")
	romeo3.nothing("no copy for a resource that asked for none")
	original := juliet.message("m")
	juliet.nothing("only the original")
	for _, tt := range []struct {
		direction, bare string
		c               *client
	}{{"sent", "romeo@test.example", romeo2}, {"received", "juliet@test.example", juliet2}} {
		e := tt.c.next()
		if e.Attr("from") != tt.bare || e.Attr("to") != tt.c.full || e.Attr("type") != "chat" {
			t.Errorf("%s: wrapper %s", tt.direction, e.Bytes())
		}
		m := e.Child(nsCarbons, tt.direction).Child(xep0313.NSForward, "forwarded").Child(stanza.NSClient, "message")
		if m == nil || m.ChildText(stanza.NSClient, "body") != "x & y" || m.Attr("from") != romeo.full || m.Attr("to") != juliet.full {
			t.Fatalf("%s: %s", tt.direction, e.Bytes())
		}
		ids := stanzaIDs(m)
		if len(ids) != 1 || ids[tt.bare] == "" || !contains(tt.c.archive(), ids[tt.bare]) {
			t.Errorf("%s: ids %v", tt.direction, ids)
		}
		if tt.direction == "received" && ids[tt.bare] != stanzaIDs(original)[tt.bare] {
			t.Errorf("the copy has the ids %v, the original %v", ids, stanzaIDs(original))
		}
		tt.c.nothing("one copy")
	}
	// To the bare JID both of juliet's get the message itself.
	romeo.send("<message id='b' to='juliet@test.example' type='chat'><body>x</body></message>")
	for _, c := range []*client{juliet, juliet2} {
		c.message("b")
		c.nothing("no copy beside the original")
	}
	romeo2.settled()
	for _, m := range []string{
		"<message to='juliet@test.example/balcony' type='chat'><body>x</body><private xmlns='urn:xmpp:carbons:2'/></message>",
		"<message to='juliet@test.example/balcony' type='chat'><body>x</body><no-copy xmlns='urn:xmpp:hints'/></message>",
		"<message to='juliet@test.example/balcony' type='normal'><x xmlns='urn:x'/></message>",
		"<message to='juliet@test.example/balcony' type='headline'><body>x</body></message>",
		"<message to='juliet@test.example/balcony' type='error' id='c'/>",
	} {
		romeo.send("%s", m)
		romeo.settled()
		romeo2.nothing("no sent copy of " + m)
		juliet2.nothing("no received copy of " + m)
	}
	for _, m := range []string{
		"<message to='juliet@test.example/balcony'><body>x</body></message>",
		"<message to='juliet@test.example/balcony'><received xmlns='urn:xmpp:receipts' id='x'/></message>",
		"<message to='juliet@test.example/balcony'><x xmlns='http://jabber.org/protocol/muc#user'><invite/></x></message>",
	} {
		romeo.send("%s", m)
		romeo.settled()
		if len(romeo2.settled()) != 1 || len(juliet2.settled()) != 1 {
			t.Errorf("no copies of %s", m)
		}
	}
	// A copy that bounces is nobody's business.
	romeo2.send("<message type='error' id='m' to='romeo@test.example'><body>x</body></message>")
	romeo2.settled()
	for _, c := range []*client{romeo, romeo3} {
		c.nothing("the bounce of a copy is dropped")
	}
	wantCondition(t, juliet2.iq("set", "", "<disable xmlns='urn:xmpp:carbons:2'/>"), "result")
	romeo.send("<message id='d' to='juliet@test.example/balcony' type='chat'><body>x</body></message>")
	romeo.settled()
	juliet2.nothing("no copy after disable")
}

func contains(ids []string, id string) bool { return strings.Contains(strings.Join(ids, " "), id) }

func TestIQ(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo, juliet := f.online("romeo", "garden"), f.online("juliet", "balcony")
	ping := "<ping xmlns='urn:xmpp:ping'/>"
	for _, tt := range []struct{ typ, to, payload, want string }{
		{"get", "", ping, "result"},
		{"get", "romeo@test.example", ping, "result"},
		{"get", "test.example", ping, "result"},
		{"get", "test.example", "<query xmlns='jabber:iq:version'/>", "result"},
		{"get", "test.example", "<query xmlns='http://jabber.org/protocol/disco#items'/>", "result"},
		{"get", "test.example", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>", "cancel/item-not-found"},
		{"set", "test.example", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>", "result"},
		{"set", "", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>", "result"},
		{"get", "", "<vCard xmlns='vcard-temp'/>", "cancel/service-unavailable"},
		{"get", "test.example", "<x xmlns='urn:x'/>", "cancel/service-unavailable"},
		{"get", "other.example", ping, "cancel/remote-server-not-found"},
		{"get", "juliet@test.example", ping, "cancel/service-unavailable"},
		{"get", "juliet@test.example", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "cancel/service-unavailable"},
		{"get", "juliet@test.example", "<query xmlns='jabber:iq:roster'/>", "cancel/service-unavailable"},
		{"set", "juliet@test.example", "<query xmlns='urn:xmpp:mam:2'/>", "auth/forbidden"},
		{"get", "juliet@test.example/gone", ping, "cancel/service-unavailable"},
		{"get", "@", ping, "modify/jid-malformed"},
		{"other", "", ping, "modify/bad-request"},
		{"get", "", "", "modify/bad-request"},
		{"get", "", ping + ping, "modify/bad-request"},
		{"get", "", "<query xmlns='urn:xmpp:mam:2'/>", "result"},
		{"get", "", "<prefs xmlns='urn:xmpp:mam:2'/>", "result"},
	} {
		wantCondition(t, romeo.iq(tt.typ, tt.to, tt.payload), tt.want)
	}
	romeo.send("<iq type='get'>%s</iq>", ping)
	wantCondition(t, romeo.next(), "modify/bad-request")
	romeo.send("<iq type='result' id='r' to='juliet@test.example/gone'/><iq type='error' id='r' to='other.example'/><iq type='result' id='r'/>")
	romeo.nothing("results are not answered")

	for _, to := range []string{"", "test.example"} {
		info := romeo.iq("get", to, "<query xmlns='http://jabber.org/protocol/disco#info'/>").Child(nsDiscoInfo, "query")
		var vars []string
		for _, e := range info.Elements() {
			vars = append(vars, e.Attr("var"), e.Attr("category")+"/"+e.Attr("type"))
		}
		identity := map[string]string{"": "account/registered", "test.example": "server/im"}[to]
		for _, want := range []string{identity, "urn:xmpp:mam:2", "urn:xmpp:mam:2#extended", "urn:xmpp:sid:0", "urn:xmpp:carbons:2", "urn:xmpp:ping"} {
			if !contains(vars, want) {
				t.Errorf("disco#info of %q lacks %s: %v", to, want, vars)
			}
		}
		if contains(vars, "urn:xmpp:carbons:rules") {
			t.Error("carbons:rules is advertised")
		}
	}

	// From resource to resource and back.
	romeo.send("<iq type='get' id='p' to='%s'>%s</iq>", juliet.full, ping)
	e := juliet.next()
	if e.Attr("from") != romeo.full || e.Child(nsPing, "ping") == nil {
		t.Fatalf("routed: %s", e.Bytes())
	}
	juliet.send("%s", e.Reply("result").Bytes())
	if e := romeo.next(); e.Attr("id") != "p" || e.Attr("from") != juliet.full {
		t.Errorf("answer: %s", e.Bytes())
	}
}

func TestStreamFaults(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Stanza = stanza.Limits{Bytes: 20000, Depth: 20, Attrs: 20} })
	f.account("juliet")
	for _, tt := range []struct{ name, send, want string }{
		{"not well-formed", "<message><body></message>", "not-well-formed"},
		{"comment", "<!-- x -->", "restricted-xml"},
		{"DTD", "<!DOCTYPE x>", "restricted-xml"},
		{"text", "hello", "bad-format"},
		{"unknown prefix", "<x:message/>", "bad-namespace-prefix"},
		{"too large", "<message><body>" + strings.Repeat("x", 20000) + "</body></message>", "policy-violation"},
		{"too deep", strings.Repeat("<message>", 21), "policy-violation"},
		{"from somebody else", "<message from='romeo@test.example'><body>x</body></message>", "invalid-from"},
		{"from another resource", "<message from='juliet@test.example/other'><body>x</body></message>", "invalid-from"},
		{"unknown stanza", "<query/>", "unsupported-stanza-type"},
		{"foreign namespace", "<message xmlns='jabber:server'/>", "unsupported-stanza-type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := f.dial()
			c.t = t
			c.login("juliet", "r")
			c.send("%s", tt.send+"<")
			c.streamError(tt.want)
			eventually(t, "the session to be gone", func() bool { return f.s.users.count() == 0 })
		})
	}
	c := f.dial().login("juliet", "r")
	c.send("<message id='a' from='juliet@test.example' to='Juliet@test.example/r' type='chat'><body>x</body></message>")
	c.message("a")
	c.send("<message id='b' from='JULIET@test.example/r' to='juliet@test.example/r' type='chat'><body>x</body></message> \n ")
	c.message("b")
}

// TestSlowReader: who doesn't read is cut off, and nobody waits for them.
func TestSlowReader(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.QueueBytes = 2 << 20 })
	f.account("juliet", "romeo")
	romeo, juliet := f.online("romeo", "garden"), f.online("juliet", "balcony")
	big := "<message to='" + juliet.full + "' type='headline'><body>" + strings.Repeat("x", 100000) + "</body></message>"
	for i := 0; f.s.users.has("juliet@test.example", "balcony"); i++ {
		if i > 1000 {
			t.Fatal("100 MB were queued for a client that doesn't read")
		}
		romeo.send("%s", big)
		romeo.settled()
	}
	juliet.streamError("resource-constraint")
	if n := testutil.ToFloat64(f.s.metrics.streamErrors.WithLabelValues("resource-constraint")); n != 1 {
		t.Errorf("%v counted", n)
	}
	romeo.nothing("the sender goes on")
}

// TestSlowQuerier: pages wait for their own reader, not in memory, and don't get
// them cut off, however little may be queued.
func TestSlowQuerier(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.QueueBytes = 1 << 20; c.Limits.InFlight = 8 })
	f.account("juliet", "romeo")
	romeo := f.online("romeo", "garden")
	for range 50 {
		romeo.send("<message to='juliet@test.example' type='chat'><body>%s</body></message>", strings.Repeat("x", 20000))
	}
	romeo.settled()
	const queries = 48 // a page of 256 KiB each
	go func() {
		for i := range queries {
			romeo.send("<iq type='set' id='q%d'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max></set></query></iq>", i)
		}
	}()
	x := f.s.users.of("romeo@test.example")[0]
	eventually(t, "the queue to be full", func() bool { x.out.mu.Lock(); defer x.out.mu.Unlock(); return x.out.bytes >= x.out.high })
	for i := range queries {
		results := 0
		romeo.until("page", func(e *stanza.Element) bool {
			if e.Local == "message" {
				results++
			}
			return e.Attr("id") == fmt.Sprintf("q%d", i)
		})
		if results == 0 || results >= 50 { // cut by its bytes
			t.Fatalf("page %d has %d messages", i, results)
		}
	}
}

func TestRecordFails(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo, juliet := f.online("romeo", "garden"), f.online("juliet", "balcony")
	if err := f.s.c.Log.Close(); err != nil {
		t.Fatal(err)
	}
	romeo.send("<message id='m' to='juliet@test.example' type='chat'><body>x</body></message>")
	wantCondition(t, romeo.message("m"), "wait/internal-server-error")
	juliet.nothing("nothing is delivered that was not recorded")
}

func TestKickAndShutdown(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	if err := f.s.c.Accounts.Delete(context.Background(), jid.MustParse("juliet@test.example"), "test"); err != nil {
		t.Fatal(err)
	}
	f.s.Kick(jid.MustParse("juliet@test.example"))
	juliet.streamError("not-authorized")
	waiting := f.dial()
	waiting.open()
	f.stop()
	romeo.streamError("system-shutdown")
}

// TestRosterPolicy: a roster change holds for every message behind its answer,
// and for none before.
func TestRosterPolicy(t *testing.T) {
	f := start(t, nil)
	f.account("juliet", "romeo")
	romeo := f.online("romeo", "garden")
	_, err := f.s.c.Archive.SetPreferences(context.Background(), jid.MustParse("romeo@test.example"),
		&log.Preferences{Default: log.Default_DEFAULT_ROSTER}, "test", log.Cause_CAUSE_OPERATOR)
	if err != nil {
		t.Fatal(err)
	}
	const roster = "<iq type='set' id='%s-%d'><query xmlns='jabber:iq:roster'><item jid='juliet@test.example'%s/></query></iq>"
	const message = "<message id='%s-%d' to='juliet@test.example' type='chat'><body>x</body></message>"
	var want []string
	for i := range 10 {
		romeo.send(message+roster+message+roster, "stranger", i, "add", i, "", "contact", i, "remove", i, " subscription='remove'")
		for _, id := range []string{"add", "remove"} {
			id := fmt.Sprintf("%s-%d", id, i)
			wantCondition(t, romeo.until(id, func(e *stanza.Element) bool { return e.Attr("id") == id }), "result")
		}
		want = append(want, fmt.Sprintf("contact-%d", i))
	}
	var got []string
	romeo.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
	romeo.until("the archive", func(e *stanza.Element) bool {
		if r := e.Child(xep0313.NS, "result"); r != nil {
			got = append(got, r.Child(xep0313.NSForward, "forwarded").Child(stanza.NSClient, "message").Attr("id"))
		}
		return e.Attr("id") == "q"
	})
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("archived %v, want %v", got, want)
	}
}
