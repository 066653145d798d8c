package projections

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// While messages move from the tail into the engine, readers see each of them once and
// in order, in the archive and in its conversations, whichever way they walk.
func TestReadersSeeTheTailOnce(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{tail: 3000})
	defer s.Close()
	defer l.Close()
	const total = 3000
	var ids []ulid.ULID
	var acked sync.RWMutex
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := range total / 20 {
			more := archive(t, l, c, "a@h", fmt.Sprintf("peer%d@h/x", n%3), 20)
			acked.Lock()
			ids = append(ids, more...)
			acked.Unlock()
		}
	}()
	var readers sync.WaitGroup
	for r, with := range []string{"", "", "peer1@h", "peer1@h/x"} {
		readers.Go(func() {
			for done := false; !done; {
				select {
				case <-written:
					done = true
				default:
				}
				acked.RLock()
				known := len(ids)
				acked.RUnlock()
				q := Query{Class: c, Owner: "a@h", With: with, Max: 37, Backward: r%2 == 1}
				var seen []ulid.ULID
				count := -1
				for {
					page, err := s.Query(q)
					if err != nil {
						t.Error(err)
						return
					}
					if count < 0 {
						if count = page.Count; with == "" && count < known {
							t.Errorf("a count of %d when %d were acknowledged", count, known)
							return
						}
					}
					if page.Len > 0 && page.Rows[0].ID != page.First {
						t.Errorf("a page from %s begins with %s", page.First, page.Rows[0].ID)
						return
					}
					for i := range page.Rows {
						row := page.Rows[i]
						if q.Backward {
							row = page.Rows[len(page.Rows)-1-i]
						}
						seen = append(seen, row.ID)
					}
					if page.Complete || page.Len == 0 {
						break
					}
					if q.PageAfter = page.Last; q.Backward {
						q.PageAfter, q.PageBefore = ulid.ULID{}, page.First
					}
				}
				for i := 1; i < len(seen); i++ {
					if order := seen[i].Compare(seen[i-1]); order == 0 || order > 0 == q.Backward {
						t.Errorf("with %q %s comes after %s", with, seen[i], seen[i-1])
						return
					}
				}
				if len(seen) < count {
					t.Errorf("with %q a walk saw %d of %d", with, len(seen), count)
					return
				}
			}
		})
	}
	readers.Wait()
	<-written
	all, err := s.Query(Query{Class: c, Owner: "a@h", Max: total + 1})
	if err != nil || all.Len != total || len(ids) != total {
		t.Fatalf("%d of %d messages, %v", all.Len, total, err)
	}
	for i, row := range all.Rows {
		if row.ID != ids[i] {
			t.Fatalf("message %d is %s, want %s", i, row.ID, ids[i])
		}
	}
	if r, err := s.Check(t.Context(), nil); err != nil || r.Differences != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What is in the engine and not yet gone from the tail is seen once, wherever a reader
// begins and in both directions: also a chunk of which the tail has only the newer half.
func TestOverlapOfTailAndEngine(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	ids := archive(t, l, c, "a@h", "b@h/x", 21)
	if err := s.settleTail(); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, archive(t, l, c, "a@h", "b@h/x", 40)...)
	if err := l.Await(); err != nil {
		t.Fatal(err)
	}
	full := s.rows.tail.parts[0]
	b := s.rows.db.NewBatch()
	if err := errors.Join(full.write(b, s.rows.position), b.Commit(pebble.NoSync)); err != nil {
		t.Fatal(err)
	}
	defer s.rows.tail.drop(full) // it is written
	see := func(q Query, want []ulid.ULID, index int) {
		t.Helper()
		q.Class, q.Owner = c, "a@h"
		page, err := s.Query(q)
		var got []ulid.ULID
		for _, row := range page.Rows {
			got = append(got, row.ID)
		}
		if err != nil || !slices.Equal(got, want) || page.Count != len(ids) || len(want) > 0 && page.Index != index {
			t.Errorf("%+v: %d messages from %d of %d, %v; want %d from %d", q, len(got), page.Index, page.Count, err, len(want), index)
		}
	}
	for _, with := range []string{"", "b@h", "b@h/x"} {
		see(Query{With: with, Max: 100}, ids, 0)
		see(Query{With: with, Max: 100, Backward: true}, ids, 0)
		for n := range ids {
			from := max(0, n-7)
			see(Query{With: with, Max: 7, PageAfter: ids[n]}, ids[n+1:min(len(ids), n+8)], n+1)
			see(Query{With: with, Max: 7, PageBefore: ids[n], Backward: true}, ids[from:n], from)
			see(Query{With: with, Max: 3, Index: n}, ids[n:min(len(ids), n+3)], n)
		}
	}
}

// What a reader has does not change while the tail is written and grows again.
func TestReadersKeepTheTail(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	archive(t, l, c, "first@h", "b@h/x", 1) // of the class: it is written at once, with the width
	ids := archive(t, l, c, "a@h", "b@h/x", 20)
	var seen []ulid.ULID
	_, err := s.Visit(Query{Class: c, Owner: "a@h", Max: 100}, func(row *Row) error {
		if len(seen) == 0 {
			for range 2 {
				if err := s.settleTail(); err != nil {
					return err
				}
				archive(t, l, c, "another@h", "b@h/x", 30)
			}
		}
		if want := fmt.Sprintf("<message>%d</message>", len(seen)); string(row.Stanza) != want {
			t.Errorf("message %d is %s", len(seen), row.Stanza)
		}
		seen = append(seen, row.ID)
		return nil
	})
	if err != nil || !slices.Equal(seen, ids) {
		t.Errorf("%v: %d messages that are not the %d", err, len(seen), len(ids))
	}
}
