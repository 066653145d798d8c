package c2s

import "sync"

// answer is what the archive says to one request, a page of results above all. Its
// memory serves one request after another: there is nothing that a server makes
// more garbage with.
type answer struct {
	bytes []byte
	ends  []int // of each element, in bytes
	parts [][]byte
}

var answers = sync.Pool{New: func() any { return new(answer) }}

// maxAnswer is how much memory an answer may keep.
const maxAnswer = 256 << 10

func newAnswer() *answer { return answers.Get().(*answer) }

// add appends a copy of one element.
func (a *answer) add(element []byte) {
	a.bytes = append(a.bytes, element...)
	a.ends = append(a.ends, len(a.bytes))
}

// elements are all that were added.
func (a *answer) elements() [][]byte {
	from := 0
	for _, to := range a.ends {
		a.parts = append(a.parts, a.bytes[from:to:to])
		from = to
	}
	return a.parts
}

// recycle lets the memory be that of another answer.
func (a *answer) recycle() {
	if cap(a.bytes) > maxAnswer {
		return
	}
	a.bytes, a.ends, a.parts = a.bytes[:0], a.ends[:0], a.parts[:0]
	answers.Put(a)
}
