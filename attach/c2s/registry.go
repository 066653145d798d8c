package c2s

import (
	"sync"

	"mamlog/xep0313/stanza"
)

// registry knows the sessions with a bound resource. Its lock also guards what
// others need to know of a session (the group of fields in session says so).
//
// Whoever changes a presence and tells others does both under one hold of mu:
// otherwise somebody might be told of a state that is over, and never again.
// Nothing blocks under it: putting bytes into an outbox does not.
type registry struct {
	mu     sync.RWMutex
	byBare map[string]map[string]*session // bare JID, resource
}

// add enters x, unless its resource is taken: then it returns who has it.
func (r *registry) add(x *session) (taken *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.byBare[x.bare]
	if m == nil {
		m = make(map[string]*session)
		r.byBare[x.bare] = m
	}
	if other := m[x.resource]; other != nil {
		return other
	}
	m[x.resource] = x
	return nil
}

// removeLocked takes x out. mu is held.
func (r *registry) removeLocked(x *session) {
	m := r.byBare[x.bare]
	if m[x.resource] != x {
		return
	}
	if delete(m, x.resource); len(m) == 0 {
		delete(r.byBare, x.bare)
	}
}

// of returns the sessions of an account.
func (r *registry) of(bare string) []*session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var xs []*session
	for _, x := range r.byBare[bare] {
		xs = append(xs, x)
	}
	return xs
}

func (r *registry) online(bare string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byBare[bare]) > 0
}

// has tells whether a resource is bound.
func (r *registry) has(bare, resource string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byBare[bare][resource] != nil
}

func (r *registry) all() []*session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var xs []*session
	for _, m := range r.byBare {
		for _, x := range m {
			xs = append(xs, x)
		}
	}
	return xs
}

func (r *registry) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := 0
	for _, m := range r.byBare {
		n += len(m)
	}
	return n
}

// toFull puts b into the queue of one resource; false if it isn't there.
func (r *registry) toFull(bare, resource string, b []byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	x := r.byBare[bare][resource]
	if x != nil {
		x.out.put(b)
	}
	return x != nil
}

// toEachLocked builds a stanza for each session of bare that which names, with
// its full JID as the address. mu is held, for reading at least.
func (r *registry) toEachLocked(bare string, which func(*session) bool, e *stanza.Element) {
	for _, x := range r.byBare[bare] {
		if which(x) {
			c := *e
			c.Attrs = append([]stanza.Attr(nil), e.Attrs...)
			c.SetAttr("to", x.full)
			x.out.put(c.Bytes())
		}
	}
}

func (x *session) isAvailable() bool  { return x.presence != nil }
func (x *session) isInterested() bool { return x.interested }
