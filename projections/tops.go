package projections

import "sync"

// tops remembers the number of rows in buckets that are not the newest of their
// class, by prefix. Those grow by imports only, so that a count over many buckets
// need not look into each of them again.
type tops struct {
	mu    sync.Mutex
	known map[string]uint64
	turn  uint64 // counts what changed old buckets
}

const maxTops = 1 << 16

func (t *tops) get(prefix []byte) (n uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok = t.known[string(prefix)]
	return n, ok
}

// now is what set is to be given: what is read from then on.
func (t *tops) now() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.turn
}

// set notes what was read, unless an old bucket was changed since.
func (t *tops) set(turn uint64, prefix []byte, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn != turn {
		return
	}
	if t.known == nil || len(t.known) >= maxTops {
		t.known = make(map[string]uint64)
	}
	t.known[string(prefix)] = n
}

// forget drops everything. It is called before and after a change of old buckets
// becomes visible.
func (t *tops) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn++
	t.known = nil
}
