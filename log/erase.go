package log

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
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
	case *Event_Limits:
		return k.Limits.GetOwner()
	}
	return ""
}

// eraseBatch is how many records one commit deletes.
const eraseBatch = 4096

// Erase deletes all that the class holds of owner up to now, in as many commits
// as it takes, each with an Erased event; no message of theirs may be on its way.
// It reads the whole class. It returns how many messages there were, and the bytes
// of all that was deleted. On return the deletion is durable and applied; Scrub
// makes the files forget.
func (l *Log) Erase(ctx context.Context, c Class, owner, actor string) (messages, size uint64, err error) {
	if c == Audit {
		return 0, 0, fmt.Errorf("log: records of the class %q are never deleted", l.ClassName(c))
	}
	l.expiring.Lock()
	defer l.expiring.Unlock()
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: recordKey(c, [16]byte{}), UpperBound: append(recordKey(c, l.Last()), 0)})
	if err != nil {
		return 0, 0, fmt.Errorf("log: erase the records of %s: %w", owner, err)
	}
	defer it.Close()
	part := &Erased{Owner: owner, Actor: actor}
	var rewrites []Rewrite
	flush := func() error {
		if len(rewrites) == 0 {
			return nil
		}
		_, err := l.AppendWait(context.WithoutCancel(ctx), Entry{Class: c, Rewrites: rewrites, Event: &Event{Kind: &Event_Erased{Erased: part}}})
		messages, size = messages+part.Messages, size+part.Bytes
		rewrites, part = nil, &Erased{Owner: owner, Actor: actor}
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		if !bytes.Contains(it.Value(), []byte(owner)) {
			continue
		}
		r, err := decodeRecord(it.Key(), it.Value())
		if err != nil {
			return messages, size, fmt.Errorf("log: erase the records of %s: %w", owner, err)
		}
		if r.Event.Owner() != owner || r.Event.GetErased() != nil {
			continue
		}
		if r.Event.GetMessage() != nil {
			part.Messages++
		}
		part.Bytes += uint64(len(it.Value()))
		rewrites = append(rewrites, Rewrite{Record: r.ID, Archived: r.ArchiveID()})
		if len(rewrites) < eraseBatch {
			continue
		}
		if err := flush(); err != nil {
			return messages, size, err
		}
		if err := ctx.Err(); err != nil {
			return messages, size, err
		}
	}
	if err := it.Error(); err != nil {
		return messages, size, fmt.Errorf("log: erase the records of %s: %w", owner, err)
	}
	return messages, size, flush()
}
