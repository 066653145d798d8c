package xep0313

import (
	"context"
	"fmt"
	"testing"
	"time"

	"mamlog/xep0313/stanza"
)

// inFlight appends the batches that sides makes, a number of them at once, and
// reports how many sides that is a second.
func (f *fixture) inFlight(b *testing.B, size int, sides func(n int) []Side) {
	batches := make([][]Side, b.N)
	for n := range batches {
		batches[n] = sides(n)
	}
	slots := make(chan struct{}, 16)
	b.ResetTimer()
	for _, batch := range batches {
		slots <- struct{}{}
		if err := f.Append(batch, func(o []Outcome) {
			for _, o := range o {
				if o.Err != nil || o.ID == zeroID {
					b.Error(o)
				}
			}
			<-slots
		}); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "sides/s")
}

// Batches as a link brings them, without a network and without a disk.
func BenchmarkAppend(b *testing.B) {
	f := newFixture(b, DefaultOptions(), nil)
	const size = 256
	f.inFlight(b, size, func(n int) []Side {
		sides := make([]Side, 0, size)
		for i := range size / 2 {
			s := f.side(out, fmt.Sprintf("u%d@test.example", (n+i)%1000), fmt.Sprintf("u%d@test.example", (n+2*i+1)%1000), "Shall I compare thee to a summer's day?")
			s.Key = fmt.Sprint(n, i)
			r := Side{Owner: s.Peer, Peer: s.Owner, Direction: in, Stanza: s.Stanza, Key: s.Key + "r"}
			if s.Peer.Equal(s.Owner) {
				r.Owner = jidOf("other@test.example")
			}
			sides = append(sides, s, r)
		}
		return sides
	})
}

func BenchmarkImport(b *testing.B) {
	f := newFixture(b, DefaultOptions(), nil)
	const size = 256
	start := time.Now().Add(-48 * time.Hour)
	f.inFlight(b, size, func(n int) []Side {
		sides := make([]Side, size)
		for i := range sides {
			sides[i] = f.side(in, "juliet@test.example", romeo, "Shall I compare thee to a summer's day?")
			sides[i].Import, sides[i].Key = true, fmt.Sprint("mam:", n, i)
			sides[i].Stamp = start.Add(time.Duration(n*size+i) * time.Millisecond)
		}
		return sides
	})
}

// A page of 50, of an account and of a room whose senders are shown.
func BenchmarkPage(b *testing.B) {
	f := newFixture(b, DefaultOptions(), nil)
	var sides []Side
	for i := range 1000 {
		m := f.room(verona+fmt.Sprintf("/nick%d", i%20), "Shall I compare thee to a summer's day?")
		m.Sender = jidOf(romeo)
		sides = append(sides, f.side(in, "juliet@test.example", romeo, "Shall I compare thee to a summer's day?"), m)
	}
	f.append(sides...)
	page := func(ask func(iq *stanza.Element, emit func([]byte)) bool) func(*testing.B) {
		return func(b *testing.B) {
			iq := f.parse("<iq type='set' id='1'>" + queryXML(nil, "<max>50</max><before/>") + "</iq>")
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if !ask(iq, func([]byte) { n++ }) || n != 51 {
					b.Fatalf("%d stanzas", n)
				}
			}
		}
	}
	b.Run("account", page(func(iq *stanza.Element, emit func([]byte)) bool {
		return f.HandleIQ(context.Background(), iq, jidOf(juliet), emit)
	}))
	b.Run("room", page(func(iq *stanza.Element, emit func([]byte)) bool {
		return f.HandleRoomIQ(context.Background(), jidOf(verona), jidOf(juliet), RealJIDsAll, iq, emit)
	}))
}
