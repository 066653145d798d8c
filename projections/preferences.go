package projections

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// The value of a preferences row:
//
//	id of the event 16 bytes | Preferences (protobuf)
//
// With no preferences behind the id, the server's policy applies again.

func (w *writer) preferences(rec log.Record, p *log.PreferencesChanged) error {
	w.changed = append(w.changed, p.GetOwner())
	key := append([]byte{kindPreferences}, p.GetOwner()...)
	if p.GetAfter() == nil {
		if err := w.batch.Delete(key, nil); err != nil {
			return err
		}
	} else {
		v, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(rec.ID[:], p.GetAfter())
		if err != nil {
			return err
		}
		if err := w.batch.Set(key, v, nil); err != nil {
			return err
		}
	}
	return w.put(ownedKey(kindPrefChange, p.GetOwner(), rec.ID[:]...), p)
}

func (w *writer) policy(rec log.Record, p *log.PolicyChanged) error {
	return w.put(ownedKey(kindPolicy, p.GetHost(), rec.ID[:]...), p)
}

func (w *writer) put(key []byte, m proto.Message) error {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return w.batch.Set(key, v, nil)
}

// Preferences returns the preferences that owner has set, and the id of the
// event that set them; nil if there are none, so that the server's policy
// applies. They must not be changed.
func (s *Store) Preferences(owner string) (*log.Preferences, ulid.ULID, error) {
	e, err := s.preferences.get(owner, func() (e preferenceEntry, err error) {
		err = s.read(func(r *rows) error { e, err = r.preferenceEntry(owner); return err })
		return e, err
	})
	if err != nil {
		return nil, ulid.ULID{}, fmt.Errorf("read the preferences of %s: %w", owner, err)
	}
	return e.preferences, e.id, nil
}

// DeletedAt is the id of the event by which owner's account was last deleted,
// zero if it never was. What was archived before belongs to nobody who has the
// name now.
func (s *Store) DeletedAt(owner string) (ulid.ULID, error) {
	e, err := s.preferences.get(owner, func() (e preferenceEntry, err error) {
		err = s.read(func(r *rows) error { e, err = r.preferenceEntry(owner); return err })
		return e, err
	})
	return e.deleted, err
}

func (r *rows) preferenceEntry(owner string) (e preferenceEntry, err error) {
	v, err := r.get(append([]byte{kindPreferences}, owner...))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return e, err
	case len(v) < 16:
		return e, errDamagedRow
	default:
		copy(e.id[:], v)
		e.preferences = new(log.Preferences)
		if err := proto.Unmarshal(v[16:], e.preferences); err != nil {
			return e, err
		}
	}
	if e.retention, err = r.ownRetention(owner); err != nil {
		return e, err
	}
	v, err = r.get(append([]byte{kindDeleted}, owner...))
	if errors.Is(err, pebble.ErrNotFound) {
		return e, nil
	}
	copy(e.deleted[:], v)
	return e, err
}

// preferenceCache holds what every message needs to know of its owner.
type preferenceCache struct {
	mu      sync.RWMutex
	entries map[string]preferenceEntry
	turn    uint64 // counts changes: what was read before one is not kept after it
}

type preferenceEntry struct {
	preferences *log.Preferences
	id, deleted ulid.ULID
	retention   *log.Retention
}

const maxPreferenceEntries = 1 << 17

func (c *preferenceCache) get(owner string, load func() (preferenceEntry, error)) (preferenceEntry, error) {
	c.mu.RLock()
	e, ok := c.entries[owner]
	turn := c.turn
	c.mu.RUnlock()
	if ok {
		return e, nil
	}
	e, err := load()
	if err != nil {
		return e, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == turn {
		if len(c.entries) >= maxPreferenceEntries {
			clear(c.entries)
		}
		c.entries[owner] = e
	}
	return e, nil
}

func (c *preferenceCache) forget(owners []string) {
	if len(owners) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
	for _, o := range owners {
		delete(c.entries, o)
	}
}

func (c *preferenceCache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
	c.entries = make(map[string]preferenceEntry)
}

// Change is one entry of a history.
type Change[T proto.Message] struct {
	ID     ulid.ULID
	Change T
}

// PreferenceHistory yields every change of owner's preferences, oldest first.
// It stops at the first error, which it yields.
func (s *Store) PreferenceHistory(owner string) iter.Seq2[Change[*log.PreferencesChanged], error] {
	return history(s, kindPrefChange, owner, func() *log.PreferencesChanged { return new(log.PreferencesChanged) })
}

// PolicyHistory yields every change of the host's policy, oldest first. It stops
// at the first error, which it yields.
func (s *Store) PolicyHistory(host string) iter.Seq2[Change[*log.PolicyChanged], error] {
	return history(s, kindPolicy, host, func() *log.PolicyChanged { return new(log.PolicyChanged) })
}

func history[T proto.Message](s *Store, kind byte, of string, empty func() T) iter.Seq2[Change[T], error] {
	return func(yield func(Change[T], error) bool) {
		for kv, err := range s.under(ownedKey(kind, of)) {
			c := Change[T]{Change: empty()}
			if err == nil {
				c.ID = eventID(kv.key)
				err = proto.Unmarshal(kv.value, c.Change)
			}
			if err != nil {
				yield(Change[T]{}, fmt.Errorf("read the history of %s: %w", of, err))
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Policy returns the host's newest policy and the event that set it; nil if
// there was none.
func (s *Store) Policy(host string) (p *log.Policy, id ulid.ULID, err error) {
	for c, err := range s.PolicyHistory(host) {
		if err != nil {
			return nil, ulid.ULID{}, err
		}
		p, id = c.Change.GetAfter(), c.ID
	}
	return p, id, nil
}

type keyValue struct{ key, value []byte }

// underBatch is how many rows are read at once.
const underBatch = 256

// under yields the rows whose keys begin with prefix, in order. It holds nothing
// while it yields: rows are copied a batch at a time, each as of its own moment.
func (s *Store) under(prefix []byte) iter.Seq2[keyValue, error] {
	return func(yield func(keyValue, error) bool) {
		for from := prefix; from != nil; {
			var batch []keyValue
			err := s.read(func(r *rows) error {
				it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: end(prefix)})
				if err != nil {
					return err
				}
				for it.First(); it.Valid() && len(batch) < underBatch; it.Next() {
					batch = append(batch, keyValue{bytes.Clone(it.Key()), bytes.Clone(it.Value())})
				}
				return it.Close()
			})
			if err != nil {
				yield(keyValue{}, err)
				return
			}
			from = nil
			if n := len(batch); n == underBatch {
				from = append(batch[n-1].key, 0)
			}
			for _, kv := range batch {
				if !yield(kv, nil) {
					return
				}
			}
		}
	}
}
