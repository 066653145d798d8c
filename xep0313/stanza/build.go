package stanza

// builder makes a tree of what a scanner noted. Its elements, attributes and
// children each lie in one piece of memory, its strings in a few.
type builder struct {
	s        *scanner
	elements []Element
	attrs    []Attr // those that are left for the tags to come
	nodes    []Node // likewise

	// Strings are cut off the text from its beginning on. Whoever keeps one of
	// them keeps its piece alive, not the whole stanza.
	piece    string
	from, to int // the piece, in the text
}

// maxPiece is how much text shares memory, unless one string is longer.
const maxPiece = 4 << 10

func (s *scanner) build() *Element {
	b := builder{
		s:        s,
		elements: make([]Element, len(s.tags)),
		attrs:    make([]Attr, len(s.attrs)+1),
		nodes:    make([]Node, len(s.nodes)),
	}
	root := b.open(0, 1) // room for the "from" that a server adds
	for _, n := range s.nodes {
		var child Node
		if n.tag > 0 {
			child.Element = b.open(n.tag, 0)
		} else {
			child.Text = b.cut(n.from, n.to)
		}
		parent := &b.elements[n.parent]
		parent.Nodes = append(parent.Nodes, child)
	}
	return root
}

// open makes the element of a tag, with room for more attributes than it has.
func (b *builder) open(i, more int) *Element {
	t, e := &b.s.tags[i], &b.elements[i]
	e.Space, e.Local = t.space, b.cut(t.local, t.end)
	if n := t.attrsEnd - t.attrs; n+more > 0 {
		e.Attrs, b.attrs = b.attrs[:n:n+more], b.attrs[n+more:]
		for j := range e.Attrs {
			a := &b.s.attrs[t.attrs+j]
			e.Attrs[j] = Attr{Space: a.space, Local: b.cut(a.local, a.value), Value: b.cut(a.value, a.end)}
		}
	}
	if n := t.children; n > 0 {
		e.Nodes, b.nodes = b.nodes[:0:n], b.nodes[n:]
	}
	return e
}

func (b *builder) cut(from, to int) string {
	if to > b.to {
		b.from, b.to = from, min(len(b.s.text), max(to, from+maxPiece))
		b.piece = string(b.s.text[b.from:b.to])
	}
	return b.piece[from-b.from : to-b.from]
}
