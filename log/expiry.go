package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// Expire deletes every record of the class that is older than before, as one
// range of keys, with the imports whose archive ids are, which lie scattered
// among newer records, and records that it did so, for actor. It returns whether there was
// anything to delete; with nothing to delete it writes nothing. On return the
// deletion is durable and applied by the followers; Compact gives the space
// back.
func (l *Log) Expire(ctx context.Context, c Class, before time.Time, actor string) (bool, error) {
	if c == Audit {
		return false, fmt.Errorf("log: records of the class %q never expire", l.ClassName(c))
	}
	l.expiring.Lock()
	defer l.expiring.Unlock()
	if err := l.keepTime(pebble.NoSync); err != nil { // also of a log that nobody appends to
		return false, err
	}
	any, err := l.anyBefore(c, before)
	if err != nil {
		return false, err
	}
	imported, err := l.importedBefore(c, before)
	if err != nil || !any && len(imported) == 0 {
		return false, err
	}
	event := &Event{Kind: &Event_Expired{Expired: &Expired{
		Class: uint32(c), ClassName: l.ClassName(c), BeforeUnixMs: before.UnixMilli(), Actor: actor,
	}}}
	_, err = l.AppendWait(ctx, Entry{Class: Audit, Event: event, imported: imported})
	if err != nil {
		return false, fmt.Errorf("log: expire records before %s: %w", before.UTC().Format(time.RFC3339), err)
	}
	return true, nil
}

func (l *Log) anyBefore(c Class, before time.Time) (bool, error) {
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: recordKey(c, [16]byte{}),
		UpperBound: recordKey(c, firstAt(before)),
	})
	if err != nil {
		return false, fmt.Errorf("log: look for records to expire: %w", err)
	}
	found := it.First()
	return found, it.Close()
}

// importedBefore returns the records of the class whose archive ids, which
// aren't their own, are older than before.
func (l *Log) importedBefore(c Class, before time.Time) (records []ulid.ULID, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: importKey(c, ulid.ULID{}), UpperBound: importKey(c, firstAt(before)),
	})
	if err != nil {
		return nil, fmt.Errorf("log: look for imports to expire: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		if len(it.Key()) == importKeyLen {
			records = append(records, ulid.ULID(it.Key()[importKeyLen-16:]))
		}
	}
	return records, it.Close()
}

// expire puts what x stands for into the batch: the deletion of a range, and of
// the imported records.
func (g *group) expire(x *Expired, imported []ulid.ULID) error {
	c := Class(x.GetClass())
	cut := firstAt(time.UnixMilli(x.GetBeforeUnixMs()))
	for _, id := range imported {
		if err := g.batch.Delete(recordKey(c, id), nil); err != nil {
			return err
		}
	}
	return errors.Join(
		g.batch.DeleteRange(importKey(c, ulid.ULID{}), importKey(c, cut), nil),
		g.batch.DeleteRange(recordKey(c, ulid.ULID{}), recordKey(c, cut), nil))
}

// Compact gives back the disk space of the class's records older than before,
// which must have been expired. What is kept is not rewritten, but for the one
// table that the cut goes through; the space of imports, which lie elsewhere,
// comes back as the engine rewrites those tables. Reading and appending go on
// meanwhile.
func (l *Log) Compact(ctx context.Context, c Class, before time.Time) error {
	if err := CompactRange(ctx, l.db, recordKey(c, [16]byte{}), recordKey(c, firstAt(before))); err != nil {
		return fmt.Errorf("log: compact the class %q: %w", l.ClassName(c), err)
	}
	return nil
}
