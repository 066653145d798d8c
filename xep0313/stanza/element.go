package stanza

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Namespaces that a stanza can't do without.
const (
	NSClient = "jabber:client"
	NSErrors = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsXML    = "http://www.w3.org/XML/1998/namespace"
	nsXMLNS  = "http://www.w3.org/2000/xmlns/"
)

// Element is one XML element with its namespace resolved.
type Element struct {
	Space, Local string
	Attrs        []Attr
	Nodes        []Node
}

// Attr is one attribute; Space is empty for the usual ones without a prefix.
type Attr struct{ Space, Local, Value string }

// Node is a child: an element, or text where Element is nil.
type Node struct {
	Element *Element
	Text    string
}

// New returns an element with attributes given as name and value in turn.
func New(space, local string, attrs ...string) *Element {
	e := &Element{Space: space, Local: local}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Attrs = append(e.Attrs, Attr{Local: attrs[i], Value: attrs[i+1]})
	}
	return e
}

// Add appends children and returns e.
func (e *Element) Add(children ...*Element) *Element {
	for _, c := range children {
		e.Nodes = append(e.Nodes, Node{Element: c})
	}
	return e
}

// AddText appends text and returns e.
func (e *Element) AddText(text string) *Element {
	if text != "" {
		e.Nodes = append(e.Nodes, Node{Text: text})
	}
	return e
}

// Is tells whether e has that name.
func (e *Element) Is(space, local string) bool {
	return e != nil && e.Local == local && e.Space == space
}

// Attr is the value of an attribute without a namespace, "" if there is none.
func (e *Element) Attr(local string) string {
	v, _ := e.LookupAttr(local)
	return v
}

// LookupAttr is Attr that tells an empty attribute from a missing one.
func (e *Element) LookupAttr(local string) (string, bool) {
	for _, a := range e.Attrs {
		if a.Space == "" && a.Local == local {
			return a.Value, true
		}
	}
	return "", false
}

// SetAttr sets an attribute without a namespace; an empty value removes it.
func (e *Element) SetAttr(local, value string) {
	for i, a := range e.Attrs {
		if a.Space != "" || a.Local != local {
			continue
		}
		if value == "" {
			e.Attrs = append(e.Attrs[:i], e.Attrs[i+1:]...)
		} else {
			e.Attrs[i].Value = value
		}
		return
	}
	if value != "" {
		e.Attrs = append(e.Attrs, Attr{Local: local, Value: value})
	}
}

// Child is the first child element with that name, nil if there is none.
func (e *Element) Child(space, local string) *Element {
	for _, n := range e.Nodes {
		if n.Element != nil && n.Element.Local == local && n.Element.Space == space {
			return n.Element
		}
	}
	return nil
}

// Elements are the child elements, without the text between them.
func (e *Element) Elements() []*Element {
	var es []*Element
	for _, n := range e.Nodes {
		if n.Element != nil {
			es = append(es, n.Element)
		}
	}
	return es
}

// First is the first child element, nil if there is none.
func (e *Element) First() *Element {
	for _, n := range e.Nodes {
		if n.Element != nil {
			return n.Element
		}
	}
	return nil
}

// Text is the text directly in e.
func (e *Element) Text() string {
	switch len(e.Nodes) {
	case 0:
		return ""
	case 1:
		return e.Nodes[0].Text
	}
	var b strings.Builder
	for _, n := range e.Nodes {
		b.WriteString(n.Text)
	}
	return b.String()
}

// ChildText is the text of the first child with that name, "" without one.
func (e *Element) ChildText(space, local string) string {
	if c := e.Child(space, local); c != nil {
		return c.Text()
	}
	return ""
}

// Without returns e if drop is false for all its child elements, and otherwise
// a copy that shares all but those for which it is true.
func (e *Element) Without(drop func(*Element) bool) *Element {
	for i, n := range e.Nodes {
		if n.Element == nil || !drop(n.Element) {
			continue
		}
		c := *e
		c.Nodes = append(make([]Node, 0, len(e.Nodes)-1), e.Nodes[:i]...)
		for _, n := range e.Nodes[i+1:] {
			if n.Element == nil || !drop(n.Element) {
				c.Nodes = append(c.Nodes, n)
			}
		}
		return &c
	}
	return e
}

// Copy returns a copy whose attributes can be set, and to which children can be
// added, without a change to e. The children themselves are shared.
func (e *Element) Copy() *Element {
	c := *e
	c.Attrs = append([]Attr(nil), e.Attrs...)
	c.Nodes = append([]Node(nil), e.Nodes...)
	return &c
}

// Bytes is e as XML. Its own namespace is always declared.
func (e *Element) Bytes() []byte {
	scratch := drafts.Get().(*[]byte)
	b := e.Append((*scratch)[:0], "")
	out := bytes.Clone(b)
	if cap(b) <= 64<<10 {
		*scratch = b
		drafts.Put(scratch)
	}
	return out
}

// drafts are for Bytes, which can't tell the size before.
var drafts = sync.Pool{New: func() any { return new([]byte) }}

// Append appends e as XML to b, for a place where inherited is the default
// namespace.
func (e *Element) Append(b []byte, inherited string) []byte {
	b = append(b, '<')
	b = append(b, e.Local...)
	if e.Space != inherited {
		b = append(b, ` xmlns='`...)
		b = AppendEscaped(b, e.Space)
		b = append(b, '\'')
	}
	for i, a := range e.Attrs {
		b = append(b, ' ')
		switch a.Space {
		case "":
		case nsXML:
			b = append(b, "xml:"...)
		default:
			b = append(b, "xmlns:"...)
			b = appendPrefix(b, i)
			b = append(b, `='`...)
			b = AppendEscaped(b, a.Space)
			b = append(b, `' `...)
			b = appendPrefix(b, i)
			b = append(b, ':')
		}
		b = append(b, a.Local...)
		b = append(b, `='`...)
		b = AppendEscaped(b, a.Value)
		b = append(b, '\'')
	}
	if len(e.Nodes) == 0 {
		return append(b, "/>"...)
	}
	b = append(b, '>')
	for _, n := range e.Nodes {
		if n.Element != nil {
			b = n.Element.Append(b, e.Space)
		} else {
			b = AppendEscaped(b, n.Text)
		}
	}
	b = append(b, "</"...)
	b = append(b, e.Local...)
	return append(b, '>')
}

// appendPrefix appends a prefix that no other attribute of the element has.
func appendPrefix(b []byte, i int) []byte {
	b = append(b, 'a')
	if i < 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(i), 10)
}

// AppendEscaped appends s so that it can stand as text and in an attribute.
// What XML can't carry at all becomes U+FFFD.
func AppendEscaped(b []byte, s string) []byte {
	last := 0
	for i := 0; i < len(s); {
		c := s[i]
		if classes[c]&escaped == 0 {
			i++
			continue
		}
		size := 1
		var esc string
		switch {
		case c == '<':
			esc = "&lt;"
		case c == '>':
			esc = "&gt;"
		case c == '&':
			esc = "&amp;"
		case c == '\'':
			esc = "&#39;"
		case c == '"':
			esc = "&#34;"
		case c == '\t':
			esc = "&#9;"
		case c == '\n':
			esc = "&#10;"
		case c == '\r':
			esc = "&#13;"
		case c < 0x20:
			esc = "\uFFFD"
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || r == 0xFFFE || r == 0xFFFF {
				esc = "\uFFFD"
			} else {
				i += size
				continue
			}
		}
		b = append(b, s[last:i]...)
		b = append(b, esc...)
		i += size
		last = i
	}
	return append(b, s[last:]...)
}
