package projections

import (
	"encoding/binary"
	"errors"
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
	key := rowKey(rowsPrefix(rec.Class, bucket, e.GetOwner(), ""), id)
	v, err := w.rows.get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil // or written in this very batch, and then the record was a tombstone already
	}
	if err != nil {
		return err
	}
	var row Row
	if err := row.read(id, e.GetOwner(), v); err != nil {
		return err
	}
	m, err := row.Message()
	if err != nil {
		return err
	}
	if m.GetPeer() == "" {
		return nil // a stump
	}
	m.StanzaBytes, m.Stanza = counted(m), e.GetStanza()
	ordinal, _ := binary.Uvarint(v)
	value, err := appendMessageValue(nil, ordinal, m, m.GetBytesSoFar())
	if err != nil {
		return err
	}
	if err := w.batch.Set(key, value, nil); err != nil {
		return err
	}
	keys := withKeys(m)
	if len(keys) == 0 {
		return nil
	}
	// The conversation that has the whole value once more.
	key = rowKey(rowsPrefix(rec.Class, bucket, e.GetOwner(), keys[0]), id)
	old, err := w.rows.get(key)
	if err != nil {
		return fmt.Errorf("conversation row of %s: %w", id, err)
	}
	_, n := binary.Uvarint(value)
	place, _ := binary.Uvarint(old)
	return w.batch.Set(key, append(binary.AppendUvarint(nil, place), value[n:]...), nil)
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
