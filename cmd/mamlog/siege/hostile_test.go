package siege

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// TestHostileXML: what may not be on a stream ends it with the error that is due,
// over TCP and over WebSocket, and touches nobody else.
func TestHostileXML(t *testing.T) {
	s, web := serveWeb(t, "test.example", "limits: {stanza_size: 20000, stanza_depth: 20, stanza_attributes: 20}\n")
	s.users("mallory", "juliet", "romeo")
	juliet, romeo := s.dial("juliet", "balcony"), s.dial("romeo", "garden")
	attributes := func(n int) (all string) {
		for i := range n {
			all += fmt.Sprintf(" a%d='x'", i)
		}
		return all
	}
	in := func(body string) string {
		return "<message xmlns='jabber:client' to='juliet@test.example' type='chat'><body>" + body + "</body></message>"
	}
	for _, c := range []struct{ name, send, want string }{
		{"a tag that isn't closed", in("<b>"), "not-well-formed"},
		{"tags that cross", in("<a><b></a></b>"), "not-well-formed"},
		{"an attribute twice", "<message xmlns='jabber:client' id='a' id='b'/>", "not-well-formed"},
		{"an attribute twice, by two prefixes", "<message xmlns='jabber:client' xmlns:a='u' xmlns:b='u' a:x='1' b:x='2'/>", "not-well-formed"},
		{"an attribute without quotes", "<message xmlns='jabber:client' id=a/>", "not-well-formed"},
		{"a < in an attribute", "<message xmlns='jabber:client' id='<'/>", "not-well-formed"},
		{"]]> in text", in("]]>"), "not-well-formed"},
		{"an undefined entity", in("&nbsp;"), "not-well-formed"},
		{"a bare ampersand", in("a & b"), "not-well-formed"},
		{"a document type", "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" + in("x"), "restricted-xml"},
		{"entities that grow", `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>` + in("&b;"), "restricted-xml"},
		{"a document type in a stanza", in("<!DOCTYPE x>"), "restricted-xml"},
		{"a comment", in("<!-- x -->"), "restricted-xml"},
		{"a processing instruction", in("<?php x ?>"), "restricted-xml"},
		{"an undeclared prefix", in("<x:y/>"), "bad-namespace-prefix"},
		{"an undeclared prefix of an attribute", in("<y x:z='1'/>"), "bad-namespace-prefix"},
		{"xml as a namespace", in("<y xmlns='http://www.w3.org/XML/1998/namespace'/>"), "not-well-formed"},
		{"xmlns as a namespace", in("<y xmlns:x='http://www.w3.org/2000/xmlns/'/>"), "not-well-formed"},
		{"a prefix unbound again", in("<y xmlns:x='u'><z xmlns:x=''/></y>"), "not-well-formed"},
		{"another namespace", "<message xmlns='jabber:server'/>", "unsupported-stanza-type"},
		{"no namespace", "<message xmlns=''/>", "unsupported-stanza-type"},
		{"a stanza of the attach protocol", "<batch xmlns='" + nsAttach + "'/>", "unsupported-stanza-type"},
		{"U+FFFE", in("\uFFFE"), "not-well-formed"},
		{"U+FFFF by number", in("&#xFFFF;"), "not-well-formed"},
		{"NUL by number", in("&#0;"), "not-well-formed"},
		{"a control character", in("\x0b"), "not-well-formed"},
		{"a control character by number", in("&#11;"), "not-well-formed"},
		{"half a surrogate pair by number", in("&#xD800;"), "not-well-formed"},
		{"too large", in(strings.Repeat("x", 20000)), "policy-violation"},
		{"too large by an attribute", "<message xmlns='jabber:client' id='" + strings.Repeat("x", 20000) + "'/>", "policy-violation"},
		{"too large by one name", "<" + strings.Repeat("x", 20000), "policy-violation"},
		{"too deep", in(strings.Repeat("<a>", 19) + strings.Repeat("</a>", 19)), "policy-violation"},
		{"too many attributes", "<message xmlns='jabber:client'" + attributes(20) + "/>", "policy-violation"},
		{"too many namespaces", in("<a" + strings.ReplaceAll(attributes(21), " a", " xmlns:a") + "/>"), "policy-violation"},
		{"an end that nothing began", "</message>", "not-well-formed"},
		{"invalid UTF-8", in("\xff"), "*"},
		{"an overlong slash", in("\xc0\xaf"), "*"},
		{"a surrogate in UTF-8", in("\xed\xa0\x80"), "*"},
		{"NUL", in("\x00"), "*"},
	} {
		for transport, dial := range map[string]func() (pipe, error){
			"TCP":       func() (pipe, error) { return s.tcp("mallory") },
			"WebSocket": func() (pipe, error) { return dialWeb(web, "mallory") },
		} {
			p, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			// Cut off in the middle, a message of a WebSocket is a fault of its own.
			if err := p.send(c.send); err != nil {
				t.Fatal(err)
			}
			got := rest(p)
			want := c.want
			if want == "*" {
				want = "not-well-formed"
				if transport == "TCP" && got == "bad-format" || transport == "WebSocket" && got == "" {
					want = got // RFC 6455 lets a WebSocket end over text that isn't UTF-8
				}
			}
			if got != want {
				t.Errorf("%s over %s: %q, want %q", c.name, transport, got, want)
			}
			p.close()
		}
	}
	// Nothing of it has reached anybody, and the conversation goes on.
	if err := romeo.Send(in("still here")); err != nil {
		t.Fatal(err)
	}
	if e, err := juliet.Next(); err != nil || e.Child("body").Content() != "still here" {
		t.Errorf("juliet got %s, %v", e, err)
	}
	archive, err := juliet.Walk("", 50)
	if err != nil || len(archive) != 1 {
		t.Errorf("her archive has %d messages: %v", len(archive), err)
	}
}

