package conformance

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"sort"
	"strings"
)

// Element is one XML element: names with their namespaces resolved, text
// joined. Mixed content loses its interleaving, which no stanza tested here
// depends on.
type Element struct {
	Name     xml.Name
	Attrs    map[xml.Name]string
	Children []*Element
	Text     string
}

// Attr returns the attribute without namespace, or "".
func (e *Element) Attr(local string) string {
	if e == nil {
		return ""
	}
	return e.Attrs[xml.Name{Local: local}]
}

// Child follows a path of "local" or "{namespace}local" steps, taking the
// first child that fits at each, and returns nil where there is none.
func (e *Element) Child(path ...string) *Element {
	for _, step := range path {
		if e == nil {
			return nil
		}
		var next *Element
		for _, c := range e.Children {
			if step == c.Name.Local || step == "{"+c.Name.Space+"}"+c.Name.Local {
				next = c
				break
			}
		}
		e = next
	}
	return e
}

// Content returns the element's own text, or "" for nil.
func (e *Element) Content() string {
	if e == nil {
		return ""
	}
	return e.Text
}

// remove takes elements of that name out of e, however deep.
func (e *Element) remove(name xml.Name) {
	e.Children = slices.DeleteFunc(e.Children, func(c *Element) bool { return c.Name == name })
	for _, c := range e.Children {
		c.remove(name)
	}
}

// readElement reads what follows start up to its end.
func readElement(d *xml.Decoder, start xml.StartElement) (*Element, error) {
	e := &Element{Name: start.Name, Attrs: map[xml.Name]string{}}
	for _, a := range start.Attr {
		if a.Name.Space == "xmlns" || (a.Name.Space == "" && a.Name.Local == "xmlns") {
			continue
		}
		if a.Name.Space == "xml" {
			a.Name.Space = nsXML
		}
		e.Attrs[a.Name] = a.Value
	}
	var text strings.Builder
	for {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			c, err := readElement(d, t)
			if err != nil {
				return nil, err
			}
			e.Children = append(e.Children, c)
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			e.Text = text.String()
			return e, nil
		}
	}
}

// ParseElement parses exactly one element, in the namespace of client streams
// where it names none.
func ParseElement(s string) (*Element, error) {
	d := xml.NewDecoder(strings.NewReader(s))
	d.DefaultSpace = nsClient
	for {
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		if start, ok := tok.(xml.StartElement); ok {
			e, err := readElement(d, start)
			if err != nil {
				return nil, err
			}
			for {
				tok, err := d.Token()
				if errors.Is(err, io.EOF) {
					return e, nil
				}
				if err != nil {
					return nil, err
				}
				if _, ok := tok.(xml.StartElement); ok {
					return nil, errors.New("more than one element")
				}
			}
		}
	}
}

// String writes the element indented, one element a line, with namespaces as
// default declarations: for people, and for tests that compare it.
func (e *Element) String() string {
	var b strings.Builder
	e.write(&b, "", nsClient)
	return strings.TrimSuffix(b.String(), "\n")
}

func (e *Element) write(b *strings.Builder, indent, space string) {
	b.WriteString(indent + "<" + e.Name.Local)
	if e.Name.Space != space {
		b.WriteString(" xmlns='" + e.Name.Space + "'")
	}
	for _, n := range e.attrNames() {
		name := n.Local
		if n.Space == nsXML {
			name = "xml:" + name
		} else if n.Space != "" {
			name = "{" + n.Space + "}" + name
		}
		b.WriteString(" " + name + "='" + escape(e.Attrs[n]) + "'")
	}
	text := strings.TrimSpace(e.Text)
	switch {
	case len(e.Children) == 0 && e.Text == "":
		b.WriteString("/>\n")
	case len(e.Children) == 0:
		b.WriteString(">" + escape(e.Text) + "</" + e.Name.Local + ">\n")
	default:
		b.WriteString(">\n")
		if text != "" {
			b.WriteString(indent + "  " + escape(text) + "\n")
		}
		for _, c := range e.Children {
			c.write(b, indent+"  ", e.Name.Space)
		}
		b.WriteString(indent + "</" + e.Name.Local + ">\n")
	}
}

func (e *Element) attrNames() []xml.Name {
	names := make([]xml.Name, 0, len(e.Attrs))
	for n := range e.Attrs {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		return names[i].Space+names[i].Local < names[j].Space+names[j].Local
	})
	return names
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;")

// escape makes s safe as text and as an attribute's value.
func escape(s string) string { return escaper.Replace(s) }
