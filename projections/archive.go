package projections

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// The value of a message row. The event stands there without its stanza and its
// owner, which the key names.
//
//	ordinal uvarint | length of event uvarint | event (protobuf) | stanza
//
// The row of the conversation with a bare JID has the same value, with the place
// in the conversation: a page of it is one scan like any other. Where the peer
// is a full JID, which few ask for, it is the ordinal uvarint alone, and the rest
// is fetched from the message row.

// Row is one archived message.
type Row struct {
	ID     ulid.ULID
	Owner  string
	Stanza []byte // with its own xmlns; not to be changed

	event []byte
}

// Message is the whole event of the row.
func (r Row) Message() (*log.MessageArchived, error) {
	m := new(log.MessageArchived)
	if err := proto.Unmarshal(r.event, m); err != nil {
		return nil, fmt.Errorf("message %s: %w", r.ID, err)
	}
	m.Owner, m.Stanza = r.Owner, r.Stanza
	return m, nil
}

// Time is when the message was archived, in whole milliseconds.
func (r Row) Time() time.Time { return log.IDTime(r.ID) }

func appendMessageValue(b []byte, ordinal uint64, m *log.MessageArchived) ([]byte, error) {
	bare := &log.MessageArchived{
		Peer: m.Peer, Direction: m.Direction, Reason: m.Reason,
		DecidedBy: m.DecidedBy, StanzaId: m.StanzaId, AlsoPeer: m.AlsoPeer,
	}
	event, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return nil, err
	}
	b = binary.AppendUvarint(b, ordinal)
	b = binary.AppendUvarint(b, uint64(len(event)))
	b = append(b, event...)
	return append(b, m.Stanza...), nil
}

var errDamagedRow = errors.New("a row is damaged: rebuild the projections")

func parseMessageValue(v []byte) (event, stanza []byte, err error) {
	_, n := binary.Uvarint(v)
	if n <= 0 {
		return nil, nil, errDamagedRow
	}
	v = v[n:]
	size, n := binary.Uvarint(v)
	if n <= 0 || size > uint64(len(v)-n) {
		return nil, nil, errDamagedRow
	}
	v = v[n:]
	return v[:size], v[size:], nil
}

// bareJID is j without its resource.
func bareJID(j string) string {
	bare, _, _ := strings.Cut(j, "/")
	return bare
}

// withKeys are the JIDs that a query's with= finds m by (XEP-0313 section 4.1.1):
// the other side's, bare and full; for a message to oneself one's own.
func withKeys(m *log.MessageArchived) []string {
	keys := append(make([]string, 0, 3), bareJID(m.GetPeer()))
	for _, k := range []string{m.GetPeer(), m.GetAlsoPeer()} {
		if k != "" && k != keys[0] && k != keys[len(keys)-1] {
			keys = append(keys, k)
		}
	}
	return keys
}

// width is how long a bucket lasts, in ms.
type width uint64

// bucketOf is the bucket that id lies in.
func (w width) bucketOf(id ulid.ULID) uint32 { return uint32(min(id.Time()/uint64(w), 1<<32-1)) }

// start is the first id that can lie in the bucket.
func (w width) start(bucket uint32) ulid.ULID {
	return log.FirstAt(time.UnixMilli(int64(uint64(bucket) * uint64(w))))
}

func (w *writer) message(rec log.Record, m *log.MessageArchived) error {
	c := rec.Class
	if _, ok := w.rows.widths[c]; !ok {
		width := w.store.width(c)
		if err := w.batch.Set(widthKey(c), binary.BigEndian.AppendUint64(nil, uint64(width)), nil); err != nil {
			return err
		}
		w.rows.spanMu.Lock()
		w.rows.widths[c] = width
		w.rows.spanMu.Unlock()
	}
	bucket := w.rows.widths[c].bucketOf(rec.ID)
	w.touch(c, bucket)

	prefix := rowsPrefix(c, bucket, m.GetOwner(), "")
	ordinal, err := w.next(prefix)
	if err != nil {
		return err
	}
	value, err := appendMessageValue(make([]byte, 0, len(m.GetStanza())+128), ordinal, m)
	if err != nil {
		return err
	}
	if err := w.batch.Set(withID(prefix, rec.ID), value, nil); err != nil {
		return err
	}
	_, n := binary.Uvarint(value)
	content := value[n:]
	for i, peer := range withKeys(m) {
		prefix := rowsPrefix(c, bucket, m.GetOwner(), peer)
		ordinal, err := w.next(prefix)
		if err != nil {
			return err
		}
		v := binary.AppendUvarint(make([]byte, 0, len(content)+10), ordinal)
		if i == 0 { // the bare JID
			v = append(v, content...)
		}
		if err := w.batch.Set(withID(prefix, rec.ID), v, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) touch(c log.Class, bucket uint32) {
	if w.touched == nil {
		w.touched = make(map[log.Class]span)
	}
	sp, ok := w.touched[c]
	if !ok {
		sp = span{bucket, bucket}
	}
	w.touched[c] = span{min(sp.first, bucket), max(sp.last, bucket)}
}

// expire deletes the buckets that ended before the run's cut: one range of keys
// for all owners.
func (w *writer) expire(x *log.Expired) error {
	c := log.Class(x.GetClass())
	width, ok := w.rows.widths[c]
	if !ok || x.GetBeforeUnixMs() < 0 {
		return nil // no message of the class was ever folded
	}
	first := uint32(uint64(x.GetBeforeUnixMs()) / uint64(width))
	if w.expired == nil {
		w.expired = make(map[log.Class]uint32)
	}
	w.expired[c] = first
	return w.batch.DeleteRange(bucketKey(c, 0), bucketKey(c, first), nil)
}

// ExpiryCut returns the latest moment, t at most, before which messages of the
// class can be deleted: the start of t's bucket. The log and the rows are cut at
// the same place, so that a rebuild gives the rows that are left.
func (s *Store) ExpiryCut(c log.Class, t time.Time) time.Time {
	width := bucketWidth(s.opts.Retention(c)).Milliseconds()
	return time.UnixMilli(t.UnixMilli() / width * width).UTC()
}

// Compact gives back the disk space of the class's messages before cut, an
// ExpiryCut, which must have been expired. Reading and appending go on meanwhile.
func (s *Store) Compact(ctx context.Context, c log.Class, cut time.Time) error {
	if !s.maintaining.TryLock() {
		return nil // rebuilt rows hold nothing that has expired
	}
	defer s.maintaining.Unlock()
	first := uint32(cut.UnixMilli() / bucketWidth(s.opts.Retention(c)).Milliseconds())
	if first == 0 {
		return nil
	}
	if err := s.rows.db.Compact(ctx, bucketKey(c, 0), bucketKey(c, first), false); err != nil {
		return fmt.Errorf("compact the rows of %s: %w", s.log.ClassName(c), err)
	}
	return nil
}
