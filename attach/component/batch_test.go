package component

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/attach/wire"
	"mamlog/log"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// TestBatch: every append gets its word, in their order, and a message that both
// ends of a conversation have is sent once.
func TestBatch(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const alice, bob = "alice@example.org", "bob@example.org"
	w := p.archived(testHost,
		appendOf("out", alice, bob, "a1", "first"),
		`<append dir='in' owner='bob@example.org' peer='alice@example.org/here' key='b1' ref='1'/>`,
		`<append dir='out' owner='alice@example.org' peer='bob@example.org' key='a2'><message xmlns='jabber:client' type='chat' from='alice@example.org/here' to='bob@example.org'><body>secret</body><no-store xmlns='urn:xmpp:hints'/></message></append>`,
		appendOf("in", alice, bob+"/x", "a3", "third"))
	if w[2] != "-" || !(w[0] < w[1] && w[1] < w[3]) {
		t.Errorf("got %q", w)
	}
	for _, id := range []string{w[0], w[1], w[3]} {
		if _, err := ulid.ParseStrict(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	again := p.archived(testHost, appendOf("in", alice, bob+"/x", "a3", "third"), appendOf("out", alice, bob, "a1", "first"))
	if again[0] != w[3] || again[1] != w[0] {
		t.Errorf("repeated, the answer is %q", again)
	}
	if got := bodies(p.page(testHost, alice, alice+"/x", everything)); strings.Join(got, " ") != "first third" {
		t.Errorf("alice has %q", got)
	}
	if got := bodies(p.page(testHost, bob, bob+"/x", everything)); strings.Join(got, " ") != "first" {
		t.Errorf("bob has %q", got)
	}
}

// TestIDsOfAnyLength: the answer repeats the iq's id, however long that is.
func TestIDsOfAnyLength(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	for n := 1; n < 600; n += 7 {
		id := strings.Repeat("i", n)
		p.send("<iq type='set' id='" + id + "' from='" + testHost + "' to='" + testDomain + "'>" +
			batch(appendOf("in", "alice@example.org", "bob@example.org/x", fmt.Sprint("k", n), "x")) + "</iq>")
		e := p.next()
		if w := words(t, e, 1); e.Attr("id") != id || len(w[0]) != ulid.EncodedSize {
			t.Fatalf("for an id of %d bytes: %s", n, e.Bytes())
		}
	}
}

// TestSideOfAppend: what is in the attributes is what the archive is given.
func TestSideOfAppend(t *testing.T) {
	f := start(t, nil)
	given := make(chan []xep0313.Side, 1)
	f.archive.Archive = &listener{Archive: f.archive.Archive, given: given}
	p := f.up()
	p.archived(testHost, appendOf("in", "alice@example.org", "bob@remote.example/x", "k1", "1", "contact='true'", "stamp='2026-11-22T20:27:03.5+01:00'", "import='true'", "unknown='x'"))
	s := (<-given)[0]
	if s.Owner.String() != "alice@example.org" || s.Peer.String() != "bob@remote.example/x" || s.Direction != log.Direction_DIRECTION_IN || s.Key != "k1" ||
		!s.Contact || !s.Import || s.Whois || s.Stamp.UTC().Format("15:04:05.000") != "19:27:03.500" || s.Stanza.ChildText(stanza.NSClient, "body") != "1" {
		t.Errorf("got %+v", s)
	}
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@remote.example", "k2", "2"))
	s = (<-given)[0]
	if s.Direction != log.Direction_DIRECTION_OUT || s.Contact || s.Import || !s.Stamp.IsZero() {
		t.Errorf("got %+v", s)
	}
	p.archived(testRooms, appendOf("room", "den@rooms.example.org", "den@rooms.example.org/Al", "k3", "3", "sender='alice@example.org/x'", "whois='anyone'"))
	s = (<-given)[0]
	if s.Direction != log.Direction_DIRECTION_ROOM || s.Sender.String() != "alice@example.org/x" || !s.Whois || s.Peer.String() != "den@rooms.example.org/Al" {
		t.Errorf("got %+v", s)
	}
}

// listener tells what is appended.
type listener struct {
	Archive
	given chan []xep0313.Side
}

func (l *listener) Append(sides []xep0313.Side, done func([]xep0313.Outcome)) error {
	l.given <- sides
	return l.Archive.Append(sides, done)
}

// TestBadAppends fail alone.
func TestBadAppends(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const message = `<message xmlns='jabber:client' type='chat' from='alice@example.org/x' to='bob@example.org'><body>x</body></message>`
	for _, c := range []struct{ name, append, want string }{
		{"nothing", `<append/>`, "!bad-request"},
		{"no dir", `<append owner='alice@example.org' peer='b@c' key='k'>` + message + `</append>`, "!bad-request"},
		{"unknown dir", `<append dir='up' owner='alice@example.org' peer='b@c' key='k'>` + message + `</append>`, "!bad-request"},
		{"broadcast at a host of accounts", `<append dir='room' owner='alice@example.org' peer='alice@example.org/x' key='k'>` + message + `</append>`, "!bad-request"},
		{"no owner", `<append dir='out' peer='b@c' key='k'>` + message + `</append>`, "!bad-request"},
		{"full owner", `<append dir='out' owner='alice@example.org/x' peer='b@c' key='k'>` + message + `</append>`, "!bad-request"},
		{"the host as owner", `<append dir='out' owner='example.org' peer='b@c' key='k'>` + message + `</append>`, "!bad-request"},
		{"owner that is no JID", `<append dir='out' owner='a@@b' peer='b@c' key='k'>` + message + `</append>`, "!jid-malformed"},
		{"owner elsewhere", `<append dir='out' owner='alice@other.example' peer='b@c' key='k'>` + message + `</append>`, "!forbidden"},
		{"owner at another host of the link", `<append dir='out' owner='alice@rooms.example.org' peer='b@c' key='k'>` + message + `</append>`, "!forbidden"},
		{"no peer", `<append dir='out' owner='alice@example.org' key='k'>` + message + `</append>`, "!bad-request"},
		{"peer that is no JID", `<append dir='out' owner='alice@example.org' peer='/' key='k'>` + message + `</append>`, "!jid-malformed"},
		{"no key", `<append dir='out' owner='alice@example.org' peer='b@c'>` + message + `</append>`, "!bad-request"},
		{"long key", `<append dir='out' owner='alice@example.org' peer='b@c' key='` + strings.Repeat("k", 257) + `'>` + message + `</append>`, "!bad-request"},
		{"stamp that is no time", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' stamp='yesterday'>` + message + `</append>`, "!bad-request"},
		{"sender that is no JID", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' sender='@'>` + message + `</append>`, "!jid-malformed"},
		{"import without a stamp", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' import='true'>` + message + `</append>`, "!bad-request"},
		{"no message", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'/>`, "!bad-request"},
		{"something else", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><iq xmlns='jabber:client'/></append>`, "!bad-request"},
		{"message of another namespace", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message/></append>`, "!bad-request"},
		{"ref 0", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' ref='0'/>`, "!bad-request"},
		{"ref to nowhere", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' ref='4'/>`, "!bad-request"},
		{"ref to itself", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' ref='2'/>`, "!bad-request"},
		{"ref that is no number", `<append dir='out' owner='alice@example.org' peer='b@c' key='k' ref='x'/>`, "!bad-request"},
		// What could not be parsed at all in its place:
		{"undeclared prefix", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'><p:x/></message></append>`, "!bad-request"},
		{"reserved namespace", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'><x xmlns='http://www.w3.org/XML/1998/namespace'/></message></append>`, "!bad-request"},
		{"attribute twice", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'><x a='1' a='2'/></message></append>`, "!bad-request"},
		{"a character that XML has not", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'><body>&#xFFFE;</body></message></append>`, "!bad-request"},
		{"deep", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'>` + strings.Repeat("<a>", 2000) + strings.Repeat("</a>", 2000) + `</message></append>`, "!bad-request"},
		{"many attributes", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client'` + manyAttributes + `/></append>`, "!bad-request"},
		{"namespaces that grow", `<append dir='out' owner='alice@example.org' peer='b@c' key='k'><message xmlns='jabber:client' xmlns:p='` + strings.Repeat("u", 1000) + `'>` + strings.Repeat("<p:a/>", 3000) + `</message></append>`, "!bad-request"},
	} {
		w := p.archived(testHost,
			appendOf("out", "alice@example.org", "bob@example.org", "before "+c.name, "x"), c.append,
			appendOf("out", "alice@example.org", "bob@example.org", "after "+c.name, "y"))
		if len(w[0]) != ulid.EncodedSize || w[1] != c.want || len(w[2]) != ulid.EncodedSize {
			t.Errorf("%s: got %q, want %s in the middle", c.name, w, c.want)
		}
	}
	// A room's must be a room's.
	if w := p.archived(testRooms, appendOf("in", "den@rooms.example.org", "b@c", "k", "x")); w[0] != "!bad-request" {
		t.Errorf("an account's at a host of rooms: %q", w)
	}
}

var manyAttributes = func() string {
	var b strings.Builder
	for i := range 600 {
		fmt.Fprintf(&b, " a%d=''", i)
	}
	return b.String()
}()

// TestMessageTooLargeForAPage is not archived: nobody could read past it.
func TestMessageTooLargeForAPage(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const alice = "alice@example.org"
	w := p.archived(testHost,
		appendOf("in", alice, "bob@example.org/x", "k1", strings.Repeat("'", 120<<10)),
		`<append dir='out' owner='bob@example.org' peer='alice@example.org' key='k2' ref='1'/>`,
		appendOf("in", alice, "bob@example.org/x", "k3", strings.Repeat("x", 120<<10)))
	if w[0] != "!policy-violation" || w[1] != w[0] || len(w[2]) != ulid.EncodedSize {
		t.Errorf("got %q", w)
	}
	// What is just small enough can be read.
	if w := p.archived(testHost, appendOf("in", alice, "bob@example.org/x", "k4", strings.Repeat("x", maxMessage-1000))); len(w[0]) != ulid.EncodedSize {
		t.Errorf("got %q", w)
	}
	page := p.page(testHost, alice, alice+"/x", `<iq xmlns='jabber:client' type='set' id='c1'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><before/><max>1</max></set></query></iq>`)
	if got := bodies(page); len(got) != 1 || len(got[0]) != maxMessage-1000 {
		t.Errorf("%d messages", len(got))
	}
}

// TestBadBatches are refused as a whole.
func TestBadBatches(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.MaxBatch = 3 })
	p := f.up()
	one := func(key string) string { return appendOf("out", "alice@example.org", "bob@example.org", key, "x") }
	for name, c := range map[string][2]string{
		"empty":            {batch(), "modify/bad-request"},
		"of other things":  {batch("<other/>", "<append xmlns='other'/>"), "modify/bad-request"},
		"too many":         {batch(one("1"), one("2"), one("3"), one("4")), "modify/policy-violation"},
		"too many and bad": {batch(one("1"), one("2"), one("3"), one("4"), "<p:x/>"), "modify/bad-request"},
		"bad batch":        {`<batch xmlns='` + NS + `' p:x='1'>` + one("1") + `</batch>`, "modify/bad-request"},
		"not a batch":      {`<delete xmlns='` + NS + `' owner='alice@example.org'><p:x/></delete>`, "modify/bad-request"},
	} {
		if got := condition(p.ask("set", testHost, testDomain, c[0])); got != c[1] {
			t.Errorf("%s: got %q, want %q", name, got, c[1])
		}
	}
	if n := f.archive.seen(); n != 0 {
		t.Errorf("%d appends", n)
	}
	// What is unknown is ignored, and comments on nothing.
	if w := words(t, p.ask("set", testHost, testDomain, "\n <batch xmlns='"+NS+"' x='y'> <later/>"+one("1")+"\n<append2/> </batch>"), 1); len(w[0]) != ulid.EncodedSize {
		t.Errorf("got %q", w)
	}
}

// TestPrefixes: other forms of the same XML mean the same, also where one append
// is refused.
func TestPrefixes(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	for _, bad := range []string{"", "<m:append><q:x/></m:append>"} {
		id := fmt.Sprint("p", len(bad))
		p.send(`<iq type='set' id='` + id + `' from='example.org' to='` + testDomain + `' xmlns:c="jabber:client" xmlns:m="` + NS + `"><m:batch>` + bad +
			`<m:append dir='out' owner='alice@example.org' peer='bob@example.org' key='` + id + `'><c:message type='chat' from='alice@example.org/x' to='bob@example.org'><c:body>a&gt;b</c:body></c:message></m:append></m:batch></iq>`)
		e := p.next()
		if w := strings.Fields(e.ChildText(NS, "archived")); len(w) == 0 || len(w[len(w)-1]) != ulid.EncodedSize {
			t.Errorf("got %s", e.Bytes())
		}
	}
}

// TestAppendFails: an archive that takes nothing refuses the batch.
func TestAppendFails(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	for condition_, err := range map[string]error{
		"wait/internal-server-error": errors.New("disk on fire"),
		"wait/resource-constraint":   &stanza.Error{Type: "wait", Condition: "resource-constraint"},
	} {
		f.archive.refuseWith(err)
		e := p.ask("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "x")))
		if got := condition(e); got != condition_ || strings.Contains(string(e.Bytes()), "fire") {
			t.Errorf("got %s", e.Bytes())
		}
	}
	f.archive.refuseWith(nil)
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "x"))
	f.eventually("something is in flight for ever", func() bool { return f.status().InFlight == 0 })
}

// failing lets every second append fail.
type failing struct{ Archive }

func (f failing) Append(sides []xep0313.Side, done func([]xep0313.Outcome)) error {
	return f.Archive.Append(sides, func(o []xep0313.Outcome) {
		for i := 1; i < len(o); i += 2 {
			o[i] = xep0313.Outcome{Err: []error{stanza.BadRequest(""), errors.New("disk on fire")}[i/2%2]}
		}
		done(o)
	})
}

func TestOutcomes(t *testing.T) {
	f := start(t, nil)
	f.archive.Archive = failing{f.archive.Archive}
	p := f.up()
	var appends []string
	for i := range 5 {
		appends = append(appends, appendOf("out", "alice@example.org", "bob@example.org", fmt.Sprint(i), "x"))
	}
	w := p.archived(testHost, append(appends, "<append/>")...)
	if len(w[0]) != ulid.EncodedSize || w[1] != "!bad-request" || w[3] != "!internal-server-error" || len(w[4]) != ulid.EncodedSize || w[5] != "!bad-request" {
		t.Errorf("got %q", w)
	}
}

// TestWindow: what is beyond the window isn't read before there is room.
func TestWindow(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Window, c.Limits.MaxBatch = 10, 4 })
	p := f.up()
	f.archive.hold()
	one := func(i, j int) string {
		return appendOf("out", "alice@example.org", "bob@example.org", fmt.Sprint(i, ".", j), "x")
	}
	var ids []string
	for i := range 5 {
		ids = append(ids, p.request("set", testHost, testDomain, batch(one(i, 0), one(i, 1), one(i, 2), one(i, 3))))
	}
	f.eventually("two batches do not arrive", func() bool { return f.archive.seen() == 8 && f.status().InFlight == 8 })
	f.archive.release()
	for i, id := range ids {
		if e := p.next(); e.Attr("id") != id {
			t.Errorf("answer %d is %s", i, e.Bytes())
		}
	}
	if n := f.archive.seen(); n != 20 {
		t.Errorf("%d appends", n)
	}
}

// TestAnswersInOrder: whatever is known early is answered in its turn, so that a
// server needs no more than a queue of what it has sent; of other hosts too.
func TestAnswersInOrder(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.MaxBytes = 4 << 10 })
	p := f.up()
	f.archive.hold()
	good := func(key string) string {
		return batch(appendOf("out", "alice@example.org", "bob@example.org", key, "x"))
	}
	var ids []string
	for _, payload := range []string{
		good("1"), batch(), good("2"), batch("<append/>"), `<delete xmlns='` + NS + `' owner='alice@other.example'/>`, batch("<p:x/>"),
		`<batch xmlns='` + NS + `'><append>` + strings.Repeat("x", 9<<10) + `</append></batch>`, good("3"),
		`<delete xmlns='` + NS + `' owner='bob@example.org'/>`, good("4"), `<delete xmlns='` + NS + `'><p:x/></delete>`,
	} {
		ids = append(ids, p.request("set", testHost, testDomain, payload))
	}
	// Others don't wait for them.
	p.ask("get", testHost, testDomain, `<ping xmlns='urn:xmpp:ping'/>`)
	p.ask("get", testHost, testDomain, hello)
	p.page(testHost, "alice@example.org", "alice@example.org/x", everything)
	if got := condition(p.ask("set", testRooms, testDomain, batch())); got != "modify/bad-request" {
		t.Errorf("another host: %q", got)
	}
	if got := condition(p.ask("set", "alice@example.org/x", testDomain, good("5"))); got != "auth/forbidden" {
		t.Errorf("a stranger: %q", got)
	}
	f.eventually("the batches do not arrive", func() bool { return f.archive.seen() == 4 })
	f.archive.release()
	for i, id := range ids {
		if e := p.next(); e.Attr("id") != id {
			t.Fatalf("answer %d is %s", i, e.Bytes())
		}
	}
}

// TestPipelined: many batches are under way at once and answered in their order.
func TestPipelined(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const batches = 300
	go func() {
		for i := range batches {
			io := fmt.Sprintf("<iq type='set' id='b%d' from='example.org' to='%s'>%s</iq>", i, testDomain, batch(
				appendOf("out", "alice@example.org", "bob@example.org", fmt.Sprint("a", i), fmt.Sprint(i)),
				appendOf("in", "bob@example.org", "alice@example.org/x", fmt.Sprint("b", i), fmt.Sprint(i))))
			if _, err := p.Write([]byte(io)); err != nil {
				return
			}
		}
	}()
	last := ""
	for i := range batches {
		e := p.next()
		if e.Attr("id") != fmt.Sprint("b", i) {
			t.Fatalf("answer %d is %s", i, e.Bytes())
		}
		for _, w := range words(t, e, 2) {
			if w <= last {
				t.Errorf("%s comes behind %s", w, last)
			}
			last = w
		}
	}
}

// prompt is an archive that takes everything at once.
type prompt struct{}

func (prompt) Append(sides []xep0313.Side, done func([]xep0313.Outcome)) error {
	outcomes := make([]xep0313.Outcome, len(sides))
	for i := range outcomes {
		outcomes[i].ID = ulid.ULID{1, byte(i)}
	}
	done(outcomes)
	return nil
}

func (prompt) HandleIQ(context.Context, *stanza.Element, jid.JID, func([]byte)) bool { return false }
func (prompt) HandleRoomIQ(context.Context, jid.JID, jid.JID, xep0313.RealJIDs, *stanza.Element, func([]byte)) bool {
	return false
}
func (prompt) DeleteArchive(context.Context, jid.JID, string) error { return nil }

// FuzzBatch: whatever comes as an iq of a host is answered in one piece, with a
// word for each append, and never panics.
func FuzzBatch(f *testing.F) {
	iq := func(payload string) []byte {
		return []byte("<iq type='set' id='1' from='example.org' to='" + testDomain + "'>" + payload + "</iq>")
	}
	f.Add(iq(batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "x"), `<append ref='1'/>`)))
	f.Add(iq(batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "x"), `<append><p:x/></append>`)))
	f.Add(iq(batch(`<append ref='2'/>`, `<a:b xmlns:a=''/>`, `<![CDATA[x]]>`)))
	f.Add(iq(`<delete xmlns='` + NS + `' owner='a@example.org'/>`))
	f.Add(iq(query("alice@example.org", "x@y/z", everything)))
	ls := &Links{archive: prompt{}, logger: zap.NewNop(), limits: Limits{MaxBatch: 8}.withDefaults()}
	ls.metrics, _ = newMetrics(nil)
	l, err := newLink(ls, Link{Server: "h:1", Domain: testDomain, Secret: []byte("s"), Hosts: []string{testHost}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		l.hosts[0].greeted = true
		s := newStream(l, wire.New(nil, nsAccept))
		defer s.cancel()
		s.frames = &frames{in: bufio.NewReader(bytes.NewReader(in)), limit: 64 << 10}
		requests := 0
		for {
			fr, err := s.frames.next()
			if err != nil {
				break
			}
			requests++
			if s.handle(fr) != nil {
				break
			}
		}
		for s.lanes.left() > 0 {
			s.lanes.do(<-s.lanes.next, func(job func()) { job() })
		}
		if s.flying.inFlight() != 0 {
			t.Error("something is in flight for ever")
		}
		s.out.close("</stream:stream>")
		answers, _, _ := s.out.take(nil)
		r := stanza.NewReader(bufio.NewReader(bytes.NewReader(answers)), map[string]string{"": nsAccept, "stream": nsStream}, stanza.Limits{Bytes: 1 << 20, Depth: 100, Attrs: 100})
		n := 0
		for e, err := r.Next(); ; e, err = r.Next() {
			if err != nil {
				if n > requests || err.Error() != "EOF" {
					t.Fatalf("%v in the answers %s", err, answers)
				}
				return
			}
			if n++; e.Attr("type") != "result" && e.Attr("type") != "error" {
				t.Errorf("got %s", e.Bytes())
			}
		}
	})
}
