package component

import (
	"bufio"
	"bytes"
	"io"

	"mamlog/xep0313/stanza"
)

// frames cuts a stream of XML into its top-level elements, by counting tags. So
// one element at a time can be parsed, and one that is too large or refused costs
// only itself and not the stream.
type frames struct {
	in    *bufio.Reader
	limit int // bytes of one frame; of a larger one the rest is skipped

	state   place
	depth   int
	closing bool // the tag is an end tag
	quote   byte // that the tag is in, 0 for none
	last    byte // of the tag until now
	match   int  // bytes of "<![CDATA[", or of "]]", that were just seen
	buf     []byte
}

// place is where in the XML the next byte stands.
type place uint8

const (
	inText  place = iota
	opening       // behind a '<'
	inTag
	marking // in what may become a CDATA section
	inCDATA
)

// frame is one top-level element as it was sent.
type frame struct {
	bytes []byte // valid until the next call of next
	large bool   // larger than the limit; bytes are the beginning
}

const beginCDATA = "<![CDATA["

// next returns the next element. It returns io.EOF at an end tag that closes
// nothing, which is the stream's, and io.ErrUnexpectedEOF where the input ends.
func (f *frames) next() (frame, error) {
	if err := f.skipSpace(); err != nil {
		return frame{}, unexpected(err)
	}
	f.buf = f.buf[:0]
	f.state, f.depth = inText, 0
	large := false
	for {
		if _, err := f.in.Peek(1); err != nil {
			return frame{}, unexpected(err)
		}
		b, err := f.in.Peek(f.in.Buffered())
		if err != nil {
			return frame{}, err
		}
		n, done, err := f.scan(b)
		if err != nil {
			return frame{}, err
		}
		if room := f.limit - len(f.buf); n > room {
			f.buf, large = append(f.buf, b[:room]...), true
		} else {
			f.buf = append(f.buf, b[:n]...)
		}
		if _, err := f.in.Discard(n); err != nil {
			return frame{}, err
		}
		if done {
			return frame{f.buf, large}, nil
		}
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// skipSpace skips what keeps a connection alive between two elements.
func (f *frames) skipSpace() error {
	for {
		c, err := f.in.ReadByte()
		if err != nil {
			return err
		}
		switch c {
		case ' ', '\t', '\r', '\n':
		case '<':
			return f.in.UnreadByte()
		default:
			return &stanza.StreamError{Condition: "bad-format", Text: "there is text between two stanzas"}
		}
	}
}

// scan goes on through b, and returns how much of it belongs to the element and
// whether that is its end.
func (f *frames) scan(b []byte) (n int, done bool, err error) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch f.state {
		case inText:
			j := bytes.IndexByte(b[i:], '<')
			if j < 0 {
				return len(b), false, nil
			}
			i += j
			f.state = opening
		case opening:
			f.closing, f.quote, f.last = c == '/', 0, c
			switch {
			case f.closing && f.depth == 0:
				return 0, false, io.EOF
			case c == '!' && f.depth > 0:
				f.state, f.match = marking, len("<!")
			case c == '!' || c == '?':
				return 0, false, errRestricted
			default:
				f.state = inTag
			}
		case marking:
			if c != beginCDATA[f.match] {
				return 0, false, errRestricted
			}
			if f.match++; f.match == len(beginCDATA) {
				f.state, f.match = inCDATA, 0
			}
		case inCDATA:
			switch {
			case c == ']':
				f.match = min(f.match+1, len("]]"))
			case c == '>' && f.match == len("]]"):
				f.state = inText
			default:
				f.match = 0
			}
		case inTag:
			switch {
			case c == f.quote:
				f.quote = 0
			case f.quote != 0:
			case c == '\'' || c == '"':
				f.quote = c
			case c == '>':
				f.state = inText
				switch {
				case f.closing:
					f.depth--
				case f.last != '/':
					f.depth++
				}
				if f.depth == 0 {
					return i + 1, true, nil
				}
			}
			f.last = c
		}
	}
	return len(b), false, nil
}

var errRestricted = &stanza.StreamError{Condition: "restricted-xml", Text: "only elements and text are allowed"}

// startTags returns where the start tag ends that b begins with, and where that of
// its first child does, if it begins with one; 0 for what isn't there as a whole.
func startTags(b []byte) (outer, inner int) {
	outer = startTag(b)
	if outer < 2 || b[outer-2] == '/' {
		return outer, 0
	}
	child := bytes.TrimLeft(b[outer:], " \t\r\n")
	n := startTag(child)
	if n < 2 || child[1] == '/' || child[1] == '!' {
		return outer, 0
	}
	return outer, len(b) - len(child) + n
}

// startTag returns the length of the start tag that b begins with, 0 if it doesn't
// begin with a whole one.
func startTag(b []byte) int {
	if len(b) == 0 || b[0] != '<' {
		return 0
	}
	var quote byte
	for i, c := range b {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return 0
}
