package admit

import (
	"fmt"
	"testing"
	"time"
)

func TestBound(t *testing.T) {
	b := NewBound(2)
	for i, want := range []bool{true, true, false} {
		if got := b.Enter("juliet"); got != want {
			t.Errorf("place %d: %v", i+1, got)
		}
	}
	if !b.Enter("romeo") {
		t.Error("another key has no place")
	}
	b.Leave("juliet", 1)
	if !b.Enter("juliet") || b.Enter("juliet") {
		t.Error("one place was given back, and not one can be taken")
	}
	b.Leave("juliet", 2)
	b.Leave("romeo", 1)
	if len(b.held) != 0 {
		t.Errorf("remembered after they left: %v", b.held)
	}
}

func TestRate(t *testing.T) {
	now := time.Unix(1000, 0)
	r := NewRate(2, func() time.Time { return now })
	note := func(address string, want bool) {
		t.Helper()
		r.Note(address)
		if got := r.Exceeded(address); got != want {
			t.Errorf("%s: exceeded %v, want %v", address, got, want)
		}
	}
	note("192.0.2.1:1000", false)
	note("192.0.2.1:2000", true)
	note("192.0.2.2:1000", false)
	note("[::ffff:192.0.2.2]:1", true) // the same one
	note("[2001:db8:0:1::1]:1", false)
	note("[2001:db8:0:1:ffff::2%eth0]:1", true)
	note("[2001:db8:0:2::1]:1", false)
	note("somewhere", false)
	note("elsewhere", true)
	now = now.Add(59 * time.Second)
	if !r.Exceeded("192.0.2.1:3000") {
		t.Error("forgotten within the minute")
	}
	now = now.Add(time.Second)
	if r.Exceeded("192.0.2.1:3000") {
		t.Error("remembered after the minute")
	}
	now = now.Add(-time.Hour) // a clock that was set back must not lock anybody out for an hour
	note("192.0.2.1:1000", false)
}

func TestRateIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	r := NewRate(2, func() time.Time { return now })
	for i := range maxAddresses + 2 {
		r.Note(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if len(r.count) != maxAddresses {
		t.Errorf("%d addresses are remembered", len(r.count))
	}
	if !r.Exceeded("192.0.2.1:1") {
		t.Error("whoever has many addresses gets around the limit")
	}
	if r.Exceeded("10.0.0.0:1") {
		t.Error("one that was counted by itself suffers for the others")
	}
}