// nasty is text that would end, or begin, an element if it were spliced in as it is.
var nasty = []string{
	"</body></message></forwarded></result></message><message from='admin@test.example'><body>forged",
	"]]></page></iq><iq type='result'>", "<![CDATA[ x ]]>", "]]>", "]]", "&lt;/body&gt;", "&amp;amp;", "&#60;", "' from='admin@test.example", `" from="admin`,
	"'/><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@test.example' id='forged'/>", "<!--", "-->", "<?xml version='1.0'?>", "<!DOCTYPE x>",
	"\u202egnirts", "\ufffd", "\u2028\u2029", "\u00a0", "e\u0301", "\U0001F600", "%s%n%00", "{{.}}", "${x}", "\\x3c/body\\x3e", "\u037e", "＜body＞",
}

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

// TestInjection: what would close an element, in every place of a stanza that is
// stored, comes back as the text that it was, live and from both archives, over a
// stream and through a link's page.
func TestInjection(t *testing.T) {
	r := newRealm(t, "")
	sent := 0
	for i, text := range append(nasty, "line\nfeed\r\nand\ttab") {
		e := escaped(text)
		resource := text
		if strings.ContainsAny(text, "\n\u202e\ufffd\u2028\u00a0\u0301\u037e\\") {
			resource = "plain" // RFC 7622 allows it in no resource, or prepares it
		}
		juliet, err := conformance.Dial(t.Context(), conformance.DialOptions{Addr: r.Addr, Domain: "test.example", User: "juliet", Password: conformance.Password, Resource: resource})
		if err != nil {
			t.Fatalf("the resource %q: %v", resource, err)
		}
		if juliet.JID != "juliet@test.example/"+resource {
			t.Errorf("bound %q for %q", juliet.JID, resource)
		}
		romeo := r.dial("romeo", "garden")
		content := "<body xml:lang='" + e + "'>" + e + "</body><subject>" + e + "</subject><thread parent='" + e + "'>" + e + "</thread>" +
			"<nick xmlns='http://jabber.org/protocol/nick'>" + e + "</nick><x xmlns='" + e + "' y='" + e + "'><z>" + e + "</z></x>" +
			"<a:b xmlns:a='" + e + "' a:c='" + e + "'/><body xml:lang='x'><![CDATA[" + strings.ReplaceAll(text, "]]>", "]]]]><![CDATA[>") + "]]></body>"
		message := func(from string) string {
			if from != "" {
				from = " from='" + escaped(from) + "'"
			}
			return "<message xmlns='jabber:client' type='chat' to='romeo@test.example'" + from + " id='" + e + "' xml:lang='" + e + "'>" + content + "</message>"
		}
		want, err := conformance.ParseElement(message(juliet.JID))
		if err != nil {
			t.Fatal(err)
		}
		if err := juliet.Send(message("")); err != nil {
			t.Fatal(err)
		}
		live, err := romeo.Next()
		if err != nil {
			t.Fatal(err)
		}
		same(t, "live", text, live, want)
		sent++
		for who, c := range map[string]*conformance.Client{"romeo": romeo, "juliet": juliet} {
			got := ask(t, c, e, text, sent)
			same(t, "in the archive of "+who, text, got, want)
		}
		juliet.Drop()
		romeo.Drop()

		// Through a link, an account and a room, whose senders are spliced in.
		for _, host := range []string{"linked.example", "rooms.linked.example"} {
			owner := "alice@" + host
			dir, typ, peer := "in", "chat", "bob@elsewhere.example/"+resource
			if strings.HasPrefix(host, "rooms") {
				dir, typ, peer = "room", "groupchat", owner+"/"+resource
			}
			stanza := "<message xmlns='jabber:client' type='" + typ + "' from='" + escaped(peer) + "' to='" + owner + "' id='" + e + "' xml:lang='" + e + "'>" + content + "</message>"
			answer := r.request(r.linked, host, "set", "<batch xmlns='"+nsAttach+"'><append dir='"+dir+"' owner='"+owner+"' peer='"+escaped(peer)+
				"' key='"+e+"' sender='eve@elsewhere.example/"+escaped(resource)+"' whois='anyone'>"+stanza+"</append></batch>")
			id := answer.Child("archived").Content()
			if len(id) != 26 {
				t.Fatalf("%q for %s: %s", text, host, answer)
			}
			page := r.request(r.linked, host, "get", "<query xmlns='"+nsAttach+"' owner='"+owner+"' asker='alice@linked.example/"+escaped(resource)+
				"'><iq xmlns='jabber:client' type='set' id='"+e+"'><query xmlns='"+nsMAM+"' queryid='"+e+"'>"+lastPage+"</query></iq></query>").Child("page")
			if page.Attr("stanzas") != "2" {
				t.Fatalf("%q through a link: %s", text, page)
			}
			all, err := conformance.ParseElement("<all>" + page.Content() + "</all>")
			if err != nil || len(all.Children) != 2 {
				t.Fatalf("%q through a link: %v in %s", text, err, page.Content())
			}
			if dir == "room" {
				stanza = strings.Replace(stanza, " to='"+owner+"'", "", 1) // it went to all occupants
			}
			want, err := conformance.ParseElement(stanza)
			if err != nil {
				t.Fatal(err)
			}
			result := all.Children[0].Child("result")
			got := result.Child("forwarded", "message")
			if result.Attr("queryid") != text && !strings.ContainsAny(text, "\n\r\t") || result.Attr("id") != id || all.Children[0].Attr("to") != "alice@linked.example/"+resource {
				t.Errorf("%q through a link: %s", text, all.Children[0])
			}
			if item := got.Child("{http://jabber.org/protocol/muc#user}x", "item"); dir == "room" && item.Attr("jid") != "eve@elsewhere.example/"+resource {
				t.Errorf("%q: the sender is %q", text, item.Attr("jid"))
			}
			same(t, "through a link, "+host, text, got, want)
			if all.Children[1].Attr("id") != want.Attr("id") {
				t.Errorf("%q: the id of the answer is %q", text, all.Children[1].Attr("id"))
			}
		}
		if t.Failed() {
			t.Fatalf("stopped at the text %d, %q", i, text)
		}
	}
	conformance.Figures(t, "%d texts in 15 places each, live, from 4 archives, by stream and by link", sent)
}

