package component

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"mamlog/xep0313/stanza"
)

const hello = `<hello xmlns='` + NS + `' versions='1' serves='accounts' software='S' spool='0' spool-bytes='0' error=''/>`

// asked is everything that somebody could ask of a component, with what everybody
// gets but the hosts of the link.
var asked = []struct{ name, typ, payload, want string }{
	{"hello", "get", hello, "auth/forbidden"},
	{"batch", "set", batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "forged")), "auth/forbidden"},
	{"query", "get", query("alice@example.org", "alice@example.org/x", everything), "auth/forbidden"},
	{"delete", "set", `<delete xmlns='` + NS + `' owner='alice@example.org'/>`, "auth/forbidden"},
	{"unknown request", "get", `<steal xmlns='` + NS + `'/>`, "auth/forbidden"},
	{"MAM query", "set", `<query xmlns='urn:xmpp:mam:2'/>`, "auth/forbidden"},
	{"MAM form", "get", `<query xmlns='urn:xmpp:mam:2'/>`, "auth/forbidden"},
	{"MAM metadata", "get", `<metadata xmlns='urn:xmpp:mam:2'/>`, "auth/forbidden"},
	{"read prefs", "get", `<prefs xmlns='urn:xmpp:mam:2'/>`, "auth/forbidden"},
	{"set prefs", "set", `<prefs xmlns='urn:xmpp:mam:2' default='never'/>`, "auth/forbidden"},
	{"unknown", "get", `<query xmlns='jabber:iq:version'/>`, "cancel/service-unavailable"},
	{"empty", "get", ``, "cancel/service-unavailable"},
	{"disco#info", "get", `<query xmlns='http://jabber.org/protocol/disco#info'/>`, ""},
	{"disco#items", "get", `<query xmlns='http://jabber.org/protocol/disco#items'/>`, ""},
	{"ping", "get", `<ping xmlns='urn:xmpp:ping'/>`, ""},
}

// strangers are all who are not a host of the link, as they are written.
var strangers = []string{
	"example.org/admin", "alice@example.org", "alice@example.org/x", "bob@example.org/x", // at the host
	"other.example", "mallory@other.example/x", // a host of mamlog's that is not on this link
	"remote.example", "mallory@remote.example/x", // federated
	"component.example.org", "bot@component.example.org", testDomain, "x@" + testDomain, // components
	"sub.example.org", "notexample.org", "example.org.", "EXAMPLE.org", "@example.org", "example.org@example.org", // look-alikes
}

// TestOnlyHostsAreAnswered is the table of who may ask what (section 1 of the
// protocol): all strangers, on a link that is served.
func TestOnlyHostsAreAnswered(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	for _, from := range strangers {
		for _, a := range asked {
			if got := condition(p.ask(a.typ, from, testDomain, a.payload)); got != a.want {
				t.Errorf("%s from %s: got %q, want %q", a.name, from, got, a.want)
			}
		}
	}
	f.nothingHappened(p)
}

// TestWrongDomain: what one link is configured for is of no use on another.
func TestWrongDomain(t *testing.T) {
	f := start(t, func(c *Config) { c.Links[0].Hosts = []string{otherHost} })
	p := f.server.accept()
	p.hello(otherHost, "accounts")
	for _, a := range asked {
		if got := condition(p.ask(a.typ, testHost, testDomain, a.payload)); got != a.want {
			t.Errorf("%s: got %q, want %q", a.name, got, a.want)
		}
	}
	// Nor is a host's own word, for archives of another.
	for name, a := range map[string][2]string{
		"query":  {"get", query("alice@example.org", "alice@example.org/x", everything)},
		"delete": {"set", `<delete xmlns='` + NS + `' owner='alice@example.org'/>`},
	} {
		if got := condition(p.ask(a[0], otherHost, testDomain, a[1])); got != "auth/forbidden" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if w := p.archived(otherHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "forged")); w[0] != "!forbidden" {
		t.Errorf("a batch for another host: %q", w)
	}
	f.nothingHappened(p)
}

func (f *fixture) nothingHappened(p *peer) {
	f.t.Helper()
	if n := f.archive.seen(); n != 0 {
		f.t.Errorf("the archive was asked to append %d", n)
	}
	if n := f.metric("mamlog_link_appends_total", "", ""); n > 1 {
		f.t.Errorf("%v appends", n)
	}
}

