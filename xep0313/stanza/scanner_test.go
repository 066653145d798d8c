package stanza

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// feeds are the ways in which the same bytes may come.
var feeds = []struct {
	name string
	feed func([]byte) (r ByteReader, left func() int)
}{
	{"buffer", func(b []byte) (ByteReader, func() int) {
		r := bytes.NewBuffer(b)
		return r, r.Len
	}},
	{"byte by byte", func(b []byte) (ByteReader, func() int) {
		r := bytes.NewReader(b)
		return r, r.Len
	}},
	{"small portions", func(b []byte) (ByteReader, func() int) {
		r := bytes.NewReader(b)
		buffered := bufio.NewReaderSize(iotest.HalfReader(r), 16)
		return buffered, func() int { return r.Len() + buffered.Buffered() }
	}},
	{"portions of a byte", func(b []byte) (ByteReader, func() int) {
		r := bytes.NewReader(b)
		buffered := bufio.NewReader(iotest.OneByteReader(r))
		return buffered, func() int { return r.Len() + buffered.Buffered() }
	}},
}

var unlimited = Limits{Bytes: 1 << 30, Depth: 1 << 30, Attrs: 1 << 30}

var streamPrefixes = map[string]string{"": NSClient, "stream": "http://etherx.jabber.org/streams", "p": "urn:p"}

// agree reads in as a stream, or as one document, in all ways and holds the
// outcome against the reference.
func agree(t *testing.T, in []byte, bare bool) {
	t.Helper()
	outer := streamPrefixes
	if bare {
		outer = map[string]string{"": NSClient}
	}
	var want []*Element
	var wantTaken []int
	ref := newReference(in, outer, bare)
	var wantErr error
	for wantErr == nil {
		var e *Element
		if e, wantErr = ref.next(); wantErr == nil {
			want = append(want, e)
			wantTaken = append(wantTaken, int(ref.d.InputOffset()))
		} else if wantErr == io.EOF {
			wantTaken = append(wantTaken, int(ref.d.InputOffset()))
		}
	}
	first := ""
	for _, f := range feeds {
		src, left := f.feed(in)
		r := NewReader(src, outer, unlimited)
		r.bare = bare
		var got []*Element
		var taken []int
		var err error
		for err == nil {
			var e *Element
			if e, err = r.Next(); err == nil {
				got = append(got, e)
			}
			if err == nil || err == io.EOF {
				taken = append(taken, len(in)-left())
			}
		}
		for i := range min(len(got), len(want)) {
			if d := difference(got[i], want[i]); d != "" {
				t.Fatalf("%s: element %d of %q: %s", f.name, i, in, d)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d elements of %q, then %v; encoding/xml has %d, then %v", f.name, len(got), in, err, len(want), wantErr)
		}
		if !slices.Equal(taken, wantTaken) {
			t.Fatalf("%s: %d bytes of %q taken, want %d", f.name, taken, in, wantTaken)
		}
		var se *StreamError
		if (err == io.EOF) != (wantErr == io.EOF) || err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &se) {
			t.Fatalf("%s: %q ends with %v; encoding/xml has %v", f.name, in, err, wantErr)
		}
		// Both refuse. An input that is cut off may be beyond help already, which the
		// one sees at the byte and the other at the end of the token.
		if end := err.Error(); first == "" {
			first = end
		} else if first != end {
			t.Fatalf("%s: %q ends with %q, in another portion with %q", f.name, in, end, first)
		}
	}
}

// difference tells how two trees differ, "" if they don't.
func difference(a, b *Element) string {
	if a.Space != b.Space || a.Local != b.Local {
		return fmt.Sprintf("{%s}%s instead of {%s}%s", a.Space, a.Local, b.Space, b.Local)
	}
	if !slices.Equal(a.Attrs, b.Attrs) {
		return fmt.Sprintf("<%s> has the attributes %q instead of %q", a.Local, a.Attrs, b.Attrs)
	}
	if len(a.Nodes) != len(b.Nodes) {
		return fmt.Sprintf("<%s> has %d nodes instead of %d", a.Local, len(a.Nodes), len(b.Nodes))
	}
	for i, n := range a.Nodes {
		m := b.Nodes[i]
		if n.Text != m.Text || (n.Element == nil) != (m.Element == nil) {
			return fmt.Sprintf("node %d of <%s> is %q instead of %q", i, a.Local, n.Text, m.Text)
		}
		if n.Element != nil {
			if d := difference(n.Element, m.Element); d != "" {
				return d
			}
		}
	}
	return ""
}

