package bench

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const sampleStream = `<?xml version='1.0'?><stream:stream xmlns='jabber:client' id="a>b" version='1.0'>` +
	`<stream:features/> <message from='a' id='1'><body>one > two</body><x y="'/>"/></message>` + "\n" +
	`<iq type='result' id='q'/><message><result><forwarded><message id='2'><body/></message></forwarded></result></message></stream:stream>`

var sampleElements = []string{
	`<stream:stream xmlns='jabber:client' id="a>b" version='1.0'>`,
	`<stream:features/>`,
	`<message from='a' id='1'><body>one > two</body><x y="'/>"/></message>`,
	`<iq type='result' id='q'/>`,
	`<message><result><forwarded><message id='2'><body/></message></forwarded></result></message>`,
}

func elements(t *testing.T, r io.Reader) (all []string) {
	t.Helper()
	s := newSplitter(r)
	for {
		e, err := s.next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(e))
	}
}

func TestSplitter(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(sampleStream), "bytes": iotest.OneByteReader(strings.NewReader(sampleStream)),
		"halves": iotest.HalfReader(strings.NewReader(sampleStream)),
	} {
		if got := elements(t, r); !slices.Equal(got, sampleElements) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for i := range len(sampleStream) {
		r := io.MultiReader(strings.NewReader(sampleStream[:i]), strings.NewReader(sampleStream[i:]))
		if got := elements(t, r); !slices.Equal(got, sampleElements) {
			t.Fatalf("cut at %d: %q", i, got)
		}
	}
}

func TestSplitterGrows(t *testing.T) {
	big := "<message><body>" + strings.Repeat("long ", 100_000) + "</body></message>"
	got := elements(t, strings.NewReader("<stream:stream>"+big+big+"</stream:stream>"))
	if len(got) != 3 || got[1] != big || got[2] != big {
		t.Errorf("%d elements", len(got))
	}
}

func TestSplitterBeginsAnew(t *testing.T) {
	s := newSplitter(strings.NewReader("<stream:stream><success/><stream:stream><iq/>"))
	for i, want := range []string{"<stream:stream>", "<success/>", "<stream:stream>", "<iq/>"} {
		if i == 2 {
			s.reset()
		}
		if e, err := s.next(); err != nil || string(e) != want {
			t.Fatalf("%q, %v, want %q", e, err, want)
		}
	}
	if _, err := s.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestSplitterRefusesWhatIsNoStanza(t *testing.T) {
	s := newSplitter(strings.NewReader("<stream:stream><!-- no -->"))
	if _, err := s.next(); err != nil {
		t.Fatal(err)
	}
	if e, err := s.next(); err == nil {
		t.Errorf("a comment was taken for %q", e)
	}
}

func TestAttr(t *testing.T) {
	e := []byte(`<stanza-id xmlns='urn:xmpp:sid:0' by="juliet@example.org" id='a"b' xid='no'><x other='y'/></stanza-id>`)
	for name, want := range map[string]string{"by": "juliet@example.org", "id": `a"b`, "xmlns": "urn:xmpp:sid:0", "d": "", "other": "", "y@": ""} {
		if got := attr(e, name); string(got) != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if attr([]byte("<a b='c"), "b") != nil || attr(nil, "b") != nil {
		t.Error("a value without an end was read")
	}
}

func TestIs(t *testing.T) {
	for e, want := range map[string]bool{"<iq/>": true, "<iq >": true, "<iq>": true, "<iqx>": false, "<i>": false, "": false} {
		if is([]byte(e), "iq") != want {
			t.Errorf("%q: %v", e, !want)
		}
	}
}
