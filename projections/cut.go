package projections

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// A cut takes the oldest messages off one archive. They go from its rows, but for one
// in the archive and one in each conversation of the cut's time bucket, which have the
// id of the cut, an ordinal and no content: the stumps. They keep the numbers of what
// is left, and the chunk in which the cut is begins with them. In the log the last message that goes becomes a Stump
// event, so that a rebuild finds the same numbers; the others are deleted.
//
// Up to its floor an archive has nothing for queries:
//
//	floor  0x10 | class uint16 | bucket uint32 | 3 | owner 00 → id of the newest message that is gone
//
// The floor lies in the bucket of that id and expires with it.

func floorKey(c log.Class, bucket uint32, owner string) []byte {
	return ownerPrefix(c, bucket, partFloor, owner)
}

// ownerPrefix is what the keys of all rows of owner begin with that are of one part
// of a bucket.
func ownerPrefix(c log.Class, bucket uint32, part byte, owner string) []byte {
	k := append(bucketKey(c, bucket), part)
	k = append(k, owner...)
	return append(k, 0)
}

// rowKey is the key of the row that begins with that id; that and older ones go from there
// to the end of the prefix.
func rowKey(prefix []byte, id ulid.ULID) []byte {
	return appendRowID(prefix[:len(prefix):len(prefix)], id)
}

// under tells whether key is prefix and an id.
func under(key, prefix []byte) bool {
	return len(key) == len(prefix)+16 && string(key[:len(prefix)]) == string(prefix)
}

// ownersBuckets yields the buckets up to last in which owner has messages or a
// floor, in order.
func (r *rows) ownersBuckets(c log.Class, owner string, last uint32) iter.Seq2[uint32, error] {
	return func(yield func(uint32, error) bool) {
		it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: bucketKey(c, 0), UpperBound: end(bucketKey(c, last))})
		if err != nil {
			yield(0, err)
			return
		}
		defer it.Close()
		for ok := it.First(); ok; {
			bucket := keyBucket(it.Key())
			for _, part := range []byte{partMessage, partFloor} {
				prefix := ownerPrefix(c, bucket, part, owner)
				if ok = it.SeekGE(prefix); ok && bytes.HasPrefix(it.Key(), prefix) {
					if !yield(bucket, nil) {
						return
					}
					break
				}
			}
			if next := end(bucketKey(c, bucket)); next != nil {
				ok = it.SeekGE(next)
			}
		}
		if err := it.Error(); err != nil {
			yield(0, err)
		}
	}
}

// stumps are what a cut at up leaves in the bucket of up, as a Stump event says it;
// nil if there is no message up to there.
func (r *rows) stumps(c log.Class, owner string, up ulid.ULID) (*log.Stump, error) {
	bucket := r.widths[c].bucketOf(up)
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: bucketKey(c, bucket), UpperBound: end(bucketKey(c, bucket))})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	ordinal, content, ok, err := newestUpTo(it, rowsPrefix(c, bucket, owner, ""), up)
	if err != nil || !ok {
		return nil, err
	}
	s := &log.Stump{Owner: owner, ArchiveId: up[:], Ordinal: ordinal}
	if s.Bytes, err = bytesSoFar(content); err != nil {
		return nil, err
	}
	all := ownerPrefix(c, bucket, partConversation, owner)
	for ok := it.SeekGE(all); ok && bytes.HasPrefix(it.Key(), all); {
		with := string(it.Key()[len(all) : len(it.Key())-17])
		conversation := rowsPrefix(c, bucket, owner, with)
		ordinal, _, some, err := newestUpTo(it, conversation, up)
		if err != nil {
			return nil, err
		}
		if some {
			s.Conversations = append(s.Conversations, &log.Stump_Conversation{With: with, Ordinal: ordinal})
		}
		ok = it.SeekGE(end(conversation))
	}
	return s, it.Error()
}

// newestUpTo is the newest message under prefix with an id up to up, if there is one.
func newestUpTo(it *pebble.Iterator, prefix []byte, up ulid.ULID) (ordinal uint64, content []byte, ok bool, err error) {
	_, c, err := chunkAt(it, prefix, up)
	if err != nil || c.len() == 0 {
		return 0, nil, false, err
	}
	at := c.below(up)
	if at == c.len() || c.compare(at, up) > 0 {
		at-- // there is one: the chunk begins with it
	}
	return c.ordinal(at), c.content(at), true, nil
}