// samples are for the fuzzer to begin with.
var samples = []string{
	`<message to='a@b' id="1"><body>hi &amp; bye&#33;&#x21;</body><x xmlns='urn:x'/></message>`,
	` <a/> <p:b xmlns:q='urn:q' q:c='d' xml:lang='de'>x<q:e></q:e >y</p:b></stream:stream>rest`,
	`<a><![CDATA[x]]]]><![CDATA[>]]>]]&gt;]</a>`,
	"<a\r\n b\t=\n'c\r\n\td&#10;\re'\r/>\r<b>\r\n\r&#13;\n</b\n>",
	"<a>\u00e9\U0001F600\uFFFD\uFEFF</a><\u00e9 \u00e9='\u00e9'/>",
	`<?xml version='1.0' encoding='latin1'?><a/>`, `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`,
	`<a><!-- b --><?c d?></a>`, `<a b='1'c='2'/>`, `<a xmlns='' xmlns:b='u'><b:c xmlns:b='v' b:d='' d=''/></a>`,
	`<a>&#xD800;&#xFFFE;&#0;&#x110000;&#00000000000000000000065;</a>`,
	"<a>\x00</a>", "<a>\xff</a>", "<a>\xed\xa0\x80</a>", "<a>\xef\xbf\xbe</a>", "<a b='<'/>", "<a>]]></a>",
	"<a:b:c/>", "<:a/>", "<a:/>", "<p:1/>", "<a xmlns:1='u'/>", "<a / >", "</stream>", "<a></b>",
	"<a><![CDATA[]]></a>", "<a><![CDATA[\xff]x]]></a>", "<a>\uFFFD\uFFFE</a>", "<a><b>c</b>d</a>", "<a b='\xff&lt;'/>", "<a>\xff&lt;</a>",
	`<a xml='1' xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:b='2'><xml:c/></a>`,
}

func FuzzScanner(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(agree)
}

// fragments are what XML is made of. Strings of them are wrong in more ways than
// random bytes.
var fragments = []string{
	"<a", "</a", "<p:a", "</p:a", "<", "</", "/", ">", "/>", "<a>", "</a>", "<b>", "</b>", "<a/>", "<stream:x>", "</stream:stream>",
	" b='", ` b="`, "'", `"`, " ", "\t", "\r", "\n", "=", " a='1'", " p:b=''", " q:b=''", " xml:lang='x'", " xmlns='u'", " xmlns=''",
	" xmlns:p='u'", " xmlns:q='u'", " xmlns:q=''", " xmlns:q='v'", " xmlns:xml='" + nsXML + "'", " xmlns:q='" + nsXML + "'",
	" xmlns='" + nsXMLNS + "'", " xmlns:xmlns='u'", " xmlns:1='u'", "&", ";", "&lt;", "&amp;", "&apos;", "&quot;", "&gt;", "&#", "&#x", "x",
	"0", "9", "41", "D800", "FFFE", "10FFFF", "110000", "20", "xD", ":", "p:", "xml:", "xmlns:", "-", ".", "_", "text",
	"<![CDATA[", "<![", "]", "]]", "]]>", "<!--", "-->", "<?", "?>", "<?xml version='1.0'?>", "<!", "<!DOCTYPE a>",
	"\u00e9", "\u0301", "\u0660", "\u4e00", "\uFFFD", "\uFFFE", "\uFEFF", "\U0001F600", "\xc3", "\xa9", "\xff", "\xed\xa0\x80", "\x00", "\x01", "\x7f", "\u0085",
}

func spell(b []byte) []byte {
	var out []byte
	for _, c := range b {
		out = append(out, fragments[int(c)%len(fragments)]...)
	}
	return out
}

func FuzzScannerFragments(f *testing.F) {
	for i := range fragments {
		f.Add([]byte{9, byte(i), 10}, false)
		f.Add([]byte{0, byte(i), 16, byte(i), 18, 7, byte(i), 1, byte(i), 7}, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, bare bool) { agree(t, spell(b), bare) })
}

// TestScannerAgrees is the fuzz targets' short form: documents that are right but
// for what chance changes in them.
func TestScannerAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range samples {
		for range 200 {
			b := []byte(s)
			for range rng.IntN(3) {
				at := rng.IntN(len(b) + 1)
				f := fragments[rng.IntN(len(fragments))]
				b = slices.Replace(b, at, min(len(b), at+rng.IntN(3)), []byte(f)...)
			}
			agree(t, b, rng.IntN(2) == 0)
		}
	}
}

