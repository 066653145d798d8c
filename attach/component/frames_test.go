package component

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"mamlog/xep0313/stanza"
)

func cut(r io.Reader, limit int) (all []frame, err error) {
	f := &frames{in: bufio.NewReaderSize(r, 16), limit: limit}
	for {
		fr, err := f.next()
		if err != nil {
			return all, err
		}
		all = append(all, frame{bytes.Clone(fr.bytes), fr.large})
	}
}

func TestFrames(t *testing.T) {
	elements := []string{
		"<a/>", "<a></a>", "<a>text > more</a>", `<a b="'>'" c='"/>"'/>`, "<a><b/><c>x</c><d e='/'/></a>",
		"<a><![CDATA[<b></a>]]]]></a>", "<a><![CDATA[]]><![CDATA[>]]></a>", "<p:a xmlns:p='u'><p:a/></p:a >", "<a\n>\n</a\n>",
		"<a>" + strings.Repeat("<b>", 100) + strings.Repeat("</b>", 100) + "</a>",
	}
	in := " \n" + strings.Join(elements, "\t ") + "\r\n</stream:stream>rest"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
		got, err := cut(r, 1000)
		if err != io.EOF || len(got) != len(elements) {
			t.Fatalf("%s: %d frames, %v", name, len(got), err)
		}
		for i, f := range got {
			if string(f.bytes) != elements[i] || f.large {
				t.Errorf("%s: got %s, want %s", name, f.bytes, elements[i])
			}
		}
	}
}

func TestLargeFrames(t *testing.T) {
	got, err := cut(strings.NewReader("<a>0123456789</a><b><![CDATA[</b></b></b>]]></b><c>01234</c></x>"), 12)
	if err != io.EOF || len(got) != 3 {
		t.Fatalf("%d frames, %v", len(got), err)
	}
	for i, want := range []string{"<a>012345678", "<b><![CDATA[", "<c>01234</c>"} {
		if string(got[i].bytes) != want || got[i].large != (i < 2) {
			t.Errorf("got %s, %v", got[i].bytes, got[i].large)
		}
	}
}

func TestFramesRefused(t *testing.T) {
	for in, want := range map[string]string{
		"x": "bad-format", "<a/>x": "bad-format", "&lt;": "bad-format",
		"<!-- -->": "restricted-xml", "<a><!-- --></a>": "restricted-xml", "<a><![CDATX[": "restricted-xml",
		"<![CDATA[x]]>": "restricted-xml", "<?xml?>": "restricted-xml", "<a><?x?></a>": "restricted-xml", "<!DOCTYPE x>": "restricted-xml",
	} {
		_, err := cut(strings.NewReader(in), 1000)
		var se *stanza.StreamError
		if !errors.As(err, &se) || se.Condition != want {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
	for _, in := range []string{"", " ", "<", "<a", "<a>", "<a b='>", "<a><![CDATA[</a>", "<a></a"} {
		if _, err := cut(strings.NewReader(in), 1000); err != io.ErrUnexpectedEOF {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestStartTag(t *testing.T) {
	for in, want := range map[string]string{
		"<a>b": "<a>", "<a b='>' c=\"'>\"/><d>": "<a b='>' c=\"'>\"/>", "": "", "<a": "", "a>": "", "<a b='>": "",
	} {
		if got := in[:startTag([]byte(in))]; got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func TestStartTags(t *testing.T) {
	for in, want := range map[string][2]string{
		"<a><b>": {"<a>", "<a><b>"}, "<a> \n<b/></a>": {"<a>", "<a> \n<b/>"}, "<a/><b>": {"<a/>", ""}, "<a>x<b>": {"<a>", ""},
		"<a></a>": {"<a>", ""}, "<a><![CDATA[>]]>": {"<a>", ""}, "<a><b": {"<a>", ""}, "<a": {"", ""}, "<": {"", ""}, "<a><b c='>'>": {"<a>", "<a><b c='>'>"},
	} {
		outer, inner := startTags([]byte(in))
		if in[:outer] != want[0] || in[:inner] != want[1] {
			t.Errorf("%s: got %s and %s", in, in[:outer], in[:inner])
		}
	}
}

// FuzzFrames: what a reader takes for elements is cut at the same places.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{"<a/><b>x</b>", "<a b='>'/> <c><![CDATA[]]]]></c></s>", "<a><b></a></b>", "<a/ ><b>", "<a b=>'></a>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, _ := cut(bytes.NewReader(in), 1<<20)
		slow, _ := cut(iotest.OneByteReader(bytes.NewReader(in)), 1<<20)
		if len(whole) != len(slow) {
			t.Fatalf("%d frames, byte by byte %d", len(whole), len(slow))
		}
		r := stanza.NewReader(bytes.NewBuffer(in), nil, stanza.Limits{Bytes: 1 << 20, Depth: 1000, Attrs: 1000})
		for i := 0; ; i++ {
			e, err := r.Next()
			if err != nil {
				return // the frame will be refused, or there is none
			}
			if i >= len(whole) {
				t.Fatalf("%s is cut into %d frames", in, len(whole))
			}
			one, err := stanza.NewReader(bytes.NewBuffer(whole[i].bytes), nil, stanza.Limits{Bytes: 1 << 20, Depth: 1000, Attrs: 1000}).Next()
			if err != nil || !bytes.Equal(one.Bytes(), e.Bytes()) {
				t.Fatalf("frame %d is %s, want %s: %v", i, whole[i].bytes, e.Bytes(), err)
			}
		}
	})
}
