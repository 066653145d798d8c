package c2s

import (
	"fmt"
	"testing"

	"mamlog/xep0313"
)

// A message lands when its store brings it, also before an earlier one that went
// into another store; what only waits lands when all before it have.
func TestFlightsLand(t *testing.T) {
	f := newFlights(10)
	var landed []string
	add := func(name string) *flight {
		return f.add(true, func(xep0313.Delivery) bool { landed = append(landed, name); return false })
	}
	behind := func(name string) {
		f.behind(func() bool { landed = append(landed, name); return false })
	}
	behind("at once")
	a, b := add("a"), add("b")
	behind("after a and b")
	c := add("c")
	behind("after c")
	b.arrive(xep0313.Delivery{})
	c.arrive(xep0313.Delivery{})
	a.arrive(xep0313.Delivery{})
	if got, want := fmt.Sprint(landed), "[at once b c a after a and b after c]"; got != want {
		t.Errorf("landed %s, want %s", got, want)
	}
	if f.busy != 0 || f.queue != nil {
		t.Errorf("%d are busy, %d queued", f.busy, len(f.queue))
	}
}