// TestHostsOfTheLink is the same table for those who may ask.
func TestHostsOfTheLink(t *testing.T) {
	want := map[string]string{
		"unknown request": "cancel/feature-not-implemented", "empty": "modify/bad-request",
		"MAM query": "cancel/service-unavailable", "MAM form": "cancel/service-unavailable", "MAM metadata": "cancel/service-unavailable",
		"read prefs": "cancel/service-unavailable", "set prefs": "cancel/service-unavailable", "unknown": "cancel/service-unavailable",
	}
	f := start(t, nil)
	p := f.up()
	for _, a := range asked {
		if got := condition(p.ask(a.typ, testHost, testDomain, a.payload)); got != want[a.name] {
			t.Errorf("%s: got %q, want %q", a.name, got, want[a.name])
		}
	}
}

// TestNothingBeforeHello, on each stream anew, and for each host.
func TestNothingBeforeHello(t *testing.T) {
	f := start(t, nil)
	for range 2 {
		p := f.server.accept()
		p.hello(testRooms, "rooms")
		for _, a := range asked[1:4] {
			if got := condition(p.ask(a.typ, testHost, testDomain, a.payload)); got != "wait/unexpected-request" {
				t.Errorf("%s: got %q", a.name, got)
			}
		}
		p.hello(testHost, "accounts")
		p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "now"))
		p.Close()
	}
}

// TestAddressesAtTheComponent: nobody is there.
func TestAddressesAtTheComponent(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	for _, to := range []string{"x@" + testDomain, testDomain + "/x", "alice@example.org", "sub." + testDomain} {
		for _, a := range asked {
			if a.name == "empty" {
				continue
			}
			if got := condition(p.ask(a.typ, testHost, to, a.payload)); got != "cancel/service-unavailable" {
				t.Errorf("%s to %s: got %q", a.name, to, got)
			}
		}
	}
	f.nothingHappened(p)
	if got := condition(p.ask("get", testHost, "ARCHIVE.example.org", hello)); got != "" {
		t.Errorf("another spelling of the component: %q", got)
	}
}

// TestOtherStanzas: messages come back, and nothing else is answered.
func TestOtherStanzas(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	p.send(`<presence from='alice@example.org/x' to='` + testDomain + `'/><presence type='subscribe' from='alice@example.org' to='` + testDomain + `'/>` +
		`<message type='error' from='alice@example.org/x' to='` + testDomain + `'><error type='cancel'/></message>` +
		`<message type='headline' from='alice@example.org/x' to='` + testDomain + `'><body>news</body></message>` +
		`<iq type='result' id='r' from='example.org' to='` + testDomain + `'/><iq type='error' id='e' from='example.org' to='` + testDomain + `'><error type='cancel'/></iq>` +
		`<iq id='none' from='example.org' to='` + testDomain + `'/><other/><a:other xmlns:a='b'/><message xmlns='c' from='d'/>` +
		`<message id='m' from='alice@example.org/x' to='` + testDomain + `'><body>hi</body></message>`)
	if e := p.next(); e.Local != "message" || e.Attr("id") != "m" || e.Attr("to") != "alice@example.org/x" || condition(e) != "cancel/service-unavailable" {
		t.Errorf("got %s", e.Bytes())
	}
}

func TestDisco(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	const ns = "http://jabber.org/protocol/disco#info"
	q := p.ask("get", "alice@example.org/x", testDomain, `<query xmlns='`+ns+`'/>`).Child(ns, "query")
	id := q.Child(ns, "identity")
	if id == nil || id.Attr("category") != "component" || id.Attr("type") != "archive" {
		t.Errorf("got %s", q.Bytes())
	}
	for _, e := range q.Elements() {
		if v := e.Attr("var"); strings.HasPrefix(v, "urn:xmpp:mam") || strings.HasPrefix(v, "urn:mamlog") {
			t.Errorf("the component claims to have an archive itself: %s", v)
		}
	}
	if got := condition(p.ask("get", "alice@example.org/x", testDomain, `<query xmlns='`+ns+`' node='x'/>`)); got != "cancel/item-not-found" {
		t.Errorf("an unknown node: %q", got)
	}
}

