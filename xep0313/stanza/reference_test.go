package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// reference is a Reader made of encoding/xml, which the scanner is held against.
// encoding/xml says what the tokens are and whether they are well-formed. What is
// refused and read differently besides is all here:
//
//   - comments, processing instructions and directives (RFC 6120 section 11.1);
//   - between elements, anything but literal whitespace;
//   - an end tag that doesn't fit, and what Namespaces in XML 1.0 forbids: more
//     than one colon in a name, or one at its end; a prefix that isn't declared,
//     that is declared twice on an element, or declared wrongly; an attribute that
//     is there twice; and, though that may be, elements of the namespace of xml:;
//   - attributes without whitespace between them (XML 1.0 section 3.1);
//   - references to surrogates (section 4.1), which encoding/xml reads as U+FFFD;
//   - the value of an attribute has a space for each literal tab and line end
//     (section 3.3.3).
type reference struct {
	d     *xml.Decoder
	in    []byte
	outer map[string]string
	bare  bool
}

func newReference(in []byte, outer map[string]string, bare bool) *reference {
	return &reference{xml.NewDecoder(bytes.NewReader(in)), in, outer, bare}
}

// token returns a token with the bytes that it was read from.
func (r *reference) token() (xml.Token, []byte, error) {
	from := r.d.InputOffset()
	t, err := r.d.RawToken()
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) && strings.HasPrefix(syntax.Msg, "unexpected EOF") {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, err
	}
	raw := r.in[from:r.d.InputOffset()]
	switch t := t.(type) {
	case xml.Comment, xml.ProcInst, xml.Directive:
		return nil, nil, fmt.Errorf("a %T", t)
	case xml.CharData:
		if !bytes.HasPrefix(raw, []byte("<![CDATA[")) && refersToSurrogate(raw) {
			return nil, nil, errors.New("a surrogate")
		}
	}
	return xml.CopyToken(t), raw, nil
}

// next returns the next element, io.EOF at the end, io.ErrUnexpectedEOF where the
// input is cut off, another error for what is refused.
func (r *reference) next() (*Element, error) {
	for {
		t, raw, err := r.token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.CharData:
			if len(bytes.Trim(raw, " \t\r\n")) > 0 {
				return nil, errors.New("text")
			}
		case xml.EndElement:
			if r.bare || t.Name.Local != "stream" {
				return nil, errors.New("end tag")
			}
			return nil, io.EOF
		case xml.StartElement:
			return r.element(t, raw, r.outer)
		}
	}
}

func (r *reference) element(start xml.StartElement, raw []byte, outer map[string]string) (*Element, error) {
	e, scope, err := r.open(start, raw, outer)
	if err != nil {
		return nil, err
	}
	text := ""
	flush := func() {
		e.AddText(text)
		text = ""
	}
	for {
		t, raw, err := r.token()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.CharData:
			text += string(t)
		case xml.StartElement:
			flush()
			c, err := r.element(t, raw, scope)
			if err != nil {
				return nil, err
			}
			e.Add(c)
		case xml.EndElement:
			flush()
			if t.Name != start.Name {
				return nil, errors.New("end tag does not fit")
			}
			return e, nil
		}
	}
}

