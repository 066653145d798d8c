package bench

import (
	"testing"
	"time"

	"mamlog/xep0313/stanza"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestContentsAreTheSameForASeed(t *testing.T) {
	x := newText(1)
	a, b := newContents(x, 5, "owner", 300, epoch), newContents(x, 5, "owner", 300, epoch)
	var first []message
	for m := range a.all() {
		first = append(first, *m)
	}
	i := 0
	for m := range b.all() {
		if *m != first[i] {
			t.Fatalf("message %d is %v, the first time it was %v", i, *m, first[i])
		}
		if sum(m.Body) != a.sums[i] {
			t.Fatalf("the sum of message %d is not that of its body", i)
		}
		i++
	}
	if i != 300 || len(first) != 300 {
		t.Fatalf("%d and %d messages, want 300", i, len(first))
	}
}

func TestRegularContacts(t *testing.T) {
	x := newText(1)
	for _, n := range []int{1, 3, 4, 1000, rareAt, rareAt + 1, 25_001} {
		c := newContents(x, 1, "owner", n, epoch)
		want := map[string][]int{}
		for m := range c.all() {
			want[m.Contact] = append(want[m.Contact], m.Index)
			want[""] = append(want[""], m.Index)
		}
		for _, contact := range []string{"", frequentContact, rareContact} {
			got := c.having(contact)
			if got.n != len(want[contact]) {
				t.Fatalf("%d messages: %q has %d, want %d", n, contact, got.n, len(want[contact]))
			}
			for i, index := range want[contact] {
				if got.at(i) != index {
					t.Fatalf("%d messages: message %d with %q is %d, want %d", n, i, contact, got.at(i), index)
				}
			}
		}
	}
}

func TestContentsOfAllSizesCoverTheSameTime(t *testing.T) {
	x := newText(1)
	for _, n := range []int{100, 1000, 10_000} {
		c := newContents(x, 1, "owner", n, epoch)
		if covered := epoch.Sub(c.start); covered < span-span/50 || covered > span {
			t.Errorf("%d messages cover %v, want %v", n, covered, span)
		}
		if c.at(n).After(epoch) {
			t.Errorf("%d messages end at %v, after now", n, c.at(n))
		}
	}
}

func TestInOrder(t *testing.T) {
	x := newText(1)
	all := []*contents{newContents(x, 1, "a", 7, epoch), newContents(x, 2, "b", 500, epoch), newContents(x, 3, "c", 31, epoch)}
	next := map[*contents]int{}
	var last time.Time
	for c, m := range inOrder(all) {
		if m.At.Before(last) {
			t.Fatalf("message %d of %s is of %v, after one of %v", m.Index, c.User, m.At, last)
		}
		if m.Index != next[c] {
			t.Fatalf("message %d of %s came where %d was due", m.Index, c.User, next[c])
		}
		last = m.At
		next[c]++
	}
	for _, c := range all {
		if next[c] != c.N {
			t.Errorf("%s has %d messages, want %d", c.User, next[c], c.N)
		}
	}
}

func TestMessagesAreStanzas(t *testing.T) {
	c := newContents(newText(1), 1, "owner", 200, epoch)
	for m := range c.all() {
		e, err := stanza.Parse([]byte(m.xml("owner", host, true)))
		if err != nil {
			t.Fatal(err)
		}
		from, to := m.addresses("owner", host)
		if e.Attr("from") != from || e.Attr("to") != to || e.Attr("id") != stanzaID(uint64(m.Index)) {
			t.Fatalf("message %d is %s", m.Index, e.Bytes())
		}
		if n, ok := sequenceNumber([]byte(e.Attr("id"))); !ok || n != uint64(m.Index) {
			t.Fatalf("the id %s is read as %d", e.Attr("id"), n)
		}
	}
}
