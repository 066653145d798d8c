package stanza

import (
	"bytes"
	"fmt"
	"io"
)

// Limits bound one stanza.
type Limits struct {
	Bytes int // of its XML as it arrived
	Depth int // of nested elements
	Attrs int // on one element
}

// DefaultLimits are what an XMPP server may expect of its clients: RFC 6120
// section 13.12 wants at least 10,000 bytes, common servers take 256 KiB.
var DefaultLimits = Limits{Bytes: 256 << 10, Depth: 64, Attrs: 64}

// StreamError is a fault that ends the stream (RFC 6120 section 4.9).
type StreamError struct {
	Condition string // "not-well-formed", "restricted-xml", ...
	Text      string
}

func (e *StreamError) Error() string { return e.Condition + ": " + e.Text }

func notWellFormed(format string, args ...any) error {
	return &StreamError{"not-well-formed", fmt.Sprintf(format, args...)}
}

// Reader reads elements one after another from a stream whose opening tag has
// been read. It is for one goroutine.
type Reader struct {
	in     input
	limits Limits
	outer  []binding // declared by the stream's opening tag
	bare   bool      // there was no opening tag
}

// NewReader returns a Reader of r. prefixes are the namespaces that the
// stream's opening tag declared, by prefix, the default one under "".
func NewReader(r ByteReader, prefixes map[string]string, limits Limits) *Reader {
	out := &Reader{in: newInput(r), limits: limits}
	for p, s := range prefixes {
		if b := (binding{p, s}); b.check() == nil {
			out.outer = append(out.outer, b)
		}
	}
	return out
}

// Parse reads one whole document, which is one element, from b. A namespace
// that it does not declare is jabber:client.
func Parse(b []byte) (*Element, error) {
	r := Reader{
		in:     newInput(bytes.NewBuffer(b)),
		limits: Limits{Bytes: len(b) + 1, Depth: 1 << 10, Attrs: 1 << 10},
		outer:  []binding{{"", NSClient}},
		bare:   true,
	}
	e, err := r.Next()
	if err == io.EOF {
		return nil, notWellFormed("there is no element")
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.Next(); err != io.EOF {
		return nil, notWellFormed("something follows the element")
	}
	return e, nil
}

// Next returns the next element. It returns io.EOF at the stream's end, be it
// the closing tag or the end of input between two elements, and a *StreamError
// for what may not be on an XMPP stream, as soon as it has come; nothing can be
// read after either. Whitespace between elements keeps the connection alive and
// counts for no limit.
//
// The strings of an element share memory, up to 4 KiB of it: of what is to be
// kept for long, keep a copy.
func (r *Reader) Next() (*Element, error) {
	e := r.next()
	r.in.release()
	if r.in.err != nil {
		return nil, r.in.err
	}
	return e, nil
}

func (r *Reader) next() *Element {
	in := &r.in
	in.between()
	for classes[in.peek()]&blank != 0 {
		in.i++
	}
	if in.peek() != '<' {
		in.fail(errTextBetween)
		return nil
	}
	in.begin(r.limits.Bytes)
	if in.next() == 0 {
		return nil
	}
	return r.scan()
}

var errTextBetween = &StreamError{"bad-format", "there is text between two stanzas"}