// TestRefusedAtTheByte: a client need not close what is wrong to be told so.
func TestRefusedAtTheByte(t *testing.T) {
	for _, c := range []struct{ in, condition string }{
		{"x", "bad-format"}, {" &", "bad-format"}, {"<![CDATA[", "bad-format"},
		{"<?", "restricted-xml"}, {"<a><?", "restricted-xml"}, {"<!--", "restricted-xml"}, {"<a><!--", "restricted-xml"}, {"<!D", "restricted-xml"},
		{"<a></b>", "not-well-formed"}, {"<a></ ", "not-well-formed"}, {"<a></a b", "not-well-formed"}, {"</a>", "not-well-formed"},
		{"< ", "not-well-formed"}, {"<1 ", "not-well-formed"}, {"<a:b:", "not-well-formed"}, {"<a b>", "not-well-formed"}, {"<a b=c", "not-well-formed"},
		{"<a b='<", "not-well-formed"}, {"<a b='\x01", "not-well-formed"}, {"<a b=''c", "not-well-formed"}, {"<a / ", "not-well-formed"},
		{"<a>\x01", "not-well-formed"}, {"<a>\x00", "not-well-formed"}, {"<a>]]>", "not-well-formed"}, {"<a>&x;", "not-well-formed"},
		{"<a>&#x;", "not-well-formed"}, {"<a>&#1;", "not-well-formed"}, {"<a>&#xD800;", "not-well-formed"}, {"<a>&#g", "not-well-formed"},
		{"<a>&#x100000041;", "not-well-formed"}, {"<a>&#4294967361;", "not-well-formed"}, {"<a><![c", "not-well-formed"}, {"<!-x", "not-well-formed"},
		{"<a b='' b=''>", "not-well-formed"}, {"<q:a>", "bad-namespace-prefix"}, {"<a>\xff<", "not-well-formed"}, {"<a><![CDATA[\uFFFF]]>", "not-well-formed"},
	} {
		for _, f := range feeds {
			src, left := f.feed([]byte(c.in + "rest"))
			_, err := NewReader(src, streamPrefixes, unlimited).Next()
			var se *StreamError
			if !errors.As(err, &se) || se.Condition != c.condition {
				t.Errorf("%s: %q: %v, want %s", f.name, c.in, err, c.condition)
			}
			if f.name == "byte by byte" && left() != len("rest") {
				t.Errorf("%q is refused with %d bytes left", c.in, left())
			}
		}
	}
}

// TestCutOffAnywhere cuts a stream at each of its bytes.
func TestCutOffAnywhere(t *testing.T) {
	const in = "<a b = 'c&lt;'>x&#13;]\r<![CDATA[]]]]><p:d/></a >"
	for n := 1; n < len(in); n++ {
		for _, f := range feeds {
			src, _ := f.feed([]byte(in[:n]))
			r := NewReader(src, streamPrefixes, DefaultLimits)
			for range 2 {
				if e, err := r.Next(); err != io.ErrUnexpectedEOF {
					t.Fatalf("%s: %q: %v, %v", f.name, in[:n], e, err)
				}
			}
		}
	}
}

func TestLimits(t *testing.T) {
	const before = "  \n                                                                  "
	in := "<a b='1' xmlns:q='2'><c></c><c>" + strings.Repeat("x", 100) + "<d e='' f=''/></c></a>"
	exact := Limits{Bytes: len(in), Depth: 3, Attrs: 2}
	for _, c := range []struct {
		limits Limits
		ok     bool
	}{
		{exact, true},
		{Limits{exact.Bytes - 1, exact.Depth, exact.Attrs}, false},
		{Limits{exact.Bytes, exact.Depth - 1, exact.Attrs}, false},
		{Limits{exact.Bytes, exact.Depth, exact.Attrs - 1}, false},
		{Limits{1, exact.Depth, exact.Attrs}, false},
		{Limits{}, false},
	} {
		for _, f := range feeds {
			// Each element has its own allowance, and whitespace counts for none.
			src, _ := f.feed([]byte(before + in + in + before + in))
			r := NewReader(src, nil, c.limits)
			var err error
			n := 0
			for ; err == nil; n++ {
				_, err = r.Next()
			}
			var se *StreamError
			if c.ok && (n != 4 || err != io.EOF) || !c.ok && (!errors.As(err, &se) || se.Condition != "policy-violation" || n != 1) {
				t.Errorf("%s: %+v: read %d, then %v", f.name, c.limits, n-1, err)
			}
		}
	}
}

