package stanza

import (
	"bytes"
	"encoding/xml"
	"strings"
	"unicode/utf8"
)

// Classes of bytes. A run of text, of a value, of a name ends at the bytes of its
// class, and they are looked at one by one.
const (
	endsText = 1 << iota
	endsCDATA
	endsApos
	endsQuot
	endsName
	startsName
	blank
	escaped // when it is written
)

var classes = func() (t [256]uint8) {
	for c := range t {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
		if letter {
			t[c] |= startsName
		} else if !('0' <= c && c <= '9' || c == '-' || c == '.') {
			t[c] |= endsName
		}
		if c < ' ' || c >= utf8.RuneSelf || strings.ContainsRune("<>&'\"", rune(c)) {
			t[c] |= escaped
		}
		switch {
		case c == '\t' || c == '\n':
			t[c] |= blank | endsApos | endsQuot
		case c == '\r':
			t[c] |= blank | endsText | endsCDATA | endsApos | endsQuot
		case c < ' ':
			t[c] |= endsText | endsCDATA | endsApos | endsQuot
		}
	}
	t[' '] |= blank
	t['<'] |= endsText | endsApos | endsQuot
	t['&'] |= endsText | endsApos | endsQuot
	t[']'] |= endsText | endsCDATA
	t['\''] |= endsApos
	t['"'] |= endsQuot
	return t
}()

// run appends the bytes up to one of that class and returns that, not taken. It
// returns 0 at a fault.
func (s *scanner) run(ends uint8) byte {
	s.high = 0
	for {
		w := s.w[s.i:]
		n := 0
		var high byte
		for n < len(w) && classes[w[n]]&ends == 0 {
			high |= w[n]
			n++
		}
		s.text = append(s.text, w[:n]...)
		s.high |= high
		s.i += n
		if n < len(w) {
			return w[n]
		}
		if !s.fill() {
			return 0
		}
	}
}

// blanks takes whitespace and tells whether there was any.
func (s *scanner) blanks() bool {
	found := false
	for classes[s.peek()]&blank != 0 {
		s.i++
		found = true
	}
	return found
}

func (s *scanner) nextAfterBlanks() byte {
	c := s.next()
	for classes[c]&blank != 0 {
		c = s.next()
	}
	return c
}

// name appends a qualified name and returns where its local part begins.
func (s *scanner) name() int {
	from := len(s.text)
	if s.part() != ':' {
		return from
	}
	s.i++
	s.text = append(s.text, ':')
	local := len(s.text)
	s.part()
	return local
}

// part appends a name without a colon and returns what follows it.
func (s *scanner) part() byte {
	from := len(s.text)
	c := s.run(endsName)
	name := s.text[from:]
	if len(name) == 0 || classes[name[0]]&startsName == 0 || s.high >= utf8.RuneSelf && !isForeignName(string(name)) {
		s.fail(notWellFormed("%q is not a name", s.show(from, len(s.text))))
	}
	return c
}

// isForeignName asks encoding/xml, which has the tables, about a name with other
// letters than ASCII's. There are hardly any on the wire.
func isForeignName(name string) bool {
	_, err := xml.NewDecoder(strings.NewReader("<" + name + "/>")).RawToken()
	return err == nil
}

// value appends an attribute's value up to its quote. A literal tab, newline or
// carriage return counts as a space (XML 1.0 section 3.3.3).
func (s *scanner) value(quote byte, ends uint8) {
	from, high := len(s.text), byte(0)
	for {
		c := s.run(ends)
		high |= s.high
		switch c {
		case quote:
			s.i++
			s.checkRun(from, high)
			return
		case '&':
			s.i++
			s.reference()
		case '\t', '\n':
			s.i++
			s.text = append(s.text, ' ')
		case '\r':
			s.lineEnd(' ')
		case '<':
			s.fail(notWellFormed("there is a \"<\" in an attribute's value"))
		default:
			s.fail(errControl)
		}
		if s.err != nil {
			return
		}
	}
}

// chars appends text up to the next markup.
func (s *scanner) chars() {
	from, high := len(s.text), byte(0)
	for {
		c := s.run(endsText)
		high |= s.high
		switch c {
		case '<':
			s.checkRun(from, high)
			s.addText(from)
			return
		case '&':
			s.i++
			s.reference()
		case '\r':
			s.lineEnd('\n')
		case ']':
			if s.brackets() >= 2 && s.peek() == '>' {
				s.fail(notWellFormed("there is a \"]]>\" in text"))
			}
		default:
			s.fail(errControl)
		}
		if s.err != nil {
			return
		}
	}
}

