package log

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// Owner is the bare JID that the event is about, "" for one that is about none.
func (e *Event) Owner() string {
	switch k := e.GetKind().(type) {
	case *Event_Message:
		return k.Message.GetOwner()
	case *Event_Preferences:
		return k.Preferences.GetOwner()
	case *Event_Account:
		return k.Account.GetOwner()
	case *Event_Roster:
		return k.Roster.GetOwner()
	case *Event_Read:
		return k.Read.GetOwner()
	case *Event_Imported:
		return k.Imported.GetOwner()
	case *Event_Erase:
		return k.Erase.GetOwner()
	case *Event_Erased:
		return k.Erased.GetOwner()
	case *Event_Retracted:
		return k.Retracted.GetOwner()
	case *Event_Cut:
		return k.Cut.GetOwner()
	case *Event_Stump:
		return k.Stump.GetOwner()
	case *Event_Retention:
		return k.Retention.GetOwner()
	}
	return ""
}

// eraseBatch is how many records one commit deletes.
const eraseBatch = 4096

// Owned is what a class holds of one owner.
type Owned struct {
	Messages uint64
	Bytes    uint64 // of the records
	records  []Rewrite
	last     ulid.ULID // that was looked at
}

// FindOwned adds to o what the class holds of owner behind what o has been through
// already; at first it reads the whole class.
func (l *Log) FindOwned(ctx context.Context, c Class, owner string, o *Owned) error {
	fail := func(err error) error { return fmt.Errorf("log: find the records of %s: %w", owner, err) }
	last := l.Last()
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: append(recordKey(c, o.last), 0), UpperBound: append(recordKey(c, last), 0)})
	if err != nil {
		return fail(err)
	}
	defer it.Close()
	it.First()
	for n := 0; it.Valid(); n, _ = n+1, it.Next() {
		if n%eraseBatch == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !bytes.Contains(it.Value(), []byte(owner)) {
			continue
		}
		r, err := decodeRecord(it.Key(), it.Value())
		if err != nil {
			return fail(err)
		}
		if r.Event.Owner() != owner || r.Event.GetErased() != nil {
			continue
		}
		if r.Event.GetMessage() != nil {
			o.Messages++
		}
		o.Bytes += uint64(len(it.Value()))
		o.records = append(o.records, Rewrite{Record: r.ID, Archived: r.ArchiveID()})
	}
	if err := it.Error(); err != nil {
		return fail(err)
	}
	o.last = last
	return nil
}

// Erase deletes what o has, which must be all that the class holds of owner, in as
// many commits as it takes, each with an Erased event; no message of theirs may be
// on its way, and none come meanwhile. On return it is durable and applied; Scrub
// makes the files forget.
func (l *Log) Erase(ctx context.Context, c Class, owner, actor string, o *Owned) error {
	if c == Audit {
		return fmt.Errorf("log: records of the class %q are never deleted", l.ClassName(c))
	}
	l.expiring.Lock()
	defer l.expiring.Unlock()
	for records := range slices.Chunk(o.records, eraseBatch) {
		_, err := l.AppendWait(context.WithoutCancel(ctx), Entry{Class: c, Rewrites: records, Event: &Event{Kind: &Event_Erased{
			Erased: &Erased{Owner: owner, Actor: actor, Messages: o.Messages, Bytes: o.Bytes},
		}}})
		if err != nil {
			return fmt.Errorf("log: erase the records of %s: %w", owner, err)
		}
	}
	return nil
}
