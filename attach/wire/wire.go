package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"io"
	"net"

	"mamlog/xep0313/stanza"
)

// Bounds of what may be sent during the negotiation.
const (
	maxNegotiation = 64 << 10 // bytes in all
	maxHeader      = 4 << 10  // bytes of a stream header that are kept
)

// Conn is a connection during negotiation. It can read single bytes, so an XML
// decoder on top does not read ahead: what was pipelined behind the negotiation
// is neither lost nor read by the wrong one. The same holds for STARTTLS, where
// bytes sent in the clear must not be taken as sent under TLS.
type Conn struct {
	net.Conn
	in      *bufio.Reader
	space   string // the default namespace of the stream
	left    int    // bytes that the other side may still send
	header  []byte // the bytes since the last restart, at most maxHeader
	trim    bool   // skip whitespace: the next byte starts an element
	refusal error
	spoken  bool
}

// New returns a Conn over c for a stream with that default namespace.
func New(c net.Conn, space string) *Conn {
	return &Conn{Conn: c, in: bufio.NewReaderSize(c, 8<<10), space: space, left: maxNegotiation}
}

// Over returns the Conn that goes on over c, which is w under TLS.
func (w *Conn) Over(c net.Conn) *Conn {
	next := New(c, w.space)
	next.left = w.left
	return next
}

// Rest is what follows the bytes that were read, for after the negotiation.
func (w *Conn) Rest() *bufio.Reader { return w.in }

// Read implements io.Reader.
func (w *Conn) Read(p []byte) (int, error) { return w.in.Read(p) }

// ReadByte implements io.ByteReader. When the other side has sent too much it
// returns a *stanza.StreamError.
func (w *Conn) ReadByte() (byte, error) {
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

// Write passes p on. Whatever the other side sends next answers it, so
// whitespace in front of that means nothing (mellium would take it for a fault).
func (w *Conn) Write(p []byte) (int, error) {
	if w.refusal != nil {
		return 0, w.refusal
	}
	w.trim, w.spoken = true, true
	return w.Conn.Write(p)
}

// Refuse makes every write fail with err, until it is called with nil. It is how
// a stream is refused between the answer to its header and the features.
func (w *Conn) Refuse(err error) { w.refusal = err }

// Spoken tells whether something was written since the last restart, so that
// there is an open stream.
func (w *Conn) Spoken() bool { return w.spoken }

// Restart forgets the old stream's header: the other side opens a new one.
func (w *Conn) Restart() { w.header, w.spoken = w.header[:0], false }

// ConnectionState is TLS's, zero without TLS.
func (w *Conn) ConnectionState() tls.ConnectionState {
	if t, ok := w.Conn.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

// Prefixes are the namespaces that the last stream header declared, by prefix,
// the default one under "".
func (w *Conn) Prefixes() map[string]string {
	d := xml.NewDecoder(bytes.NewReader(w.header))
	for {
		t, err := d.RawToken()
		if err != nil {
			return map[string]string{"": w.space} // a header longer than maxHeader
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

// Discard reads until the other side has closed or the deadline is over: to
// close a socket with unread bytes would take the last words back (RST).
func (w *Conn) Discard() { io.Copy(io.Discard, w.in) }
