package projections

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// The value of a message row. The event stands there without its stanza, and
// without its owner and its archive id, which the key names.
//
//	ordinal uvarint | length of event uvarint | event (protobuf) | stanza
//
// The row of the conversation with a bare JID has the same value, with the place
// in the conversation: a page of it is one scan like any other. Where the peer
// is a full JID, which few ask for, it is the ordinal uvarint alone, and the rest
// is fetched from the message row. In a room's archive it is the conversation
// with the occupant that has the whole value: their bare JID is the room's own,
// which would be all of the archive once more.

// Row is one archived message.
type Row struct {
	ID       ulid.ULID // under which the archive has it
	Owner    string
	Stanza   []byte // with its own xmlns; not to be changed
	Imported bool   // see log.Reason_REASON_IMPORT

	// Of a room's archive: the occupant's real JID, "" if it is not known, and
	// whether it was shown to all occupants.
	Sender string
	Whois  bool

	sent  int64 // in ms since 1970; 0: the time of ID
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

// Time is when the server had the message, in UTC and whole milliseconds: when
// it was archived, unless it waited somewhere before. Rows are in the order of
// their ids, whatever this time is, and selected by the time of their ids.
func (r Row) Time() time.Time {
	if r.sent != 0 {
		return time.UnixMilli(r.sent).UTC()
	}
	return log.IDTime(r.ID)
}

// The field numbers of log.MessageArchived that every answer looks at.
const (
	fieldReason protowire.Number = 4
	fieldSent   protowire.Number = 9
	fieldSender protowire.Number = 11
	fieldWhois  protowire.Number = 12
)

// newRow reads a row's value. Of the event it takes what an answer shows and
// steps over the rest, which is several times as fast as to decode it.
func newRow(id ulid.ULID, owner string, value []byte) (Row, error) {
	event, stanza, err := parseMessageValue(value)
	if err != nil {
		return Row{}, err
	}
	r := Row{ID: id, Owner: owner, Stanza: stanza, event: event}
	for len(event) > 0 {
		field, typ, n := protowire.ConsumeTag(event)
		if n < 0 {
			return Row{}, errDamagedRow
		}
		event = event[n:]
		switch {
		case typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(event)
			switch field {
			case fieldReason:
				r.Imported = log.Reason(v) == log.Reason_REASON_IMPORT
			case fieldSent:
				r.sent = int64(v)
			case fieldWhois:
				r.Whois = v != 0
			}
		case typ == protowire.BytesType && field == fieldSender:
			var v []byte
			v, n = protowire.ConsumeBytes(event)
			r.Sender = string(v)
		default:
			n = protowire.ConsumeFieldValue(field, typ, event)
		}
		if n < 0 {
			return Row{}, errDamagedRow
		}
		event = event[n:]
	}
	return r, nil
}

func appendMessageValue(b []byte, ordinal uint64, m *log.MessageArchived) ([]byte, error) {
	bare := &log.MessageArchived{
		Peer: m.Peer, Direction: m.Direction, Reason: m.Reason,
		DecidedBy: m.DecidedBy, StanzaId: m.StanzaId, AlsoPeer: m.AlsoPeer,
		SentUnixMs: m.SentUnixMs, Sender: m.Sender, Whois: m.Whois,
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
// the other side's, bare and full; for a message to oneself one's own; in a room
// the occupant's. The row of the first has the whole message.
func withKeys(m *log.MessageArchived) []string {
	keys := make([]string, 0, 3)
	if m.GetDirection() != log.Direction_DIRECTION_ROOM {
		keys = append(keys, bareJID(m.GetPeer()))
	} else if m.GetPeer() == m.GetOwner() {
		return nil // from the room itself
	}
	for _, k := range []string{m.GetPeer(), m.GetAlsoPeer()} {
		if k != "" && !slices.Contains(keys, k) {
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
	id := rec.ArchiveID()
	bucket := w.rows.widths[c].bucketOf(id)
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
	if err := w.batch.Set(withID(prefix, id), value, nil); err != nil {
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
		if i == 0 {
			v = append(v, content...)
		}
		if err := w.batch.Set(withID(prefix, id), v, nil); err != nil {
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
