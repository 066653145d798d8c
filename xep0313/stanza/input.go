package stanza

import (
	"bufio"
	"bytes"
	"io"
	"math"
)

// ByteReader is what a Reader reads from. The Reader takes no byte from it
// beyond the element that it returns: a *bufio.Reader or a *bytes.Buffer it looks
// ahead in, from anything else it takes single bytes, which costs more.
type ByteReader interface {
	io.Reader
	io.ByteReader
}

// ahead is a source that shows bytes without giving them away, as *bufio.Reader
// does.
type ahead interface {
	Peek(n int) ([]byte, error)
	Buffered() int
	Discard(n int) (int, error)
}

type buffer struct{ *bytes.Buffer }

func (b buffer) Buffered() int              { return b.Len() }
func (b buffer) Discard(n int) (int, error) { return len(b.Next(n)), nil }

// input is a window on a source. What it waits for, it waits for one byte at a
// time, so the caller learns of a fault as soon as the byte is there that makes it
// one. The first fault stays.
type input struct {
	src   io.ByteReader
	ahead ahead // src, unless it has to be read byte by byte
	one   [1]byte

	w      []byte // the window
	i      int    // of which so much is taken
	left   int    // how many bytes may follow the window
	inside bool   // an element, so that the source must not end
	err    error
}

var errTooLarge = &StreamError{"policy-violation", "the stanza is too large"}

func newInput(r ByteReader) input {
	in := input{src: r}
	switch r := r.(type) {
	case *bufio.Reader:
		in.ahead = r
	case *bytes.Buffer:
		in.ahead = buffer{r}
	}
	return in
}

// between is called before each element; nothing bounds the whitespace there.
func (in *input) between() { in.left, in.inside = math.MaxInt, false }

// begin is called before the first byte of an element that may have limit bytes.
func (in *input) begin(limit int) {
	rest := max(0, min(len(in.w)-in.i, limit))
	in.w = in.w[:in.i+rest]
	in.left, in.inside = limit-rest, true
}

// peek returns the next byte and does not take it; 0 is a fault, if only that a
// NUL is never allowed.
func (in *input) peek() byte {
	if in.i == len(in.w) && !in.fill() {
		return 0
	}
	return in.w[in.i]
}

// next is peek that takes the byte.
func (in *input) next() byte {
	c := in.peek()
	if c != 0 {
		in.i++
	}
	return c
}

// fill replaces the window, all of which is taken, by one of at least one byte.
func (in *input) fill() bool {
	if in.err != nil {
		return false
	}
	in.release()
	if in.left == 0 {
		in.err = errTooLarge
		return false
	}
	if in.ahead != nil {
		in.w, in.err = in.ahead.Peek(max(1, in.ahead.Buffered()))
	} else if in.one[0], in.err = in.src.ReadByte(); in.err == nil {
		in.w = in.one[:]
	}
	if in.err != nil {
		if in.w = nil; in.err == io.EOF && in.inside {
			in.err = io.ErrUnexpectedEOF
		}
		return false
	}
	in.w = in.w[:min(len(in.w), in.left)]
	in.left -= len(in.w)
	return true
}

// release takes from the source what was taken from the window.
func (in *input) release() {
	if in.ahead != nil {
		in.ahead.Discard(in.i) // no more than it has shown, so it can't fail
	}
	in.w, in.i = nil, 0
}

// fail notes a fault, unless there is one already.
func (in *input) fail(err error) {
	if in.err == nil {
		in.err = err
	}
}
