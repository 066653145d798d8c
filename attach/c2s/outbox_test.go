package c2s

import (
	"bytes"
	"fmt"
	"testing"
)

// An answer's memory is another's only when it was written.
func TestAnswersKeepUntilWritten(t *testing.T) {
	o := newOutbox(1<<20, func() { t.Error("the outbox is full") })
	put := func(n int) {
		a := newAnswer()
		for i := range 3 {
			a.add(fmt.Appendf(nil, "<%d-%d/>", n, i))
		}
		o.putAnswer(a)
	}
	want := func(batch [][]byte, answers ...int) {
		t.Helper()
		var all string
		for _, n := range answers {
			all += fmt.Sprintf("<%[1]d-0/><%[1]d-1/><%[1]d-2/>", n)
		}
		if got := string(bytes.Join(batch, nil)); got != all {
			t.Fatalf("got %s, want %s", got, all)
		}
	}
	var batch [][]byte
	for n := 0; n < 100; n += 4 {
		put(n)
		put(n + 1)
		batch, _ = o.take(batch)
		put(n + 2)
		want(batch, n, n+1)
		o.wrote(batch)
		batch, _ = o.take(batch)
		put(n + 3)
		want(batch, n+2)
		o.wrote(batch)
		batch, _ = o.take(batch)
		want(batch, n+3)
		o.wrote(batch)
	}
	if o.bytes != 0 {
		t.Errorf("%d bytes are left on the account", o.bytes)
	}
}
