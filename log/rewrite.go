package log

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
)

// Rewrite changes a record that is in the log already: what is to be forgotten
// can't stay. It is committed with the entry that says so, whose event makes the
// followers do the same with what they hold, so that a fold of the log as it is
// then gives what they have.
type Rewrite struct {
	Record   ulid.ULID // of the entry's class
	Archived ulid.ULID // its archive id
	With     *Event    // in its place; nil: it is deleted
}

// RecordOf is the record that holds the message with the archive id.
func (l *Log) RecordOf(c Class, archived ulid.ULID) (ulid.ULID, error) {
	prefix := importKey(c, archived)
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: append(prefix[:len(prefix):len(prefix)], maxULID[:]...)})
	if err != nil {
		return archived, fmt.Errorf("log: look up an import: %w", err)
	}
	record := archived
	if it.First() && len(it.Key()) == importKeyLen {
		record = ulid.ULID(it.Key()[importKeyLen-16:])
	}
	return record, it.Close()
}

var maxULID = ulid.ULID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// rewrite puts the rewrites of e into the batch.
func (g *group) rewrite(e Entry) error {
	for _, w := range e.Rewrites {
		key := recordKey(e.Class, w.Record)
		if w.With != nil {
			v, err := proto.Marshal(w.With)
			if err != nil {
				return err
			}
			if err := g.batch.Set(key, v, nil); err != nil {
				return err
			}
			g.bytes += len(key) + len(v)
			continue
		}
		if err := g.batch.Delete(key, nil); err != nil {
			return err
		}
		g.bytes += len(key)
		if w.Archived != w.Record {
			if err := g.batch.Delete(importKey(e.Class, w.Archived, w.Record[:]...), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// span is a range of ids, both inclusive.
type span struct{ from, to ulid.ULID }

func (s span) with(id ulid.ULID) span {
	if s == (span{}) || id.Compare(s.from) < 0 {
		s.from = id
	}
	if id.Compare(s.to) > 0 {
		s.to = id
	}
	return s
}

func scrubKey(c Class) []byte {
	return append(append([]byte{kindMeta}, "scrub"...), byte(c>>8), byte(c))
}

// debt is what files still have that is to be forgotten; of the class Audit,
// personal content.
type debt struct {
	span
	number int // of what was added last, among all debts since the log was opened
}

// owe notes in the batch that the files still have what e takes away. l.mu is
// held.
func (l *Log) owe(g *group, e Entry) error {
	if len(e.Rewrites) == 0 && len(e.Forget.records) == 0 {
		return nil
	}
	d := l.scrubs[e.Class]
	for _, w := range e.Rewrites {
		d.span = d.with(w.Record).with(w.Archived)
	}
	for _, id := range e.Forget.records {
		d.span = d.with(id)
	}
	l.debts++
	d.number = l.debts
	l.scrubs[e.Class] = d
	return g.batch.Set(scrubKey(e.Class), append(d.from[:], d.to[:]...), nil)
}

func (l *Log) loadScrubs() error {
	l.scrubs = make(map[Class]debt)
	for _, c := range l.Classes() {
		b, err := l.get(scrubKey(c))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if len(b) != 32 {
			return fmt.Errorf("the range to scrub has %d bytes instead of 32: the store is damaged", len(b))
		}
		l.scrubs[c] = debt{span: span{ulid.ULID(b[:16]), ulid.ULID(b[16:])}}
	}
	return nil
}

// Owed is the range of record and archive ids in which records were rewritten
// that the files still have as they were, or in Audit of those whose personal
// content they have; ok is false if there are none.
func (l *Log) Owed(c Class) (from, to ulid.ULID, ok bool) {
	d, ok := l.owed(c)
	return d.from, d.to, ok
}

func (l *Log) owed(c Class) (d debt, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok = l.scrubs[c]
	return d, ok
}

// Scrub makes the files of the store forget what rewrites of the class took away,
// or of Audit, personal content that was erased: it rewrites all tables of the
// range, which for a wide one are many, and ends the files of the write-ahead log
// that were written to until now. forget is called before that is noted as done:
// followers scrub theirs. Reading and appending go on meanwhile.
func (l *Log) Scrub(ctx context.Context, c Class, forget func(from, to ulid.ULID) error) error {
	d, ok := l.owed(c)
	if !ok {
		return nil
	}
	if err := l.Settle(ctx); err != nil { // what is owed is in the engine
		return err
	}
	if err := l.readersGone(ctx); err != nil {
		return err
	}
	ranges := [][]byte{recordKey(c, d.from), recordKey(c, d.to), importKey(c, d.from), importKey(c, d.to)}
	if c == Audit {
		ranges = [][]byte{personalKey(d.from), personalKey(d.to)}
	}
	if err := l.scrub(ctx, ranges...); err != nil {
		return fmt.Errorf("log: scrub the class %q: %w", l.ClassName(c), err)
	}
	if err := forget(d.from, d.to); err != nil {
		return err
	}
	if paid, err := l.paid(c, d); err != nil || !paid {
		return err // more is owed by now
	}
	_, err := l.AppendWait(ctx)
	return err
}

// paid lets the next commit note that nothing is owed any more, if nothing but d
// is. The note has its place in the order of the commits, like what is owed.
func (l *Log) paid(c Class, d debt) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.scrubs[c] != d {
		return false, nil
	}
	delete(l.scrubs, c)
	return true, l.open.batch.Delete(scrubKey(c), nil)
}

// readersGone waits for who has been reading the log from a snapshot till now: for
// them the engine keeps what is to be forgotten.
func (l *Log) readersGone(ctx context.Context) error {
	l.mu.Lock()
	open := slices.Collect(maps.Values(l.snapshots))
	l.mu.Unlock()
	for _, closed := range open {
		select {
		case <-closed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// scrub rewrites the tables of the ranges, which are given by their first and
// last keys.
func (l *Log) scrub(ctx context.Context, ranges ...[]byte) error {
	if err := l.db.Flush(); err != nil {
		return err
	}
	for i := 0; i < len(ranges); i += 2 {
		if err := CompactRange(ctx, l.db, ranges[i], append(ranges[i+1], maxULID[:]...)); err != nil {
			return err
		}
	}
	return Deleted(ctx, l.db, l.fs, l.dir)
}

// cleaner deletes files that are not needed any more. Pebble would keep files of
// the write-ahead log to write over them later, with all that was ever written to
// them, for as long as nothing takes its place; from a cleaner that seems to need
// the contents of files it takes back none.
type cleaner struct {
	pebble.DeleteCleaner // whose Clean is the nearer one
	keeper
}

type keeper struct{ pebble.ArchiveCleaner }
