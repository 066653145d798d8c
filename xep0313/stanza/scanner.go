package stanza

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// The scanner reads XML 1.0 as RFC 6120 section 11 narrows it: elements,
// attributes, text, CDATA sections, character references and the five entities,
// and nothing else. It goes over the bytes once, in whatever portions they come,
// notes what it found, and makes a tree of it when the element is complete: a few
// allocations of the right size, however many elements there are.
//
// It refuses what XML 1.0 and Namespaces in XML 1.0 call an error, and all that
// encoding/xml refuses: names are those of XML 1.0 up to its fourth edition, the
// ones that every parser of a client takes.
type scanner struct {
	*input
	limits Limits

	text   []byte // all names, values and texts, in their order
	tags   []tag
	attrs  []attr
	nodes  []node
	scope  []binding
	at     int  // the open tag, -1: none
	depth  int  // of that
	count  int  // attributes of the tag that is being read
	spaces int  // bytes of namespaces that the stanza needs when it is written
	joins  bool // text that comes now continues the last node
	high   byte // all bytes of the run or'ed: with one of 0x80 it isn't ASCII
}

// tag is a start tag. Numbers are places in the scanner's text: the prefix with
// its colon, if any, from name to local, the name proper from local to end.
type tag struct {
	space            string
	name, local, end int
	parent           int // in tags
	children         int // nodes of it
	attrs, attrsEnd  int // in attrs
	scope            int // bindings in force around it
}

// attr is like tag; the value follows the name.
type attr struct {
	space                   string
	name, local, value, end int
}

// node is a child of a tag: another one, or text if that is 0.
type node struct{ parent, tag, from, to int }

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// scan reads the element whose "<" was taken. Only while it does, a stream holds
// a scanner.
func (r *Reader) scan() *Element {
	s := scanners.Get().(*scanner)
	s.input, s.limits = &r.in, r.limits
	s.scope = append(s.scope, r.outer...)
	s.at, s.depth, s.spaces, s.joins = -1, 0, 0, false
	defer s.free()
	if !r.bare && s.peek() == '/' {
		s.endOfStream()
		return nil
	}
	s.markup()
	for s.at >= 0 && s.err == nil {
		if s.peek() != '<' {
			s.chars()
			continue
		}
		s.i++
		s.markup()
	}
	if s.err != nil {
		return nil
	}
	return s.build()
}

// free gives the scanner to the next stanza, unless this one was so large that its
// memory would be a burden.
func (s *scanner) free() {
	if cap(s.text) > 64<<10 || cap(s.tags)+cap(s.attrs)+cap(s.nodes) > 4<<10 {
		return
	}
	clear(s.tags)
	clear(s.attrs)
	clear(s.scope)
	s.input, s.text, s.tags, s.attrs, s.nodes, s.scope = nil, s.text[:0], s.tags[:0], s.attrs[:0], s.nodes[:0], s.scope[:0]
	scanners.Put(s)
}

// markup reads what begins with the "<" that was taken.
func (s *scanner) markup() {
	switch s.peek() {
	case '/':
		s.i++
		s.endTag()
	case '!':
		s.i++
		s.section()
	case '?':
		s.fail(&StreamError{"restricted-xml", "processing instructions are not allowed here"})
	default:
		s.startTag()
	}
}

// section reads a CDATA section, the only thing with "<!" that may be sent.
func (s *scanner) section() {
	switch s.next() {
	case '[':
		for _, c := range []byte("CDATA[") {
			if s.next() != c {
				s.fail(notWellFormed("\"<![\" begins no CDATA section"))
				return
			}
		}
		if s.at < 0 {
			s.fail(errTextBetween)
			return
		}
		s.cdata()
	case '-':
		if s.next() != '-' {
			s.fail(notWellFormed("\"<!-\" begins no comment"))
		}
		s.fail(&StreamError{"restricted-xml", "comments are not allowed"})
	default:
		s.fail(&StreamError{"restricted-xml", "document type declarations are not allowed"})
	}
}

func (s *scanner) startTag() {
	if s.depth >= s.limits.Depth {
		s.fail(&StreamError{"policy-violation", fmt.Sprintf("elements are nested more than %d deep", s.limits.Depth)})
		return
	}
	t := tag{parent: s.at, attrs: len(s.attrs), scope: len(s.scope), name: len(s.text)}
	t.local = s.name()
	t.end = len(s.text)
	s.count = 0
	spaced := s.blanks()
	for c := s.peek(); c != '>' && c != '/'; c = s.peek() {
		if !spaced {
			s.fail(notWellFormed("there is no whitespace before an attribute of <%s>", s.show(t.name, t.end)))
		}
		s.attribute(&t)
		if s.err != nil {
			return
		}
		spaced = s.blanks()
	}
	empty := s.next() == '/'
	if empty && s.next() != '>' {
		s.fail(notWellFormed("there is a \"/\" inside of <%s>", s.show(t.name, t.end)))
	}
	t.attrsEnd = len(s.attrs)
	if s.err != nil || !s.resolve(&t) {
		return
	}
	here := len(s.tags)
	s.tags = append(s.tags, t)
	if s.at >= 0 {
		s.tags[s.at].children++
		s.nodes = append(s.nodes, node{parent: s.at, tag: here})
	}
	s.joins = false
	if empty {
		s.scope = s.scope[:t.scope]
	} else {
		s.at = here
		s.depth++
	}
}

