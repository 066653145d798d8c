package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
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
// been read.
type Reader struct {
	d      *xml.Decoder
	count  *countingReader
	limits Limits
	outer  []binding // declared by the stream's opening tag
	bare   bool      // there was no opening tag
	spaces int       // bytes of namespaces that the element needs when it is written
}

// binding is a namespace prefix in scope; the prefix "" is the default.
type binding struct{ prefix, space string }

// ByteReader is what a Reader reads from: a buffered reader, say. The Reader
// takes no byte from it beyond the element that it returns.
type ByteReader interface {
	io.Reader
	io.ByteReader
}

// NewReader returns a Reader of r. prefixes are the namespaces that the
// stream's opening tag declared, by prefix, the default one under "".
func NewReader(r ByteReader, prefixes map[string]string, limits Limits) *Reader {
	c := &countingReader{r: r, limit: limits.Bytes}
	d := xml.NewDecoder(c)
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, &StreamError{"unsupported-encoding", "only UTF-8 is supported"}
	}
	out := &Reader{d: d, count: c, limits: limits}
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
	r := NewReader(bytes.NewReader(b), map[string]string{"": NSClient}, Limits{Bytes: len(b) + 1, Depth: 1 << 10, Attrs: 1 << 10})
	r.bare = true
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
// for what may not be on an XMPP stream; nothing can be read after either.
func (r *Reader) Next() (*Element, error) {
	r.count.n, r.spaces = 0, 0
	for {
		t, err := r.token()
		if err != nil {
			if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && r.count.n == 0 {
				return nil, io.EOF
			}
			return nil, err
		}
		switch t := t.(type) {
		case xml.CharData: // whitespace between stanzas keeps the connection alive
			if len(bytes.TrimLeft(t, " \t\r\n")) > 0 {
				return nil, &StreamError{"bad-format", "there is text between two stanzas"}
			}
			r.count.n = 0
		case xml.EndElement:
			if r.bare || t.Name.Local != "stream" {
				return nil, notWellFormed("</%s> closes nothing", qualified(t.Name))
			}
			return nil, io.EOF
		case xml.StartElement:
			return r.element(t, r.outer, "", 1)
		}
	}
}

func (r *Reader) token() (xml.Token, error) {
	t, err := r.d.RawToken()
	if err != nil {
		var syntax *xml.SyntaxError
		var stream *StreamError
		switch {
		case errors.As(err, &stream):
			return nil, stream
		case errors.As(err, &syntax) && syntax.Msg == "unexpected EOF":
			return nil, io.ErrUnexpectedEOF
		case errors.As(err, &syntax):
			return nil, notWellFormed("%s", syntax.Msg)
		}
		return nil, err
	}
	switch t := t.(type) {
	case xml.Comment:
		return nil, &StreamError{"restricted-xml", "comments are not allowed"}
	case xml.Directive:
		return nil, &StreamError{"restricted-xml", "document type declarations are not allowed"}
	case xml.ProcInst:
		return nil, &StreamError{"restricted-xml", fmt.Sprintf("the processing instruction <?%s?> is not allowed here", t.Target)}
	case xml.CharData:
		return t, checkChars(t)
	}
	return t, nil
}

// element reads what follows start, up to its end tag. parent is the namespace
// of what it stands in.
func (r *Reader) element(start xml.StartElement, scope []binding, parent string, depth int) (*Element, error) {
	if depth > r.limits.Depth {
		return nil, &StreamError{"policy-violation", fmt.Sprintf("elements are nested more than %d deep", r.limits.Depth)}
	}
	e, scope, err := r.open(start, scope)
	if err != nil {
		return nil, err
	}
	// A prefix is short, however long the namespace; written out, it is declared
	// wherever it is used.
	if e.Space != parent {
		r.spaces += len(e.Space)
	}
	for _, a := range e.Attrs {
		r.spaces += len(a.Space)
	}
	if r.spaces > max(r.limits.Bytes, 64<<10) {
		return nil, &StreamError{"policy-violation", "the namespaces of the stanza take too much room"}
	}
	for {
		t, err := r.token()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.CharData:
			if n := len(e.Nodes); n > 0 && e.Nodes[n-1].Element == nil {
				e.Nodes[n-1].Text += string(t) // a CDATA section beside text
			} else if len(t) > 0 {
				e.Nodes = append(e.Nodes, Node{Text: string(t)})
			}
		case xml.EndElement:
			if t.Name != start.Name {
				return nil, notWellFormed("</%s> closes <%s>", qualified(t.Name), qualified(start.Name))
			}
			return e, nil
		case xml.StartElement:
			c, err := r.element(t, scope, e.Space, depth+1)
			if err != nil {
				return nil, err
			}
			e.Nodes = append(e.Nodes, Node{Element: c})
		}
	}
}

