package projections

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// retracted folds a retraction: the rows that have the message's content get the
// tombstone instead. A message that is not there any more stays away.
func (w *writer) retracted(rec log.Record, e *log.Retracted) error {
	width, ok := w.rows.widths[rec.Class]
	if rec.Class == log.Audit || !ok || len(e.GetArchiveId()) != len(rec.ID) {
		return nil
	}
	id := ulid.ULID(e.GetArchiveId())
	bucket := width.bucketOf(id)
	it, err := w.rows.db.NewIter(&pebble.IterOptions{LowerBound: bucketKey(rec.Class, bucket), UpperBound: end(bucketKey(rec.Class, bucket))})
	if err != nil {
		return err
	}
	defer it.Close()
	var m *log.MessageArchived
	err = w.rewrite(it, rowsPrefix(rec.Class, bucket, e.GetOwner(), ""), id, func(content []byte) ([]byte, error) {
		var row Row
		err := row.read(id, e.GetOwner(), content)
		if err == nil {
			m, err = row.Message()
		}
		if err != nil || m.GetPeer() == "" { // a stump
			return content, err
		}
		m.StanzaBytes, m.Stanza = counted(m), e.GetStanza()
		w.content = appendContent(w.content[:0], m, m.GetBytesSoFar())
		return w.content, nil
	})
	if err != nil || m.GetPeer() == "" {
		return err
	}
	keys := withKeys(m)
	if len(keys) == 0 {
		return nil
	}
	// The conversation that has the content once more.
	return w.rewrite(it, rowsPrefix(rec.Class, bucket, e.GetOwner(), keys[0]), id, func([]byte) ([]byte, error) {
		return w.content, nil
	})
}

// rewrite gives the message id under prefix, if there is one, the content that with
// makes of it.
func (w *writer) rewrite(it *pebble.Iterator, prefix []byte, id ulid.ULID, with func([]byte) ([]byte, error)) error {
	key, c, err := chunkAt(it, prefix, id)
	if err != nil {
		return err
	}
	at := c.below(id)
	if at == c.len() || c.compare(at, id) != 0 {
		return nil
	}
	content, err := with(c.content(at))
	if err != nil {
		return fmt.Errorf("message %s: %w", id, err)
	}
	value := appendMessage(bytes.Clone(c.value[:len(c.value)-len(c.rest(at))]), id, c.ordinal(at), content)
	return w.batch.Set(key, append(value, c.rest(at+1)...), nil)
}

// Retraction is the entry that makes the message of a row a tombstone, which has no
// content. From before row is read until the entry is queued, nothing but other
// retractions may change the archive of its owner.
func (s *Store) Retraction(c log.Class, row Row, tombstone []byte) (log.Entry, error) {
	m, err := row.Message()
	if err != nil {
		return log.Entry{}, err
	}
	w := log.Rewrite{Record: row.ID, Archived: row.ID}
	if row.Imported {
		if w.Record, err = s.log.RecordOf(c, row.ID); err != nil {
			return log.Entry{}, err
		}
	}
	if w.Record != row.ID {
		m.ArchiveId = row.ID[:]
	}
	m.StanzaBytes, m.Stanza, m.BytesSoFar = counted(m), tombstone, 0
	w.With = &log.Event{Kind: &log.Event_Message{Message: m}}
	return log.Entry{Class: c, Rewrites: []log.Rewrite{w}, Event: &log.Event{Kind: &log.Event_Retracted{
		Retracted: &log.Retracted{Owner: row.Owner, ArchiveId: row.ID[:], Stanza: tombstone},
	}}}, nil
}