// cut folds what a cut did.
func (w *writer) cut(rec log.Record, e *log.Cut) error {
	if rec.Class == log.Audit || len(e.GetUpTo()) != len(rec.ID) {
		return nil // the record of it, which makes no rows
	}
	up := ulid.ULID(e.GetUpTo())
	if err := w.width(rec.Class); err != nil {
		return err
	}
	s, err := w.rows.stumps(rec.Class, e.GetOwner(), up)
	if err != nil {
		return err
	}
	if s != nil {
		if err := w.leave(rec.Class, up, s); err != nil {
			return err
		}
	}
	bucket := w.rows.widths[rec.Class].bucketOf(up)
	w.touch(rec.Class, bucket)
	return w.batch.Set(floorKey(rec.Class, bucket, e.GetOwner()), up[:], nil)
}

// stump folds what stands in the log in the place of a cut's last message.
func (w *writer) stump(rec log.Record, s *log.Stump) error {
	if err := w.width(rec.Class); err != nil {
		return err
	}
	up := rec.ArchiveID()
	w.touch(rec.Class, w.rows.widths[rec.Class].bucketOf(up))
	return w.leave(rec.Class, up, s)
}

// leave deletes what s.Owner has up to up, and leaves the stumps.
func (w *writer) leave(c log.Class, up ulid.ULID, s *log.Stump) error {
	w.moved = true
	last := w.rows.widths[c].bucketOf(up)
	for bucket, err := range w.rows.ownersBuckets(c, s.GetOwner(), last) {
		if err != nil {
			return err
		}
		if bucket == last {
			break
		}
		if err := w.clear(c, bucket, s.GetOwner()); err != nil {
			return err
		}
	}
	it, err := w.rows.db.NewIter(&pebble.IterOptions{LowerBound: bucketKey(c, last), UpperBound: end(bucketKey(c, last))})
	if err != nil {
		return err
	}
	defer it.Close()
	// The messages that stay of the chunk in which the cut is come behind its stump.
	put := func(with string, content []byte, t tally) error {
		prefix := rowsPrefix(c, last, s.GetOwner(), with)
		_, old, err := chunkAt(it, prefix, up)
		if err != nil {
			return err
		}
		stay := old.below(up)
		if stay < old.len() && old.compare(stay, up) == 0 {
			stay++
		}
		value := appendMessage(nil, up, t.ordinal, content)
		if old.len() > 0 {
			value = append(value, old.rest(stay)...)
		}
		w.rows.tallies.raise(c, last, prefix, t)
		return errors.Join(w.batch.DeleteRange(rowKey(prefix, up), end(prefix), nil), w.batch.Set(rowKey(prefix, up), value, nil))
	}
	content := appendContent(nil, new(log.MessageArchived), s.GetBytes())
	if err := put("", content, tally{s.GetOrdinal(), s.GetBytes(), up}); err != nil {
		return err
	}
	for _, conversation := range s.GetConversations() {
		if err := put(conversation.GetWith(), nil, tally{conversation.GetOrdinal(), 0, up}); err != nil {
			return err
		}
	}
	return nil
}

// clear deletes all that owner has in a bucket.
func (w *writer) clear(c log.Class, bucket uint32, owner string) error {
	for _, part := range []byte{partMessage, partConversation, partFloor} {
		prefix := ownerPrefix(c, bucket, part, owner)
		if err := w.batch.DeleteRange(prefix, end(prefix), nil); err != nil {
			return err
		}
	}
	return nil
}

// floor is the id of the newest message that a cut took off owner's archive, zero
// if there was none. r.spanMu is held, so that it fits to an iterator made under
// the same hold.
func (r *rows) floor(c log.Class, owner string) (id ulid.ULID, err error) {
	var room [128]byte
	key := append(binary.BigEndian.AppendUint16(room[:0], uint16(c)), owner...)
	r.floorMu.Lock()
	defer r.floorMu.Unlock()
	if id, ok := r.floors[string(key)]; ok {
		return id, nil
	}
	if sp, ok := r.spans[c]; ok {
		for n := range int64(sp.last-sp.first) + 1 {
			v, err := r.get(floorKey(c, sp.last-uint32(n), owner))
			if errors.Is(err, pebble.ErrNotFound) {
				continue
			}
			if err != nil {
				return id, err
			}
			copy(id[:], v)
			break
		}
	}
	if r.floors == nil || len(r.floors) >= maxPreferenceEntries {
		r.floors = make(map[string]ulid.ULID)
	}
	r.floors[string(key)] = id
	return id, nil
}

