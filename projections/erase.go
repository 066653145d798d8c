package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// erase folds the order to erase: what was archived before is hidden, and
// preferences, retention and the roster go.
func (w *writer) erase(rec log.Record, e *log.Erase) error {
	w.changed = append(w.changed, e.GetOwner())
	roster := ownedKey(kindRoster, e.GetOwner())
	return errors.Join(
		w.batch.Delete(append([]byte{kindPreferences}, e.GetOwner()...), nil),
		w.batch.Delete(append([]byte{kindRetention}, e.GetOwner()...), nil),
		w.batch.DeleteRange(roster, end(roster), nil),
		w.batch.Set(append([]byte{kindDeleted}, e.GetOwner()...), rec.ID[:], nil))
}

// erased folds that it was done: in the class of the messages all rows of the owner
// go; in Audit the history of their preferences loses its content, as it has in the
// log.
func (w *writer) erased(rec log.Record, e *log.Erased) error {
	if rec.Class == log.Audit {
		if err := w.forgetPersonal(e.GetOwner(), e.GetUpTo()); err != nil {
			return err
		}
		return w.batch.Set(append([]byte{kindErased}, e.GetOwner()...), rec.ID[:], nil)
	}
	w.moved, w.renumbered = true, true
	for bucket, err := range w.rows.ownersBuckets(rec.Class, e.GetOwner(), math.MaxUint32) {
		if err != nil {
			return err
		}
		if err := w.clear(rec.Class, bucket, e.GetOwner()); err != nil {
			return err
		}
	}
	return nil
}

// forgetPersonal takes the content out of the changes of preferences up to upTo.
func (w *writer) forgetPersonal(owner string, upTo []byte) error {
	prefix := ownedKey(kindPrefChange, owner)
	it, err := w.rows.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: append(append(prefix[:len(prefix):len(prefix)], upTo...), 0)})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		p := new(log.PreferencesChanged)
		if err := proto.Unmarshal(it.Value(), p); err != nil {
			return err
		}
		p = log.WithoutPersonal(&log.Event{Kind: &log.Event_Preferences{Preferences: p}}).GetPreferences()
		if err := w.put(append([]byte(nil), it.Key()...), p); err != nil {
			return err
		}
	}
	return it.Error()
}

// Unerased yields those whose account was deleted, or whom somebody ordered to be
// erased, and of whom that is not done yet. It stops at the first error, which it
// yields.
func (s *Store) Unerased() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for kv, err := range s.under([]byte{kindDeleted}) {
			var owner string
			var pending bool
			if err == nil {
				owner = string(kv.key[1:])
				pending, err = s.unerased(owner, kv.value)
			}
			if err != nil {
				yield("", fmt.Errorf("list what is to be erased: %w", err))
				return
			}
			if pending && !yield(owner, nil) {
				return
			}
		}
	}
}

func (s *Store) unerased(owner string, deleted []byte) (pending bool, err error) {
	err = s.read(func(r *rows) error {
		v, err := r.get(append([]byte{kindErased}, owner...))
		if errors.Is(err, pebble.ErrNotFound) {
			pending = true
			return nil
		}
		pending = string(v) < string(deleted)
		return err
	})
	return pending, err
}

// Scrub makes the files of the rows forget what was deleted or overwritten in the
// buckets from that of one id to that of another. Reading and appending go on
// meanwhile.
func (s *Store) Scrub(ctx context.Context, c log.Class, from, to ulid.ULID) error {
	return s.scrub(ctx, "the rows of "+s.log.ClassName(c), func(r *rows) ([]byte, []byte) {
		w, ok := r.widths[c]
		if !ok {
			return nil, nil
		}
		return bucketKey(c, w.bucketOf(from)), end(bucketKey(c, w.bucketOf(to)))
	})
}

// ScrubPersonal is Scrub for preferences, their history and rosters.
func (s *Store) ScrubPersonal(ctx context.Context) error {
	return s.scrub(ctx, "preferences and rosters", func(*rows) ([]byte, []byte) {
		return []byte{kindPreferences}, []byte{kindPreferences + 0x10}
	})
}

func (s *Store) scrub(ctx context.Context, what string, bounds func(*rows) (from, to []byte)) error {
	s.maintaining.Lock() // a rebuild may be reading what is gone by now
	defer s.maintaining.Unlock()
	if s.closing.Load() {
		return errBusy
	}
	s.using.RLock()
	s.rows.spanMu.RLock()
	from, to := bounds(s.rows)
	s.rows.spanMu.RUnlock()
	s.using.RUnlock()
	if from == nil {
		return nil
	}
	r := s.rows
	if err := errors.Join(s.succeed(r), r.db.Flush(), log.CompactRange(ctx, r.db, from, to), log.Deleted(ctx, r.db, r.fs, r.dir)); err != nil {
		return fmt.Errorf("scrub %s: %w", what, err)
	}
	return nil
}