// TestNamespacesInScope: a short declaration must not make all that follows slow.
func TestNamespacesInScope(t *testing.T) {
	nested := func(prefixes int) error {
		var in strings.Builder
		for i := range prefixes {
			fmt.Fprintf(&in, "<a xmlns:p%d='u' xmlns:q%d='u'>", i, i)
		}
		in.WriteString(strings.Repeat("</a>", prefixes))
		_, err := NewReader(bytes.NewBufferString(in.String()), nil, Limits{Bytes: 1 << 20, Depth: 32, Attrs: 16}).Next()
		return err
	}
	if err := nested(24); err != nil {
		t.Error(err)
	}
	var se *StreamError
	if err := nested(25); !errors.As(err, &se) || se.Condition != "policy-violation" {
		t.Errorf("%v, want policy-violation", err)
	}
}

// TestElementsAreApart: they lie side by side in memory, and yet what is done to
// one does not show in another.
func TestElementsAreApart(t *testing.T) {
	const in = "<a b='1'>t<c d='2'>u</c><e f='3'>v</e><g/></a>"
	e, err := Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range append(e.Elements(), e) {
		x.SetAttr("new", "4")
		x.SetAttr("newer", "5")
		x.AddText("w").Add(New(NSClient, "h"))
	}
	want := "<a xmlns='jabber:client' b='1' new='4' newer='5'>t<c d='2' new='4' newer='5'>uw<h/></c><e f='3' new='4' newer='5'>vw<h/></e><g new='4' newer='5'>w<h/></g>w<h/></a>"
	if got := string(e.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNamespaces(t *testing.T) {
	for _, list := range known {
		for _, s := range list {
			for _, space := range []string{s, s[:len(s)-1] + "~"} {
				if e, err := Parse([]byte("<a xmlns='" + space + "'/>")); err != nil || e.Space != space {
					t.Errorf("%q is read as %q, %v", space, e.Space, err)
				}
			}
		}
	}
}

// TestInputIsNotKept: what was read may be written over.
func TestInputIsNotKept(t *testing.T) {
	in := []byte(strings.Repeat("<a b='"+strings.Repeat("c", 1000)+"' xmlns='urn:x'>"+strings.Repeat("d", 20000), 5) + strings.Repeat("</a>", 5))
	e, err := Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	before := string(e.Bytes())
	clear(in)
	for range 10 {
		if _, err := Parse([]byte("<z>y</z>")); err != nil {
			t.Fatal(err)
		}
	}
	if string(e.Bytes()) != before {
		t.Error("an element changed when its input did")
	}
}

// TestLongNameInError: what a client is told is not as long as what it sent.
func TestLongNameInError(t *testing.T) {
	name := strings.Repeat("\u00e9", 10000)
	_, err := Parse([]byte("<a><" + name + "></b></a>"))
	if err == nil || len(err.Error()) > 300 || !utf8.ValidString(err.Error()) {
		t.Errorf("%.400q", err)
	}
}

// chat is what a usual client sends.
var chat = []byte(`<message xmlns='jabber:client' xml:lang='en' type='chat' to='juliet@capulet.example' from='romeo@montague.example/orchard' id='8f2b9a1e-1f9d-4b55-a4a1-77aa77aa77aa'><body>` +
	strings.Repeat("But soft, what light through yonder window breaks? ", 5) + `It&apos;s the east.</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>` +
	`<markable xmlns='urn:xmpp:chat-markers:0'/><origin-id xmlns='urn:xmpp:sid:0' id='8f2b9a1e-1f9d-4b55-a4a1-77aa77aa77aa'/></message>`)

// BenchmarkScan reads the same stanza from a stream, with encoding/xml's tokens
// alone for comparison.
func BenchmarkScan(b *testing.B) {
	b.Run("scanner", func(b *testing.B) {
		b.SetBytes(int64(len(chat)))
		b.ReportAllocs()
		in := bufio.NewReaderSize(&again{b: chat}, 8<<10)
		r := NewReader(in, streamPrefixes, DefaultLimits)
		for b.Loop() {
			if _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-xml", func(b *testing.B) {
		b.SetBytes(int64(len(chat)))
		b.ReportAllocs()
		for b.Loop() {
			d := xml.NewDecoder(bytes.NewReader(chat))
			for {
				if _, err := d.RawToken(); err == io.EOF {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// again reads b over and over.
type again struct {
	b []byte
	i int
}

func (a *again) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], a.b[a.i:])
		n += m
		a.i = (a.i + m) % len(a.b)
	}
	return n, nil
}