// cdata appends the content of a CDATA section.
func (s *scanner) cdata() {
	from, high := len(s.text), byte(0)
	for {
		c := s.run(endsCDATA)
		high |= s.high
		switch c {
		case '\r':
			s.lineEnd('\n')
		case ']':
			if s.brackets() >= 2 && s.peek() == '>' {
				s.i++
				s.text = s.text[:len(s.text)-2]
				s.checkRun(from, high)
				s.addText(from)
				return
			}
		default:
			s.fail(errControl)
		}
		if s.err != nil {
			return
		}
	}
}

// brackets appends a run of "]" and returns how many they were.
func (s *scanner) brackets() int {
	n := 0
	for ; s.peek() == ']'; n++ {
		s.i++
		s.text = append(s.text, ']')
	}
	return n
}

// lineEnd takes a carriage return, with the newline if one follows, and appends
// instead (XML 1.0 section 2.11).
func (s *scanner) lineEnd(instead byte) {
	s.i++
	s.text = append(s.text, instead)
	if s.peek() == '\n' {
		s.i++
	}
}

// addText makes a node of the text from there on, or a part of the last node.
func (s *scanner) addText(from int) {
	if len(s.text) == from {
		return
	}
	if s.joins {
		s.nodes[len(s.nodes)-1].to = len(s.text)
		return
	}
	s.joins = true
	s.tags[s.at].children++
	s.nodes = append(s.nodes, node{parent: s.at, from: from, to: len(s.text)})
}

// reference appends what the reference stands for whose "&" was taken.
func (s *scanner) reference() {
	if s.peek() == '#' {
		s.i++
		s.characterReference()
		return
	}
	var name [5]byte
	n := 0
	for c := s.next(); c != ';'; c = s.next() {
		if n == len(name) {
			s.fail(errEntity)
			return
		}
		name[n] = c
		n++
	}
	switch string(name[:n]) {
	case "lt":
		s.text = append(s.text, '<')
	case "gt":
		s.text = append(s.text, '>')
	case "amp":
		s.text = append(s.text, '&')
	case "apos":
		s.text = append(s.text, '\'')
	case "quot":
		s.text = append(s.text, '"')
	default:
		s.fail(errEntity)
	}
}

func (s *scanner) characterReference() {
	base, c := rune(10), s.next()
	if c == 'x' {
		base, c = 16, s.next()
	}
	var r rune
	for ; c != ';'; c = s.next() {
		d := rune(16)
		switch {
		case '0' <= c && c <= '9':
			d = rune(c - '0')
		case 'a' <= c && c <= 'f':
			d = rune(c-'a') + 10
		case 'A' <= c && c <= 'F':
			d = rune(c-'A') + 10
		}
		if d >= base {
			s.fail(notWellFormed("a character reference is malformed"))
			return
		}
		r = min(r*base+d, utf8.MaxRune+1)
	}
	// Without a digit it is U+0000.
	if r < ' ' && r != '\t' && r != '\n' && r != '\r' || !utf8.ValidRune(r) || r == 0xFFFE || r == 0xFFFF {
		s.fail(notWellFormed("U+%04X is not a character of XML", r))
	}
	s.text = utf8.AppendRune(s.text, r)
}

var (
	errControl = notWellFormed("a control character is not a character of XML")
	errEntity  = notWellFormed("there are no entities but lt, gt, amp, apos and quot")
)

// checkRun refuses what isn't UTF-8 or, of that, no character of XML 1.0 (section
// 2.2); control characters don't get so far.
func (s *scanner) checkRun(from int, high byte) {
	if high < utf8.RuneSelf {
		return
	}
	b := s.text[from:]
	if !utf8.Valid(b) {
		s.fail(notWellFormed("this is not UTF-8"))
		return
	}
	for {
		i := bytes.Index(b, []byte("\xEF\xBF"))
		if i < 0 {
			return
		}
		if c := b[i+2]; c > 0xBD {
			s.fail(notWellFormed("U+FF%02X is not a character of XML", c+0x40))
			return
		}
		b = b[i+3:]
	}
}
