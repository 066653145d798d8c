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
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

// The content of a message in a row, see chunk.go. The event stands there without its
// stanza, its owner and its archive id.
//
//	flags byte | sent uvarint | length uvarint, sender | length uvarint, event (protobuf) | stanza
//
// What an answer shows stands before the event, which does not have it once more,
// so that it need not be decoded: the time that was sent, in ms since 1970, and in
// a room the sender, each only if its flag is set.
//
// The conversation with a bare JID has the same content, with the place in the
// conversation: a page of it is one scan like any other. Where the peer is a full
// JID, which few ask for, it has no content, and what is shown is fetched from the
// archive's row. In a room's archive it is the conversation with the occupant that
// has the content: their bare JID is the room's own, which would be all of the
// archive once more.

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

	sent    int64  // in ms since 1970; 0: the time of ID
	content []byte // in the row
	event   []byte // in it
}

// moved lets the row's bytes be those in a copy of its content, or none.
func (r *Row) moved(content []byte) {
	r.content = content
	if content == nil {
		r.event, r.Stanza = nil, nil
		return
	}
	stanza := len(content) - len(r.Stanza)
	r.event, r.Stanza = content[stanza-len(r.event):stanza], content[stanza:]
}

// Message is the whole event of the row.
func (r Row) Message() (*log.MessageArchived, error) {
	m := new(log.MessageArchived)
	if err := proto.Unmarshal(r.event, m); err != nil {
		return nil, fmt.Errorf("message %s: %w", r.ID, err)
	}
	if (m.Reason == log.Reason_REASON_IMPORT) != r.Imported { // its flags say something else than its event
		return nil, fmt.Errorf("message %s: %w", r.ID, errDamagedRow)
	}
	m.Owner, m.Stanza, m.SentUnixMs, m.Sender, m.Whois = r.Owner, r.Stanza, r.sent, r.Sender, r.Whois
	return m, nil
}

// UnixMilli is when the server had the message, in ms since 1970: when it was
// archived, unless it waited somewhere before. Rows are in the order of their ids,
// whatever this time is, and selected by the time of their ids.
func (r Row) UnixMilli() int64 {
	if r.sent != 0 {
		return r.sent
	}
	return int64(r.ID.Time())
}

// Time is UnixMilli in UTC.
func (r Row) Time() time.Time { return time.UnixMilli(r.UnixMilli()).UTC() }

const (
	flagSent     byte = 1 << iota // there is a time other than the id's
	flagImported                  // see log.Reason_REASON_IMPORT
	flagSender                    // the sender is known
	flagWhois                     // and was shown to all
)

var errDamagedRow = errors.New("a row is damaged: rebuild the projections")

// read makes r what a message's content says, but for the event.
func (r *Row) read(id ulid.ULID, owner string, content []byte) error {
	if len(content) == 0 {
		return errDamagedRow
	}
	flags, rest := content[0], content[1:]
	r.ID, r.Owner, r.content = id, owner, content
	r.Imported, r.Whois = flags&flagImported != 0, flags&flagWhois != 0
	r.Sender, r.sent = "", 0
	if flags&flagSent != 0 {
		sent, n := binary.Uvarint(rest)
		if n <= 0 {
			return errDamagedRow
		}
		r.sent, rest = int64(sent), rest[n:]
	}
	ok := true
	if flags&flagSender != 0 {
		var sender []byte
		if sender, rest, ok = cutBytes(rest); !ok {
			return errDamagedRow
		}
		r.Sender = string(sender)
	}
	if r.event, r.Stanza, ok = cutBytes(rest); !ok {
		return errDamagedRow
	}
	return nil
}

// cutBytes takes what a length is before.
func cutBytes(b []byte) (head, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	return b[:size:size], b[size:], true
}

func appendContent(b []byte, m *log.MessageArchived, soFar uint64) []byte {
	var flags byte
	for _, f := range [...]struct {
		flag byte
		set  bool
	}{
		{flagSent, m.SentUnixMs != 0}, {flagImported, m.Reason == log.Reason_REASON_IMPORT},
		{flagSender, m.Sender != ""}, {flagWhois, m.Whois},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	b = append(b, flags)
	if m.SentUnixMs != 0 {
		b = binary.AppendUvarint(b, uint64(m.SentUnixMs))
	}
	if m.Sender != "" {
		b = append(binary.AppendUvarint(b, uint64(len(m.Sender))), m.Sender...)
	}
	event := log.MessageArchived{
		Peer: m.Peer, Direction: m.Direction, Reason: m.Reason,
		DecidedBy: m.DecidedBy, StanzaId: m.StanzaId, AlsoPeer: m.AlsoPeer,
		StanzaBytes: m.StanzaBytes, BytesSoFar: soFar,
	}
	b = event.AppendEncoded(binary.AppendUvarint(b, uint64(event.EncodedSize())))
	return append(b, m.Stanza...)
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
	if err := w.width(c); err != nil {
		return err
	}
	id := rec.ArchiveID()
	bucket := w.rows.widths[c].bucketOf(id)
	w.touch(c, bucket)

	// First what can fail and what looks into the engine, then at once what readers see.
	var few [4]addition
	all := few[:0]
	w.prefix = w.prefix[:0]
	peers := withKeys(m)
	for i := range len(peers) + 1 {
		peer := ""
		if i > 0 {
			peer = peers[i-1]
		}
		from := len(w.prefix)
		w.prefix = appendRowsPrefix(w.prefix, c, bucket, m.GetOwner(), peer)
		a := addition{prefix: w.prefix[from:]}
		a.key = w.rows.tallies.hash(a.prefix)
		var err error
		if a.tally, err = w.next(c, bucket, a.prefix, a.key, i > 0, id, counted(m)); err != nil {
			return err
		}
		if i == 0 {
			w.content = appendContent(w.content[:0], m, a.tally.bytes)
		}
		a.whole = i < 2
		all = append(all, a)
	}
	w.rows.tail.add(c, bucket, id, w.content, all)
	return nil
}

// width makes the class's bucket width known.
func (w *writer) width(c log.Class) error {
	if _, ok := w.rows.widths[c]; ok {
		return nil
	}
	width := w.store.width(c)
	if err := w.batch.Set(widthKey(c), binary.BigEndian.AppendUint64(nil, uint64(width)), nil); err != nil {
		return err
	}
	w.rows.spanMu.Lock()
	w.rows.widths[c] = width
	w.rows.spanMu.Unlock()
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
	w.expired[c], w.moved = first, true
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
	if err := log.CompactRange(ctx, s.rows.db, bucketKey(c, 0), bucketKey(c, first)); err != nil {
		return fmt.Errorf("compact the rows of %s: %w", s.log.ClassName(c), err)
	}
	return nil
}
