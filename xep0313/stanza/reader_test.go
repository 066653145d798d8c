package stanza

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestNormalForm(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`<message to='a@b'><body>hi</body></message>`, `<message xmlns='jabber:client' to='a@b'><body>hi</body></message>`},
		{`<message xmlns="jabber:client"/>`, `<message xmlns='jabber:client'/>`},
		{`<message></message>`, `<message xmlns='jabber:client'/>`},
		{`<m:message xmlns:m='jabber:client'><m:body>x</m:body></m:message>`, `<message xmlns='jabber:client'><body>x</body></message>`},
		{`<message><x xmlns='urn:a'><y/><z xmlns='urn:b'/><w xmlns=''/></x><body/></message>`,
			`<message xmlns='jabber:client'><x xmlns='urn:a'><y/><z xmlns='urn:b'/><w xmlns=''/></x><body/></message>`},
		{`<message><body>a&lt;b&gt;&amp;&apos;&quot;&#x41;&#10;</body></message>`, `<message xmlns='jabber:client'><body>a&lt;b&gt;&amp;&#39;&#34;A&#10;</body></message>`},
		{`<message><body><![CDATA[<b>&]]> and <![CDATA[more]]></body></message>`, `<message xmlns='jabber:client'><body>&lt;b&gt;&amp; and more</body></message>`},
		{`<message id='a&#39;b"c&lt;'/>`, `<message xmlns='jabber:client' id='a&#39;b&#34;c&lt;'/>`},
		{"<message><p:\u00e9t xmlns:p='u'/></message>", "<message xmlns='jabber:client'><\u00e9t xmlns='u'/></message>"},
		{`<message xml:lang='de'/>`, `<message xmlns='jabber:client' xml:lang='de'/>`},
		{`<message><x xmlns:q='urn:q' q:a='1' b='2'/></message>`, `<message xmlns='jabber:client'><x xmlns:a00='urn:q' a00:a='1' b='2'/></message>`},
		{"<message><body>\U0001F600é</body></message>", "<message xmlns='jabber:client'><body>\U0001F600é</body></message>"},
	} {
		e, err := Parse([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got := string(e.Bytes())
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
		again, err := Parse([]byte(got))
		if err != nil || string(again.Bytes()) != got {
			t.Errorf("%s is not stable: %v", got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"comment", `<message><!-- x --></message>`, "restricted-xml"},
		{"processing instruction", `<message><?x y?></message>`, "restricted-xml"},
		{"DTD", `<!DOCTYPE x [<!ENTITY a "b">]><message/>`, "restricted-xml"},
		{"entity", `<message><body>&a;</body></message>`, "not-well-formed"},
		{"mismatch", `<message><a></b></message>`, "not-well-formed"},
		{"mismatched prefix", `<message><p:a xmlns:p='u' xmlns:q='u'></q:a></message>`, "not-well-formed"},
		{"attribute twice", `<message id='1' id='2'/>`, "not-well-formed"},
		{"attribute twice by namespace", `<message xmlns:a='u' xmlns:b='u' a:x='1' b:x='2'/>`, "not-well-formed"},
		{"namespace twice", `<message xmlns='a' xmlns='b'/>`, "not-well-formed"},
		{"undeclared prefix", `<p:message/>`, "bad-namespace-prefix"},
		{"undeclared attribute prefix", `<message p:a='1'/>`, "bad-namespace-prefix"},
		{"out of scope", `<message><a xmlns:p='u'/><p:b/></message>`, "bad-namespace-prefix"},
		{"empty prefix", `<message xmlns:p=''/>`, "not-well-formed"},
		{"xml redeclared", `<message xmlns:xml='urn:x'/>`, "not-well-formed"},
		{"xmlns redeclared", `<message xmlns:xmlns='urn:x'/>`, "not-well-formed"},
		{"unquoted", `<message id=1/>`, "not-well-formed"},
		{"no value", `<message id/>`, "not-well-formed"},
		{"NUL", "<message><body>\x00</body></message>", "not-well-formed"},
		{"NUL reference", `<message><body>&#0;</body></message>`, "not-well-formed"},
		{"U+FFFE", "<message><body>\uFFFE</body></message>", "not-well-formed"},
		{"U+FFFF reference", `<message a='&#xFFFF;'/>`, "not-well-formed"},
		{"not UTF-8", "<message><body>\xff</body></message>", "not-well-formed"},
		{"two colons", `<a:b:c xmlns:a='u'/>`, "not-well-formed"},
		{"digit", `<1a/>`, "not-well-formed"},
		{"element of xml", `<message><xml:foo/></message>`, "not-well-formed"},
		{"xml under another prefix", `<message xmlns:p='http://www.w3.org/XML/1998/namespace'/>`, "not-well-formed"},
		{"xml as default", `<message><a xmlns='http://www.w3.org/XML/1998/namespace'/></message>`, "not-well-formed"},
		{"xmlns as default", `<message><a xmlns='http://www.w3.org/2000/xmlns/'/></message>`, "not-well-formed"},
		{"xmlns under a prefix", `<message xmlns:p='http://www.w3.org/2000/xmlns/'/>`, "not-well-formed"},
		{"combining start", "<p:\u0300x xmlns:p='u'/>", "not-well-formed"},
		{"digit start", "<p:\u0661x xmlns:p='u'/>", "not-well-formed"},
		{"attribute's combining start", "<a xmlns:p='u' p:\u0300x='1'/>", "not-well-formed"},
		{"namespaces that grow", `<message xmlns:p='` + strings.Repeat("u", 1000) + `'>` + strings.Repeat("<p:a/>", 100) + `</message>`, "policy-violation"},
		{"attributes' namespaces that grow", `<message xmlns:p='` + strings.Repeat("u", 1000) + `'>` + strings.Repeat("<a p:b=''/>", 100) + `</message>`, "policy-violation"},
		{"text between", `<a/>text<b/>`, "bad-format"},
		{"deep", strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), "policy-violation"},
		{"large", `<message><body>` + strings.Repeat("x", 5000) + `</body></message>`, "policy-violation"},
		{"many attributes", `<message ` + strings.Repeat("a='1' ", 100) + `/>`, "policy-violation"},
	} {
		r := NewReader(bufio.NewReader(strings.NewReader(c.in)), map[string]string{"": NSClient}, Limits{Bytes: 4096, Depth: 32, Attrs: 32})
		var err error
		for err == nil {
			_, err = r.Next()
		}
		var se *StreamError
		if !errors.As(err, &se) || se.Condition != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestStream(t *testing.T) {
	in := bufio.NewReader(strings.NewReader(" \n<a/>\t<p:b xmlns='x'><c/></p:b> <d/></stream:stream>rest"))
	r := NewReader(in, map[string]string{"": NSClient, "p": "urn:p", "stream": "urn:s"}, DefaultLimits)
	var got []string
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(e.Bytes()))
	}
	want := "<a xmlns='jabber:client'/>|<b xmlns='urn:p'><c xmlns='x'/></b>|<d xmlns='jabber:client'/>"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got %s", s)
	}
	if rest, _ := io.ReadAll(in); string(rest) != "rest" {
		t.Errorf("%q is left, want what follows the stream", rest)
	}
}

