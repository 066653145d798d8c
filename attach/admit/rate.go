package admit

import (
	"net/netip"
	"sync"
	"time"
)

// maxAddresses bounds the memory of a Rate. Beyond it, new addresses share one
// count: who has that many addresses shall not get around the limit by them.
const maxAddresses = 1 << 16

// Rate counts by address, anew each minute.
type Rate struct {
	max int
	now func() time.Time

	mu    sync.Mutex
	since time.Time
	count map[netip.Prefix]int
	rest  int // of the addresses that are not in count
}

// NewRate returns a Rate of max events a minute and address; now may be nil for
// the wall clock.
func NewRate(max int, now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	return &Rate{max: max, now: now, count: make(map[netip.Prefix]int)}
}

// Note counts an event of address, which is host:port.
func (r *Rate) Note(address string) {
	p := network(address)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if _, known := r.count[p]; known || len(r.count) < maxAddresses {
		r.count[p]++
	} else {
		r.rest++
	}
}

// Exceeded tells whether address has had its events for this minute.
func (r *Rate) Exceeded(address string) bool {
	p := network(address)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if n, known := r.count[p]; known {
		return n >= r.max
	}
	return r.rest >= r.max
}

// turn begins a new minute. mu is held.
func (r *Rate) turn() {
	if now := r.now(); now.Sub(r.since) >= time.Minute || now.Before(r.since) {
		r.since, r.rest = now, 0
		clear(r.count)
	}
}

// network is the address alone, of IPv6 the 64 bits that one customer has. What
// is no address is one of its own.
func network(address string) netip.Prefix {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