// Floor is the id of the newest message that a cut took off owner's archive, zero
// if there was none or it has expired since. Nothing up to there can be seen.
func (s *Store) Floor(c log.Class, owner string) (id ulid.ULID, err error) {
	err = s.read(func(r *rows) error {
		r.spanMu.RLock()
		defer r.spanMu.RUnlock()
		id, err = r.floor(c, owner)
		return err
	})
	return id, err
}

// oldest is what one cut takes.
type oldest struct {
	messages, bytes uint64
	rows            []gone // all that go, oldest first; the last is that of the cut
	stump           *log.Stump
}

// gone is a row that goes. lookUp: its record may have another id.
type gone struct {
	id     ulid.ULID
	lookUp bool
}

// Cut takes the oldest messages off an archive, up to up and no more than max of
// them, as one commit; e says whose and why, and gets what went. more tells that
// there are others up to there. No message of the owner's may be on its way, and
// none come meanwhile. On return it is durable, and queries see it.
func (s *Store) Cut(ctx context.Context, c log.Class, up ulid.ULID, max int, e *log.Cut) (more bool, err error) {
	p, err := s.oldest(c, e.GetOwner(), up, max)
	if err != nil {
		return false, fmt.Errorf("find the oldest messages of %s: %w", e.GetOwner(), err)
	}
	if p.messages == 0 {
		return false, nil
	}
	last := p.rows[len(p.rows)-1].id
	e.UpTo, e.Messages, e.Bytes = last[:], p.messages, p.bytes
	rewrites := make([]log.Rewrite, len(p.rows))
	for i, r := range p.rows {
		w := log.Rewrite{Record: r.id, Archived: r.id}
		if r.lookUp {
			if w.Record, err = s.log.RecordOf(c, r.id); err != nil {
				return false, err
			}
		}
		rewrites[i] = w
	}
	rewrites[len(rewrites)-1].With = &log.Event{Kind: &log.Event_Stump{Stump: p.stump}}
	_, err = s.log.AppendWait(context.WithoutCancel(ctx), log.Entry{
		Class: c, Event: &log.Event{Kind: &log.Event_Cut{Cut: e}}, Rewrites: rewrites,
	})
	if err != nil {
		return false, fmt.Errorf("cut the archive of %s: %w", e.GetOwner(), err)
	}
	return last.Compare(up) < 0 && len(p.rows) >= max, nil
}

func (s *Store) oldest(c log.Class, owner string, up ulid.ULID, max int) (p oldest, err error) {
	if err := s.settleTail(); err != nil {
		return p, err
	}
	err = s.read(func(r *rows) error {
		sc, err := r.newScan(c, owner, "")
		if err != nil {
			return err
		}
		defer sc.close()
		if sc.empty {
			return nil
		}
		for bucket, err := range r.ownersBuckets(c, owner, min(sc.width.bucketOf(up), sc.span.last)) {
			if err != nil {
				return err
			}
			for ok := sc.from(bucket, ulid.ULID{}); ok && len(p.rows) < max; ok = sc.newer() {
				id, content := sc.chunk.id(sc.at), sc.chunk.content(sc.at)
				if id.Compare(up) > 0 {
					break
				}
				var row Row
				if err := row.read(id, owner, content); err != nil {
					return err
				}
				stump := len(row.Stanza) == 0
				if !stump {
					size, err := row.counted()
					if err != nil {
						return err
					}
					p.messages, p.bytes = p.messages+1, p.bytes+size
				}
				p.rows = append(p.rows, gone{id, stump || row.Imported})
			}
			if err := sc.error(); err != nil {
				return err
			}
		}
		if p.messages == 0 {
			return nil
		}
		p.stump, err = r.stumps(c, owner, p.rows[len(p.rows)-1].id)
		return err
	})
	return p, err
}