func TestCutOff(t *testing.T) {
	for _, in := range []string{"<a>", "<a", "<a><b/>", "<a b='"} {
		r := NewReader(bufio.NewReader(strings.NewReader(in)), nil, DefaultLimits)
		if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", in, err)
		}
	}
	r := NewReader(bufio.NewReader(strings.NewReader(" ")), nil, DefaultLimits)
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("an end between stanzas: %v", err)
	}
}

func TestEscapedTextStaysText(t *testing.T) {
	e := New(NSClient, "message", "id", "\x01'\"<>&\uFFFF\xff\t").Add(New(NSClient, "body").AddText("</body>\x00]]>\r\n"))
	again, err := Parse(e.Bytes())
	if err != nil {
		t.Fatalf("%v in %s", err, e.Bytes())
	}
	if got := again.Attr("id"); got != "\uFFFD'\"<>&\uFFFD\uFFFD\t" {
		t.Errorf("id %q", got)
	}
	if got := again.ChildText(NSClient, "body"); got != "</body>\uFFFD]]>\r\n" {
		t.Errorf("body %q", got)
	}
}

func TestBytesAreTheCallers(t *testing.T) {
	first := New(NSClient, "message").AddText("first").Bytes()
	New(NSClient, "message").AddText("other").Bytes()
	if want := "<message xmlns='jabber:client'>first</message>"; string(first) != want {
		t.Errorf("%s, want %s", first, want)
	}
}

func TestPrefixesOfAttributesDiffer(t *testing.T) {
	e := New(NSClient, "message")
	for i := range 250 {
		e.Attrs = append(e.Attrs, Attr{Space: "urn:x", Local: fmt.Sprintf("b%d", i), Value: "c"})
	}
	again, err := Parse(e.Bytes())
	if err != nil || len(again.Attrs) != 250 {
		t.Fatalf("%v, %v", again, err)
	}
}

func TestErrorReply(t *testing.T) {
	iq := New(NSClient, "iq", "type", "get", "id", "7", "from", "a@b/c", "to", "d@e")
	got := string(iq.ReplyError(ItemNotFound("no %q", "x")).Bytes())
	want := `<iq xmlns='jabber:client' type='error' id='7' from='d@e' to='a@b/c'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no &#34;x&#34;</text></error></iq>`
	if got != want {
		t.Errorf("got %s", got)
	}
}

// FuzzRead checks that whatever is accepted can be written and read again as
// the same, that encoding/xml agrees that it is well-formed, and that nothing
// panics.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`<message to='a@b'><body>hi &amp; bye</body></message>`, `<a xmlns:p='u' p:b='c'><p:d/></a>`,
		`<a><![CDATA[x]]></a>`, `<a>&#x10FFFF;</a>`, `<?xml version='1.0'?><a/>`, "<a\r\n b\t=\n'c'/>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := Parse(in)
		if err != nil {
			return
		}
		out := e.Bytes()
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%q was accepted and written as %q: %v", in, out, err)
		}
		if !bytes.Equal(again.Bytes(), out) {
			t.Fatalf("%q changes to %q", out, again.Bytes())
		}
		d := xml.NewDecoder(bytes.NewReader(in))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%q was accepted; encoding/xml says %v", in, err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	in := []byte(`<message xmlns='jabber:client' type='chat' to='juliet@capulet.example' from='romeo@montague.example/orchard' id='8f2b9a1e-1f9d-4b55-a4a1-77aa77aa77aa'><body>` +
		strings.Repeat("But soft, what light through yonder window breaks? ", 4) + `</body><active xmlns='http://jabber.org/protocol/chatstates'/><origin-id xmlns='urn:xmpp:sid:0' id='8f2b9a1e'/></message>`)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBytes(b *testing.B) {
	e, err := Parse([]byte(`<message xmlns='jabber:client' type='chat' to='juliet@capulet.example' from='romeo@montague.example/orchard' id='8f2b9a1e'><body>` +
		strings.Repeat("But soft, what light through yonder window breaks? ", 4) + `</body></message>`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Bytes()
	}
}
