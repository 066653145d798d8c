package log

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Scan yields the durable records after position, exclusive, in the order of
// their ids, up to the newest at the time of the call. The zero id is before
// all records. It stops at the first error, which it yields.
func (l *Log) Scan(after ulid.ULID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l.mu.Lock()
		s := l.snapshot()
		l.mu.Unlock()
		defer s.Close()
		s.Scan(after)(yield)
	}
}

// Snapshot is the log as it was at one moment.
type Snapshot struct {
	log  *Log
	db   *pebble.Snapshot
	Last ulid.ULID // the newest record in it
}

// snapshot opens one. l.mu is held.
func (l *Log) snapshot() *Snapshot {
	last := l.Last() // first, so that it is in the snapshot
	s := &Snapshot{log: l, db: l.db.NewSnapshot(), Last: last}
	l.snapshots[s] = make(chan struct{})
	return s
}

// Close releases the snapshot. Until then the files of the store keep all that is in
// it, and Scrub waits.
func (s *Snapshot) Close() error {
	err := s.db.Close()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	close(s.log.snapshots[s])
	delete(s.log.snapshots, s)
	return err
}

// Snapshot returns the log as of a moment at which the followers have applied
// what is in it and nothing else, and calls then at that very moment: a snapshot
// that then takes of a follower's rows shows the same state.
func (l *Log) Snapshot(then func()) (*Snapshot, error) {
	// What changes records that are in the log already must not be written and yet
	// not applied: then it is tried again, behind that.
	l.expiring.Lock()
	defer l.expiring.Unlock()
	for {
		done := make(chan error, 1)
		var s *Snapshot
		err := l.Append(nil, func(_ []ulid.ULID, err error) {
			if err == nil {
				l.mu.Lock()
				if l.taking == 0 {
					s = l.snapshot()
					then()
				} else {
					err = l.suspension() // or it would be tried again all the time
				}
				l.mu.Unlock()
			}
			done <- err
		})
		if err == nil {
			err = <-done
		}
		if s != nil || err != nil {
			return s, err
		}
	}
}

// takers counts the entries that change what is in the log already.
func takers(entries []Entry) (n int) {
	for _, e := range entries {
		if len(e.Rewrites) > 0 || len(e.Forget.records) > 0 || e.Event.GetExpired() != nil {
			n++
		}
	}
	return n
}

// Scan yields the records after position up to s.Last, like Log.Scan.
func (s *Snapshot) Scan(after ulid.ULID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		fail := func(err error) { yield(Record{}, fmt.Errorf("scan the log: %w", err)) }
		var heads []*pebble.Iterator
		defer func() {
			for _, it := range heads {
				it.Close()
			}
		}()
		for _, c := range s.log.Classes() {
			it, err := s.db.NewIter(&pebble.IterOptions{
				LowerBound: append(recordKey(c, after), 0),
				UpperBound: append(recordKey(c, s.Last), 0),
			})
			if err != nil {
				fail(err)
				return
			}
			heads = append(heads, it)
			it.First()
		}
		for {
			next := earliest(heads)
			if next == nil {
				break
			}
			r, err := decodeRecord(next.Key(), next.Value())
			if err == nil {
				err = reattach(s.db, &r)
			}
			if err != nil {
				fail(err)
				return
			}
			if !yield(r, nil) {
				return
			}
			next.Next()
		}
		for _, it := range heads {
			if err := it.Error(); err != nil {
				fail(err)
				return
			}
		}
	}
}

// earliest is the iterator that stands at the smallest id; nil at the end, or
// when one of them failed.
func earliest(heads []*pebble.Iterator) (first *pebble.Iterator) {
	for _, it := range heads {
		if !it.Valid() {
			if it.Error() != nil {
				return nil
			}
			continue
		}
		if first == nil || bytes.Compare(it.Key()[3:], first.Key()[3:]) < 0 {
			first = it
		}
	}
	return first
}

func decodeRecord(key, value []byte) (Record, error) {
	if len(key) != recordKeyLen {
		return Record{}, fmt.Errorf("a record's key has %d bytes instead of %d", len(key), recordKeyLen)
	}
	r := Record{ID: recordID(key), Class: Class(key[1])<<8 | Class(key[2]), Event: new(Event)}
	if err := proto.Unmarshal(value, r.Event); err != nil {
		return Record{}, fmt.Errorf("record %s: %w", r.ID, err)
	}
	if r.Class == Audit {
		r.Stored = bytes.Clone(value)
	}
	return r, nil
}

// ScanAudit is Scan for the records of the class Audit alone: it does not step
// over those of others.
func (l *Log) ScanAudit(after ulid.ULID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		it, err := l.db.NewIter(&pebble.IterOptions{
			LowerBound: append(recordKey(Audit, after), 0),
			UpperBound: append(recordKey(Audit, l.Last()), 0),
		})
		if err != nil {
			yield(Record{}, fmt.Errorf("scan the log: %w", err))
			return
		}
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			r, err := decodeRecord(it.Key(), it.Value())
			if err == nil {
				err = reattach(l.db, &r)
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("scan the log: %w", err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(Record{}, fmt.Errorf("scan the log: %w", err))
		}
	}
}

// Get returns the record with that class and id; ok is false if there is none.
func (l *Log) Get(c Class, id ulid.ULID) (r Record, ok bool, err error) {
	key := recordKey(c, id)
	v, closer, err := l.db.Get(key)
	if err == pebble.ErrNotFound {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read record %s: %w", id, err)
	}
	defer closer.Close()
	if r, err = decodeRecord(key, v); err == nil {
		err = reattach(l.db, &r)
	}
	return r, err == nil, err
}

func zapError(err error) zap.Field { return zap.Error(err) }