func TestHello(t *testing.T) {
	f := start(t, nil)
	p := f.server.accept()
	w := p.hello(testHost, "accounts").Child(NS, "welcome")
	if w.Attr("version") != "1" || w.Attr("max-batch") != "256" || w.Attr("max-bytes") != "262144" || w.Attr("window") != "4096" {
		t.Errorf("got %s", w.Bytes())
	}
	features := func(w *stanza.Element) string {
		var all []string
		for _, e := range w.Elements() {
			all = append(all, e.Attr("var"))
		}
		return strings.Join(all, " ")
	}
	if got := features(w); got != "urn:xmpp:mam:2 urn:xmpp:mam:2#extended urn:xmpp:mam:2#groupchat-field urn:xmpp:sid:0 http://jabber.org/protocol/rsm urn:xmpp:message-retract:1 urn:xmpp:message-retract:1#tombstone urn:mamlog:trim:0" {
		t.Errorf("accounts: %s", got)
	}
	if got := features(p.hello(testRooms, "rooms").Child(NS, "welcome")); !strings.Contains(got, "urn:xmpp:mam:2#extended") {
		t.Errorf("rooms: %s", got)
	}
	for _, c := range []struct{ attributes, want string }{
		{`versions='1' serves='pubsub'`, "modify/bad-request"},
		{`versions='1'`, "modify/bad-request"},
		{`versions='1' serves='accounts' spool='many'`, "modify/bad-request"},
		{`versions='1' serves='accounts' spool='-1'`, "modify/bad-request"},
		{`versions='1' serves='accounts'`, ""},
		{`versions=' 3  2 1 ' serves='accounts' later='x'`, ""},
		{`versions='10 11' serves='accounts'`, "cancel/feature-not-implemented"},
	} {
		e := p.ask("get", testHost, testDomain, `<hello xmlns='`+NS+`' `+c.attributes+`/>`)
		if got := condition(e); got != c.want {
			t.Errorf("%s: got %q, want %q", c.attributes, got, c.want)
		}
		if strings.HasSuffix(c.want, "not-implemented") && !strings.Contains(string(e.Bytes()), "version 1") {
			t.Errorf("the versions are not named: %s", e.Bytes())
		}
	}
	// Without a version in common the host is served no more.
	if got := condition(p.ask("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "x")))); got != "wait/unexpected-request" {
		t.Errorf("a batch after that: %q", got)
	}
	if h := f.status().Hosts[0]; h.Served || h.Fault == "" {
		t.Errorf("the status is %+v", h)
	}
}

// TestLongWordsOfAModule are cut: they are kept and shown.
func TestLongWordsOfAModule(t *testing.T) {
	f := start(t, nil)
	p := f.server.accept()
	p.ask("get", testHost, testDomain, `<hello xmlns='`+NS+`' versions='1' serves='accounts' software='`+strings.Repeat("é", 99)+`' error='`+strings.Repeat("x", 9999)+`'/>`)
	if h := f.status().Hosts[0]; h.Software != strings.Repeat("é", 50) || len(h.Fault) != 500 {
		t.Errorf("got %+v", h)
	}
}

// TestInternationalHost: a server writes its domain in either form.
func TestInternationalHost(t *testing.T) {
	f := start(t, func(c *Config) { c.Links[0].Hosts = []string{"bücher.example"} })
	p := f.server.accept()
	p.hello("bücher.example", "accounts")
	p.hello("xn--bcher-kva.example", "accounts")
}

// TestTooLarge: an iq over the limit is refused, and the stream goes on behind it.
func TestTooLarge(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.MaxBytes = 10 << 10 })
	p := f.up()
	for _, n := range []int{10 << 10, 25 << 10, 300 << 10} {
		e := p.ask("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", strings.Repeat("x", n)+"<![CDATA[</iq>]]>")))
		want := ""
		if n > 20<<10 {
			want = "modify/policy-violation"
		}
		if got := condition(e); got != want {
			t.Errorf("%d bytes: got %q, want %q", n, got, want)
		}
	}
	// Nobody else learns more by it.
	if got := condition(p.ask("set", "alice@example.org/x", testDomain, batch(strings.Repeat("x", 30<<10)))); got != "auth/forbidden" {
		t.Errorf("a stranger: %q", got)
	}
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k2", "on it goes"))
}

// TestStartTagTooLarge can't be answered.
func TestStartTagTooLarge(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.MaxBytes = 1 << 10 })
	p := f.up()
	go p.Write(fmt.Appendf(nil, "<iq id='%s' type='get'/>", strings.Repeat("x", 5000)))
	if e := p.next(); !e.Is(nsStream, "error") || e.First().Local != "policy-violation" {
		t.Errorf("got %s", e.Bytes())
	}
	if _, err := p.r.Next(); err != io.EOF {
		t.Error(err)
	}
}
