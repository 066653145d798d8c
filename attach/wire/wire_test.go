package wire

import (
	"encoding/xml"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"mamlog/xep0313/stanza"
)

// over returns a Conn whose other side says text and takes everything.
func over(t *testing.T, text string) *Conn {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	go io.WriteString(there, text)
	go io.Copy(io.Discard, there)
	return New(here, "jabber:client")
}

// TestReadsNothingAhead: what follows the negotiation is all there.
func TestReadsNothingAhead(t *testing.T) {
	w := over(t, "<a><b/>\n<c/>rest")
	d := xml.NewDecoder(w)
	for range 3 { // <a>, <b>, </b>
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
	}
	rest := make([]byte, len("\n<c/>rest"))
	if _, err := io.ReadFull(w.Rest(), rest); err != nil || string(rest) != "\n<c/>rest" {
		t.Errorf("what is left is %q, %v", rest, err)
	}
}

// TestSpaceBehindAnAnswer is skipped, and no other.
func TestSpaceBehindAnAnswer(t *testing.T) {
	w := over(t, " a \r\n\t b")
	read := func(n int) (s string) {
		for range n {
			c, err := w.ReadByte()
			if err != nil {
				t.Fatal(err)
			}
			s += string(c)
		}
		return s
	}
	if got := read(2); got != " a" {
		t.Errorf("got %q", got)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := read(1); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestTooMuch(t *testing.T) {
	w := over(t, strings.Repeat("x", maxNegotiation+1))
	for range maxNegotiation {
		if _, err := w.ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	var se *stanza.StreamError
	if _, err := w.ReadByte(); !errors.As(err, &se) || se.Condition != "policy-violation" {
		t.Errorf("got %v", err)
	}
}

func TestPrefixes(t *testing.T) {
	header := "<?xml version='1.0'?> <s:stream xmlns:s='urn:s' xmlns='urn:d' id='&#39;'>"
	w := over(t, header+"<other xmlns:o='urn:o'>")
	for range len(header) + 5 {
		if _, err := w.ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	if p := w.Prefixes(); len(p) != 2 || p["s"] != "urn:s" || p[""] != "urn:d" {
		t.Errorf("got %v", p)
	}
	w.Restart()
	if p := w.Prefixes(); len(p) != 1 || p[""] != "jabber:client" {
		t.Errorf("of no header: %v", p)
	}
}

func TestRefuse(t *testing.T) {
	w := over(t, "")
	refusal := errors.New("no")
	w.Refuse(refusal)
	if _, err := w.Write([]byte("x")); err != refusal || w.Spoken() {
		t.Errorf("got %v, %v", err, w.Spoken())
	}
	w.Refuse(nil)
	if _, err := w.Write([]byte("x")); err != nil || !w.Spoken() {
		t.Errorf("got %v, %v", err, w.Spoken())
	}
	if w.Restart(); w.Spoken() {
		t.Error("it has spoken since the restart")
	}
}
