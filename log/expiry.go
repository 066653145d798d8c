package log

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Expire deletes every record of the class that is older than before, as one
// range of keys, and records that it did so. It returns whether there was
// anything to delete; with nothing to delete it writes nothing. On return the
// deletion is durable and applied by the followers; Compact gives the space
// back.
func (l *Log) Expire(ctx context.Context, c Class, before time.Time) (bool, error) {
	if c == Audit {
		return false, fmt.Errorf("log: records of the class %q never expire", l.ClassName(c))
	}
	l.expiring.Lock()
	defer l.expiring.Unlock()
	any, err := l.anyBefore(c, before)
	if err != nil || !any {
		return false, err
	}
	_, err = l.AppendWait(ctx, Entry{Class: Audit, Event: &Event{Kind: &Event_Expired{Expired: &Expired{
		Class: uint32(c), ClassName: l.ClassName(c), BeforeUnixMs: before.UnixMilli(),
	}}}})
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

// expire puts the range deletion that x stands for into the batch.
func (g *group) expire(x *Expired) error {
	c := Class(x.GetClass())
	return g.batch.DeleteRange(recordKey(c, [16]byte{}), recordKey(c, firstAt(time.UnixMilli(x.GetBeforeUnixMs()))), nil)
}

// Compact gives back the disk space of the class's records older than before,
// which must have been expired. What is kept is not rewritten, but for the one
// table that the cut goes through. Reading and appending go on meanwhile.
func (l *Log) Compact(ctx context.Context, c Class, before time.Time) error {
	if err := l.db.Compact(ctx, recordKey(c, [16]byte{}), recordKey(c, firstAt(before)), false); err != nil {
		return fmt.Errorf("log: compact the class %q: %w", l.ClassName(c), err)
	}
	return nil
}