// attribute reads an attribute of t; those that declare a namespace become part
// of the scope.
func (s *scanner) attribute(t *tag) {
	if s.count++; s.count > s.limits.Attrs {
		s.fail(&StreamError{"policy-violation", fmt.Sprintf("an element has more than %d attributes", s.limits.Attrs)})
		return
	}
	a := attr{name: len(s.text)}
	a.local = s.name()
	a.value = len(s.text)
	if s.nextAfterBlanks() != '=' {
		s.fail(notWellFormed("the attribute %q has no value", s.show(a.name, a.value)))
		return
	}
	switch s.nextAfterBlanks() {
	case '\'':
		s.value('\'', endsApos)
	case '"':
		s.value('"', endsQuot)
	default:
		s.fail(notWellFormed("the value of %q is not in quotes", s.show(a.name, a.value)))
	}
	a.end = len(s.text)
	if s.err != nil {
		return
	}
	prefix, local := s.text[a.name:a.local], s.text[a.local:a.value]
	var b binding
	switch {
	case string(prefix) == "xmlns:":
		b.prefix = string(local)
	case len(prefix) == 0 && string(local) == "xmlns":
	default:
		s.attrs = append(s.attrs, a)
		return
	}
	b.space = namespace(s.text[a.value:a.end])
	s.text = s.text[:a.name]
	if err := b.check(); err != nil {
		s.fail(err)
	}
	for _, other := range s.scope[t.scope:] {
		if other.prefix == b.prefix {
			s.fail(notWellFormed("a namespace is declared twice on <%s>", s.show(t.name, t.end)))
		}
	}
	// However short its declaration, each costs whoever looks for a namespace.
	if s.scope = append(s.scope, b); len(s.scope)-s.limits.Attrs > s.limits.Depth {
		s.fail(&StreamError{"policy-violation", "too many namespaces are in scope"})
	}
}

// resolve finds the namespaces of a tag and of its attributes.
func (s *scanner) resolve(t *tag) bool {
	space, err := resolve(s.scope, s.prefix(t.name, t.local))
	if err == nil && space == nsXML {
		err = notWellFormed("<%s> is reserved", s.show(t.name, t.end))
	}
	if err != nil {
		s.fail(err)
		return false
	}
	t.space = space
	// A prefix is short, however long the namespace; written out, it is declared
	// wherever it is used.
	if t.parent < 0 || s.tags[t.parent].space != space {
		s.spaces += len(space)
	}
	attrs := s.attrs[t.attrs:t.attrsEnd]
	for i := range attrs {
		a := &attrs[i]
		if a.local > a.name {
			if a.space, err = resolve(s.scope, s.prefix(a.name, a.local)); err != nil {
				s.fail(err)
				return false
			}
			s.spaces += len(a.space)
		}
		for j := range attrs[:i] {
			b := &attrs[j]
			if b.value-b.local == a.value-a.local && b.space == a.space && bytes.Equal(s.text[b.local:b.value], s.text[a.local:a.value]) {
				s.fail(notWellFormed("<%s> has the attribute %q twice", s.show(t.name, t.end), s.show(a.name, a.value)))
				return false
			}
		}
	}
	if s.spaces > max(s.limits.Bytes, 64<<10) {
		s.fail(&StreamError{"policy-violation", "the namespaces of the stanza take too much room"})
		return false
	}
	return true
}

// prefix is what stands before the colon.
func (s *scanner) prefix(name, local int) []byte { return s.text[name:max(name, local-1)] }

func (s *scanner) endTag() {
	if s.at < 0 {
		s.fail(notWellFormed("an end tag closes nothing"))
		return
	}
	t := &s.tags[s.at]
	n := t.end - t.name
	if w := s.w[s.i:]; len(w) > n && w[n] == '>' && bytes.Equal(w[:n], s.text[t.name:t.end]) {
		s.i += n + 1
	} else if !s.slowEndTag(t) {
		return
	}
	s.scope = s.scope[:t.scope]
	s.at, s.joins = t.parent, false
	s.depth--
}

// slowEndTag reads an end tag that is wrong, has a blank, or isn't in the window
// as a whole.
func (s *scanner) slowEndTag(t *tag) bool {
	from := len(s.text)
	s.name()
	if s.err == nil && !bytes.Equal(s.text[from:], s.text[t.name:t.end]) {
		s.fail(notWellFormed("</%s> closes <%s>", s.show(from, len(s.text)), s.show(t.name, t.end)))
	}
	s.closeTag()
	return s.err == nil
}

func (s *scanner) closeTag() {
	if s.nextAfterBlanks() != '>' {
		s.fail(notWellFormed("an end tag holds more than a name"))
	}
}

// endOfStream reads the end tag of the stream, which is the end of input.
func (s *scanner) endOfStream() {
	s.i++
	local := s.name()
	if s.err == nil && string(s.text[local:]) != "stream" {
		s.fail(notWellFormed("</%s> closes nothing", s.show(0, len(s.text))))
	}
	s.closeTag()
	s.fail(io.EOF)
}

// show is a part of the text for an error.
func (s *scanner) show(from, to int) string { return short(string(s.text[from:to])) }

// short keeps an error from being as long as a stanza.
func short(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
