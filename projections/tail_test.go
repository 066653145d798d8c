package projections

import (
	"fmt"
	"sync"
	"testing"

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
