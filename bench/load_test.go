package bench

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pair is a sender with one recipient, of a server with an archive, neither of
// which is connected.
func testPair() (*load, *recipient) {
	l := &load{system: &system{contender: embedded}, failed: make(chan struct{}), bodies: []string{"hello", "world"}}
	s := &sender{}
	r := &recipient{user: "r", bare: "r@bench.example", from: s}
	s.to = []*recipient{r}
	s.intended = make([]atomic.Int64, 8)
	return l, r
}

func delivery(seq uint64, body, by string) []byte {
	return []byte("<message id='" + stanzaID(seq) + "'><body>" + body + "</body><stanza-id id='1' by='" + by + "'/></message>")
}

func TestWhatCounts(t *testing.T) {
	l, r := testPair()
	if err := l.take(r, delivery(0, "hello", r.bare)); err != nil || l.delivered.Load() != 1 {
		t.Fatalf("a right message: %v", err)
	}
	for name, c := range map[string]struct {
		message []byte
		want    string
	}{
		"another body":              {delivery(1, "hello", r.bare), "another body"},
		"somebody else's id":        {delivery(1, "world", "s@bench.example"), "without an id"},
		"no id":                     {[]byte("<message id='" + stanzaID(1) + "'><body>world</body></message>"), "without an id"},
		"a message twice":           {delivery(0, "hello", r.bare), "where message 1 was due"},
		"a message is missing":      {delivery(2, "hello", r.bare), "where message 1 was due"},
		"something else":            {[]byte("<message id='x'><body>world</body></message>"), "got"},
		"an error":                  {[]byte("<message type='error' id='" + stanzaID(1) + "'/>"), "another body"},
		"an id of the archive only": {[]byte("<message id='" + stanzaID(1) + "'><body>world</body><stanza-id by='r@bench.example'/></message>"), "without an id"},
	} {
		next, got := r.next, r.got
		if err := l.take(r, c.message); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		r.next, r.got = next, got
	}
	if l.delivered.Load() != 1 {
		t.Errorf("%d messages counted", l.delivered.Load())
	}
}

func TestLatencyIsFromTheIntendedMoment(t *testing.T) {
	l, r := testPair()
	r.latency = newHistogram()
	// It was to be sent 20 ms ago, whenever it was.
	r.from.intended[0].Store(monotonic() - (20 * time.Millisecond).Nanoseconds())
	if err := l.take(r, delivery(0, "hello", r.bare)); err != nil {
		t.Fatal(err)
	}
	if got := milliseconds(r.latency, 50); r.latency.TotalCount() != 1 || got < 19.9 {
		t.Errorf("a latency of %v ms, counted %d times", got, r.latency.TotalCount())
	}
}
