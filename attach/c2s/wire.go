package c2s

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"io"
	"net"

	"mamlog/xep0313/stanza"
)

// Bounds of what a client may send before it has a resource.
const (
	maxNegotiation = 64 << 10 // bytes in all
	maxHeader      = 4 << 10  // bytes of a stream header that are kept
)

// wire is a connection during negotiation. It can read single bytes, so an XML
// decoder on top does not read ahead: when the negotiation ends, the session's
// own reader takes over at the very next byte, and what a client pipelined is
// neither lost nor read by the wrong one. The same holds for STARTTLS, where
// bytes sent in the clear must not be taken as sent under TLS.
//
// A wire belongs to one goroutine.
type wire struct {
	net.Conn
	in *bufio.Reader

	left   int    // bytes that the client may still send
	header []byte // the bytes since the last restart, at most maxHeader
	trim   bool   // skip whitespace: the next byte starts an element

	// refuse, once set, is what every write fails with. It is how a stream is
	// refused between the answer to its header and the features.
	refuse error
	spoken bool // something was written, so there is an open stream
}

func newWire(c net.Conn) *wire {
	return &wire{Conn: c, in: bufio.NewReaderSize(c, 8<<10), left: maxNegotiation}
}

// over returns the wire that goes on over c, which is w under TLS.
func (w *wire) over(c net.Conn) *wire {
	next := newWire(c)
	next.left = w.left
	return next
}

func (w *wire) Read(p []byte) (int, error) { return w.in.Read(p) }

func (w *wire) ReadByte() (byte, error) {
	for {
		if w.left--; w.left < 0 {
			return 0, &stanza.StreamError{Condition: "policy-violation", Text: "too much was sent before the login was complete"}
		}
		b, err := w.in.ReadByte()
		if err != nil {
			return 0, err
		}
		if w.trim && (b == ' ' || b == '\n' || b == '\r' || b == '\t') {
			continue
		}
		w.trim = false
		if len(w.header) < maxHeader {
			w.header = append(w.header, b)
		}
		return b, nil
	}
}

// Write passes p on. Whatever the client sends next answers it, so whitespace in
// front of that means nothing (mellium would take it for a fault).
func (w *wire) Write(p []byte) (int, error) {
	if w.refuse != nil {
		return 0, w.refuse
	}
	w.trim, w.spoken = true, true
	return w.Conn.Write(p)
}

// restart forgets the old stream's header: the client opens a new one.
func (w *wire) restart() { w.header, w.spoken = w.header[:0], false }

// ConnectionState is TLS's, zero without TLS.
func (w *wire) ConnectionState() tls.ConnectionState {
	if t, ok := w.Conn.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

// prefixes are the namespaces that the last stream header declared.
func (w *wire) prefixes() map[string]string {
	d := xml.NewDecoder(bytes.NewReader(w.header))
	for {
		t, err := d.RawToken()
		if err != nil {
			return map[string]string{"": stanza.NSClient} // a header longer than maxHeader
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		m := make(map[string]string)
		for _, a := range start.Attr {
			switch {
			case a.Name.Space == "" && a.Name.Local == "xmlns":
				m[""] = a.Value
			case a.Name.Space == "xmlns":
				m[a.Name.Local] = a.Value
			}
		}
		return m
	}
}

// discard reads until the client has closed its side or the deadline is over: to
// close a socket with unread bytes would take the last words back (RST).
func (w *wire) discard() { io.Copy(io.Discard, w.in) }