// open resolves the namespaces of a start tag (Namespaces in XML 1.0).
func (r *Reader) open(start xml.StartElement, scope []binding) (*Element, []binding, error) {
	if len(start.Attr) > r.limits.Attrs {
		return nil, nil, &StreamError{"policy-violation", fmt.Sprintf("an element has more than %d attributes", r.limits.Attrs)}
	}
	outer := len(scope)
	for _, a := range start.Attr {
		var b binding
		switch {
		case a.Name.Space == "" && a.Name.Local == "xmlns":
			b = binding{"", a.Value}
		case a.Name.Space == "xmlns":
			b = binding{a.Name.Local, a.Value}
		default:
			continue
		}
		if err := b.check(); err != nil {
			return nil, nil, err
		}
		for _, other := range scope[outer:] {
			if other.prefix == b.prefix {
				return nil, nil, notWellFormed("a namespace is declared twice on <%s>", qualified(start.Name))
			}
		}
		scope = append(scope[:len(scope):len(scope)], b)
	}
	e := &Element{Local: start.Name.Local}
	var err error
	if e.Space, err = resolve(scope, start.Name.Space); err != nil {
		return nil, nil, err
	}
	if err := checkName(start.Name); err != nil {
		return nil, nil, err
	}
	if e.Space == nsXML {
		return nil, nil, notWellFormed("<%s> is reserved", qualified(start.Name))
	}
	for _, a := range start.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		attr := Attr{Local: a.Name.Local, Value: a.Value}
		if err := checkName(a.Name); err != nil {
			return nil, nil, err
		}
		if err := checkChars([]byte(a.Value)); err != nil {
			return nil, nil, err
		}
		if a.Name.Space != "" {
			if attr.Space, err = resolve(scope, a.Name.Space); err != nil {
				return nil, nil, err
			}
		}
		if slices.ContainsFunc(e.Attrs, func(b Attr) bool { return b.Space == attr.Space && b.Local == attr.Local }) {
			return nil, nil, notWellFormed("<%s> has the attribute %q twice", qualified(start.Name), qualified(a.Name))
		}
		e.Attrs = append(e.Attrs, attr)
	}
	return e, scope, nil
}

// check refuses the declarations that Namespaces in XML 1.0 section 3 forbids.
func (b binding) check() error {
	switch {
	case b.prefix != "" && b.space == "":
		return notWellFormed("the prefix %q is declared as no namespace", b.prefix)
	case b.prefix == "xmlns", (b.prefix == "xml") != (b.space == nsXML), b.space == nsXMLNS:
		return notWellFormed("the prefix %q can't be declared as %q", b.prefix, b.space)
	}
	return nil
}

func resolve(scope []binding, prefix string) (string, error) {
	for i := len(scope) - 1; i >= 0; i-- {
		if scope[i].prefix == prefix {
			return scope[i].space, nil
		}
	}
	switch prefix {
	case "":
		return "", nil
	case "xml":
		return nsXML, nil
	}
	return "", &StreamError{"bad-namespace-prefix", fmt.Sprintf("the prefix %q is not declared", prefix)}
}

func qualified(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// checkName refuses what encoding/xml lets pass: more than one colon, and a
// name that starts with something else than a letter.
func checkName(n xml.Name) error {
	ok := n.Local != "" && !strings.Contains(n.Local, ":")
	if c := (n.Local + " ")[0]; ok && n.Space != "" && c >= 0x80 {
		// encoding/xml has looked at the start of the prefix only.
		_, err := xml.NewDecoder(strings.NewReader("<" + n.Local + "/>")).RawToken()
		ok = err == nil
	} else if c < 0x80 {
		ok = ok && (c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	if !ok {
		return notWellFormed("%q is not a name", qualified(n))
	}
	return nil
}

// checkChars refuses the characters outside of XML 1.0 section 2.2 that
// encoding/xml lets in by way of character references. A reference to a
// surrogate it has turned into U+FFFD already.
func checkChars(text []byte) error {
	for _, r := range string(text) {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return notWellFormed("U+%04X is not a character of XML", r)
		}
	}
	return nil
}

// countingReader refuses to read more than limit bytes for one element. Because
// it can read single bytes, the decoder does not read ahead.
type countingReader struct {
	r     ByteReader
	n     int
	limit int
}

var errTooLarge = &StreamError{"policy-violation", "the stanza is too large"}

func (c *countingReader) ReadByte() (byte, error) {
	if c.n++; c.n > c.limit {
		return 0, errTooLarge
	}
	return c.r.ReadByte()
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
