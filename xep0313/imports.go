package xep0313

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// imports knows, of each archive that messages are being imported into, what the
// rows do not show yet. An owner is in it while imports of theirs are in flight.
type imports struct {
	active atomic.Int64 // owners; it spares everybody else the lock
	mu     sync.Mutex
	owners map[string]*importing
}

// importing is one archive. Its fields are written by imports under the owner's
// stripe, which they hold for writing, apart from users and live.
type importing struct {
	owner string
	last  ulid.ULID // the archive's greatest id, in its rows or given out
	clear uint64    // no live message in the rows is of a later millisecond
	ahead bool      // an import under its record's id is in flight: greater than last

	users int  // appends that hold it; under imports.mu
	live  bool // a message that isn't an import is in flight; written under imports.mu and the stripe
}

// live notes that a message, which is no import, goes into owner's archive. The
// caller holds the owner's stripe.
func (i *imports) live(owner string) {
	if i.active.Load() == 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if e := i.owners[owner]; e != nil {
		e.live = true
	}
}

// hold returns owner's entry, nil if there is none; it stays until release.
func (i *imports) hold(owner string) *importing {
	i.mu.Lock()
	defer i.mu.Unlock()
	e := i.owners[owner]
	if e != nil {
		e.users++
	}
	return e
}

func (i *imports) add(e *importing) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.owners == nil {
		i.owners = make(map[string]*importing)
	}
	e.users = 1
	i.owners[e.owner] = e
	i.active.Store(int64(len(i.owners)))
}

func (i *imports) release(held []*importing) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range held {
		if e.users--; e.users == 0 && i.owners[e.owner] == e {
			delete(i.owners, e.owner)
		}
	}
	i.active.Store(int64(len(i.owners)))
}

// forget lets what is known of owner's archive be read anew: it was deleted.
func (i *imports) forget(owner string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.owners, owner)
	i.active.Store(int64(len(i.owners)))
}

// beginImports gives each import among sides its archive's entry. The caller
// holds the owners' stripes for writing, and releases what is held when the
// imports are in the rows.
func (a *Archive) beginImports(sides []side) (held []*importing, err error) {
	defer func() {
		if err != nil {
			a.imports.release(held)
			held = nil
		}
	}()
	var waited []*log.Log
	for i := range sides {
		s := &sides[i]
		if !s.Import {
			continue
		}
		n := slices.IndexFunc(held, func(e *importing) bool { return e.owner == s.owner })
		if n >= 0 {
			s.importing = held[n]
			continue
		}
		if s.importing = a.imports.hold(s.owner); s.importing == nil {
			if !slices.Contains(waited, s.host.Log) {
				// After this the rows show all that was queued for the owners before.
				if err := s.host.Log.Settle(context.Background()); err != nil {
					return held, err
				}
				waited = append(waited, s.host.Log)
			}
			_, last, _, err := s.host.Archives.Bounds(s.host.class, s.owner, time.Time{}, ulid.ULID{})
			if err != nil {
				return held, err
			}
			// What was cut off is not to be filled anew.
			floor, err := s.host.Archives.Floor(s.host.class, s.owner)
			if err != nil {
				return held, err
			}
			if floor.Compare(last.ID) > 0 {
				last.ID = floor
			}
			s.importing = &importing{owner: s.owner, last: last.ID, clear: math.MaxUint64}
			a.imports.add(s.importing)
		}
		held = append(held, s.importing)
	}
	return held, nil
}

// place gives the event of an import its archive id: of its time, and greater
// than all that the archive has. known is the id under which it was appended
// before, if it was.
func (a *Archive) place(s *side, event *log.MessageArchived) (known ulid.ULID, err error) {
	e := s.importing
	deleted, err := a.projections.DeletedAt(s.owner)
	if err != nil {
		return known, err
	}
	if deleted.Compare(e.last) > 0 {
		e.last = deleted // what comes up to there is hidden
	}
	if ms := uint64(max(s.Stamp.UnixMilli(), 0)); e.live || ms < e.last.Time() {
		// Out of order, unless it is a repeat.
		if known, err = a.appended(s); err != nil || known != (ulid.ULID{}) {
			return known, err
		}
		newer, err := a.liveAfter(s, ms)
		if err != nil {
			return known, err
		}
		if newer {
			return known, &stanza.Error{
				Type: "cancel", Condition: "conflict",
				Text: "the archive holds a newer message that was not imported",
			}
		}
	}
	id, ok := s.host.Log.Clock().Past(s.Stamp, e.last)
	if !ok || e.ahead {
		e.ahead = true
		return known, nil
	}
	e.last, event.ArchiveId = id, id[:]
	if event.SentUnixMs == int64(id.Time()) {
		event.SentUnixMs = 0
	}
	return known, nil
}

// liveAfter tells whether the archive has a message that was not imported and is
// of a later millisecond than ms.
func (a *Archive) liveAfter(s *side, ms uint64) (bool, error) {
	e := s.importing
	if e.live {
		return true, nil
	}
	if ms >= e.clear {
		return false, nil
	}
	q, err := a.all(s.host, s.owner)
	if err != nil {
		return false, err
	}
	q.Since, q.Backward, q.Max, q.Uncounted = time.UnixMilli(int64(ms)+1), true, 256, true
	for {
		page, err := s.host.Archives.Query(q)
		if err != nil {
			return false, err
		}
		for _, r := range page.Rows {
			if !r.Imported {
				return true, nil
			}
		}
		if page.Complete {
			e.clear = ms
			return false, nil
		}
		q.PageBefore = page.Rows[0].ID
	}
}
