package admit

import "sync"

// Bound is how many places each key may hold at once.
type Bound struct {
	max int

	mu   sync.Mutex
	held map[string]int // none is zero
}

// NewBound returns a Bound of max places a key.
func NewBound(max int) *Bound { return &Bound{max: max, held: make(map[string]int)} }

// Enter takes a place for key; false if it holds max already.
func (b *Bound) Enter(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[key] >= b.max {
		return false
	}
	b.held[key]++
	return true
}

// Leave gives n places back that Enter took for key.
func (b *Bound) Leave(key string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[key] -= n; b.held[key] <= 0 {
		delete(b.held, key)
	}
}