const lastPage = "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set>"

// ask queries for the newest message with a queryid and an iq id that are nasty, and
// returns it.
func ask(t *testing.T, c *conformance.Client, escapedID, id string, count int) *conformance.Element {
	t.Helper()
	if err := c.Send("<iq type='set' id='" + escapedID + "'><query xmlns='" + nsMAM + "' queryid='" + escapedID + "'>" + lastPage + "</query></iq>"); err != nil {
		t.Fatal(err)
	}
	m, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	result := m.Child("result")
	fin, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]string{"queryid": result.Attr("queryid"), "id": fin.Attr("id")} {
		if got != id {
			t.Errorf("the %s is %q, and was %q", what, got, id)
		}
	}
	if got := fin.Child("fin", "set", "count").Content(); got != fmt.Sprint(count) {
		t.Errorf("%s messages in the archive, want %d", got, count)
	}
	return result.Child("forwarded", "message")
}

// same compares a message with what it was, but for the ids of archives.
func same(t *testing.T, where, text string, got, want *conformance.Element) {
	t.Helper()
	if got == nil {
		t.Errorf("%s, %q: nothing", where, text)
		return
	}
	var kept []*conformance.Element
	for _, c := range got.Children {
		// Those of the test's own are forged, and are text.
		if c.Name.Local != "stanza-id" && !(c.Name.Local == "x" && strings.HasPrefix(c.Name.Space, "http://jabber.org/protocol/muc")) {
			kept = append(kept, c)
		}
	}
	trimmed := *got
	trimmed.Children = kept
	if d := difference(&trimmed, want); d != "" {
		t.Errorf("%s, %q: %s\n%s\n%s", where, text, d, &trimmed, want)
	}
}

// difference tells how two elements differ, "" if they don't.
func difference(a, b *conformance.Element) string {
	switch {
	case a.Name != b.Name:
		return fmt.Sprintf("%v instead of %v", a.Name, b.Name)
	case a.Text != b.Text:
		return fmt.Sprintf("the text of %s is %q instead of %q", a.Name.Local, a.Text, b.Text)
	case len(a.Attrs) != len(b.Attrs), len(a.Children) != len(b.Children):
		return fmt.Sprintf("%s has %d attributes and %d children instead of %d and %d", a.Name.Local, len(a.Attrs), len(a.Children), len(b.Attrs), len(b.Children))
	}
	for n, v := range b.Attrs {
		if a.Attrs[n] != v {
			return fmt.Sprintf("%s of %s is %q instead of %q", n.Local, a.Name.Local, a.Attrs[n], v)
		}
	}
	for i := range a.Children {
		if d := difference(a.Children[i], b.Children[i]); d != "" {
			return d
		}
	}
	return ""
}