func (r *reference) open(start xml.StartElement, raw []byte, outer map[string]string) (*Element, map[string]string, error) {
	values, err := rawValues(raw)
	if err != nil {
		return nil, nil, err
	}
	if len(values) != len(start.Attr) {
		panic(fmt.Sprintf("%q has %d attributes; encoding/xml sees %d", raw, len(values), len(start.Attr)))
	}
	declared := make(map[string]string)
	for i, a := range start.Attr {
		if got := dereference(lineEnds.ReplaceAllString(values[i], "\n")); got != a.Value {
			panic(fmt.Sprintf("%q has %q for %s; encoding/xml sees %q", raw, got, a.Name.Local, a.Value))
		}
		value := dereference(blanks.ReplaceAllString(values[i], " "))
		start.Attr[i].Value = value
		prefix := a.Name.Local
		if a.Name.Space == "" && a.Name.Local == "xmlns" {
			prefix = ""
		} else if a.Name.Space != "xmlns" {
			continue
		} else if !isPart(prefix) || value == "" {
			return nil, nil, errors.New("a declaration of nothing")
		}
		_, twice := declared[prefix]
		if twice || prefix == "xmlns" || (prefix == "xml") != (value == nsXML) || value == nsXMLNS {
			return nil, nil, errors.New("a wrong declaration")
		}
		declared[prefix] = value
	}
	if len(declared) > 0 {
		scope := map[string]string{}
		for _, m := range []map[string]string{outer, declared} {
			for p, s := range m {
				scope[p] = s
			}
		}
		outer = scope
	}
	resolve := func(n xml.Name, byDefault string) (string, error) {
		switch {
		case !isPart(n.Local) || n.Space != "" && !isPart(n.Space):
			return "", errors.New("not a qualified name")
		case n.Space == "":
			return byDefault, nil
		case n.Space == "xml":
			return nsXML, nil
		case outer[n.Space] == "":
			return "", errors.New("an undeclared prefix")
		}
		return outer[n.Space], nil
	}
	e := &Element{Local: start.Name.Local}
	if e.Space, err = resolve(start.Name, outer[""]); err != nil {
		return nil, nil, err
	}
	if e.Space == nsXML {
		return nil, nil, errors.New("an element of xml")
	}
	for _, a := range start.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		attr := Attr{Local: a.Name.Local, Value: a.Value}
		if attr.Space, err = resolve(a.Name, ""); err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(e.Attrs, func(b Attr) bool { return b.Space == attr.Space && b.Local == attr.Local }) {
			return nil, nil, errors.New("an attribute twice")
		}
		e.Attrs = append(e.Attrs, attr)
	}
	return e, outer, nil
}

var (
	tagName    = regexp.MustCompile(`^<[^ \t\r\n/>]+`)
	attribute  = regexp.MustCompile(`^([ \t\r\n]*)[^ \t\r\n=]+[ \t\r\n]*=[ \t\r\n]*(?:"([^"]*)"|'([^']*)')`)
	references = regexp.MustCompile(`&[^;]*;`)
	lineEnds   = regexp.MustCompile(`\r\n?`)
	blanks     = regexp.MustCompile(`\r\n|[\t\r\n]`)
	part       = regexp.MustCompile(`^[A-Za-z_\x{80}-\x{10FFFF}][^:]*$`)
)

// rawValues are the values of a start tag that encoding/xml has accepted, as they
// stand between their quotes.
func rawValues(raw []byte) ([]string, error) {
	var values []string
	rest := raw[len(tagName.Find(raw)):]
	for {
		m := attribute.FindSubmatch(rest)
		if m == nil {
			return values, nil
		}
		if len(m[1]) == 0 {
			return nil, errors.New("no whitespace before an attribute")
		}
		values = append(values, string(m[2])+string(m[3]))
		if refersToSurrogate([]byte(values[len(values)-1])) {
			return nil, errors.New("a surrogate")
		}
		rest = rest[len(m[0]):]
	}
}

// isPart tells whether half of a name that encoding/xml takes for one is itself
// one, without a colon.
func isPart(s string) bool {
	if !part.MatchString(s) {
		return false
	}
	_, err := xml.NewDecoder(strings.NewReader("<" + s + "/>")).RawToken()
	return err == nil
}

func character(ref string) rune {
	switch ref {
	case "&lt;":
		return '<'
	case "&gt;":
		return '>'
	case "&amp;":
		return '&'
	case "&apos;":
		return '\''
	case "&quot;":
		return '"'
	}
	digits, base := strings.TrimSuffix(strings.TrimPrefix(ref, "&#"), ";"), 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		panic(ref + " was accepted")
	}
	return rune(n)
}

func dereference(s string) string {
	return references.ReplaceAllStringFunc(s, func(ref string) string { return string(character(ref)) })
}

func refersToSurrogate(raw []byte) bool {
	return slices.ContainsFunc(references.FindAll(raw, -1), func(ref []byte) bool {
		r := character(string(ref))
		return 0xD800 <= r && r <= 0xDFFF
	})
}
