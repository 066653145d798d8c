package component

import (
	"fmt"
	"testing"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

func delegating(c *Config) { c.Links[0].Delegation = true }

const (
	delegates = `<message from='example.org' to='` + testDomain + `'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:xmpp:mam:2'/></delegation></message>`
	permits   = `<message from='example.org' to='` + testDomain + `'><privilege xmlns='urn:xmpp:privilege:1'><perm access='roster' type='get'/><perm access='message' type='outgoing'/></privilege></message>`
)

// delegatedIQ is an iq as a server passes it on.
func delegatedIQ(iq string) string {
	return `<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>` + iq + `</forwarded></delegation>`
}

func ofAlice(from, to string) string {
	if to != "" {
		to = " to='" + to + "'"
	}
	return `<iq xmlns='jabber:client' type='set' id='c1' from='` + from + `'` + to + `><query xmlns='urn:xmpp:mam:2'/></iq>`
}

// inner is the iq in the answer to a delegated one.
func inner(t *testing.T, e *stanza.Element) *stanza.Element {
	t.Helper()
	d := e.Child("urn:xmpp:delegation:2", "delegation")
	if e.Attr("type") != "result" || d == nil || d.Child(xep0313.NSForward, "forwarded") == nil {
		t.Fatalf("no delegation in %s", e.Bytes())
	}
	return d.Child(xep0313.NSForward, "forwarded").Child(stanza.NSClient, "iq")
}

// TestDelegation: the owner gets the results in the account's name and the iq as the
// answer; nobody else gets anything.
func TestDelegation(t *testing.T) {
	f := start(t, delegating)
	p := f.up()
	const alice = "alice@example.org"
	p.archived(testHost, appendOf("out", alice, "bob@example.org", "k1", "one"), appendOf("in", alice, "bob@example.org/x", "k2", "two"))

	p.send(delegates)
	// Without the permission to send results there are none.
	e := p.ask("set", testHost, testDomain, delegatedIQ(ofAlice(alice+"/phone", "")))
	if iq := inner(t, e); condition(iq) != "cancel/service-unavailable" || iq.Attr("to") != alice+"/phone" {
		t.Errorf("got %s", iq.Bytes())
	}
	p.send(permits)
	for _, to := range []string{"", alice} {
		id := p.request("set", testHost, testDomain, delegatedIQ(ofAlice(alice+"/phone", to)))
		var got []string
		for e = p.next(); e.Local == "message"; e = p.next() {
			if e.Attr("to") != testHost || e.Attr("from") != testDomain {
				t.Errorf("got %s", e.Bytes())
			}
			m := e.Child("urn:xmpp:privilege:1", "privilege").Child(xep0313.NSForward, "forwarded").Child(stanza.NSClient, "message")
			if m.Attr("from") != alice || m.Attr("to") != alice+"/phone" {
				t.Errorf("got %s", m.Bytes())
			}
			got = append(got, bodies([]*stanza.Element{m, nil})...)
		}
		iq := inner(t, e)
		if e.Attr("id") != id || iq.Attr("id") != "c1" || iq.Attr("type") != "result" || iq.Child(xep0313.NS, "fin") == nil || fmt.Sprint(got) != "[one two]" {
			t.Errorf("to=%q: %q, and %s", to, got, e.Bytes())
		}
	}
	if h := f.status().Hosts[0]; !h.Delegated {
		t.Errorf("got %+v", h)
	}

	for _, from := range []string{"bob@example.org/x", "alice@example.org", "alice@remote.example/x", "example.org"} {
		if iq := inner(t, p.ask("set", testHost, testDomain, delegatedIQ(ofAlice(from, alice)))); condition(iq) != "auth/forbidden" || iq.Attr("to") != from || iq.Attr("id") != "c1" {
			t.Errorf("%s gets %s", from, iq.Bytes())
		}
	}
	if e := p.ask("set", testHost, testDomain, delegatedIQ(ofAlice("@", ""))); condition(e) != "modify/jid-malformed" {
		t.Errorf("got %s", e.Bytes())
	}
	for _, from := range []string{"other.example", "alice@example.org/phone", "remote.example"} {
		if e := p.ask("set", from, testDomain, delegatedIQ(ofAlice(alice+"/phone", ""))); condition(e) != "auth/forbidden" {
			t.Errorf("%s gets %s", from, e.Bytes())
		}
	}
	if e := p.ask("set", testHost, testDomain, `<delegation xmlns='urn:xmpp:delegation:2'/>`); condition(e) != "modify/bad-request" {
		t.Errorf("got %s", e.Bytes())
	}
	if e := p.ask("set", testHost, testDomain, delegatedIQ(`<iq xmlns='jabber:client' type='get' id='c' from='alice@example.org/x'><query xmlns='jabber:iq:roster'/></iq>`)); condition(inner(t, e)) != "cancel/service-unavailable" {
		t.Errorf("got %s", e.Bytes())
	}
}

// TestDelegationIsOffByDefault: what a server grants is not taken unasked.
func TestDelegationIsOffByDefault(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	p.send(delegates)
	if e := p.next(); condition(e) != "cancel/service-unavailable" {
		t.Errorf("got %s", e.Bytes())
	}
	if e := p.ask("set", testHost, testDomain, delegatedIQ(ofAlice("alice@example.org/x", ""))); condition(e) != "cancel/service-unavailable" {
		t.Errorf("got %s", e.Bytes())
	}
	if f.status().Hosts[0].Delegated {
		t.Error("it counts as delegated")
	}
}

// TestNestedInfo: accounts have archives, the server itself has none.
func TestNestedInfo(t *testing.T) {
	f := start(t, delegating)
	p := f.up()
	for _, version := range []string{"1", "2"} {
		node := "urn:xmpp:delegation:" + version + ":bare:urn:xmpp:mam:2"
		q := p.ask("get", testHost, testDomain, `<query xmlns='`+nsInfo+`' node='`+node+`'/>`).Child(nsInfo, "query")
		if q.Attr("node") != node || len(q.Elements()) != len(xep0313.ReadFeatures()) {
			t.Errorf("%s: %s", node, q.Bytes())
		}
		if e := p.ask("get", "remote.example", testDomain, `<query xmlns='`+nsInfo+`' node='`+node+`'/>`); condition(e) != "cancel/item-not-found" {
			t.Errorf("a stranger gets %s", e.Bytes())
		}
	}
	for _, node := range []string{"urn:xmpp:delegation:2::urn:xmpp:mam:2", "urn:xmpp:delegation:3:bare:urn:xmpp:mam:2"} {
		if e := p.ask("get", testHost, testDomain, `<query xmlns='`+nsInfo+`' node='`+node+`'/>`); condition(e) != "cancel/item-not-found" {
			t.Errorf("%s: %s", node, e.Bytes())
		}
	}
}
