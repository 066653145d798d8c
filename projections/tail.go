package projections

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// The tail is what was folded last of the rows of messages: they gather in memory, by
// prefix, and are written to the engine many at a time. So the engine takes whole
// tables in the order of their keys, a few rows for each archive, in place of a row for
// every message that it would have to sort. The log has them, so that nothing is lost
// with the memory: what the engine says of its position is behind what is written.
//
// It has up to two parts: one that grows, and a full one that is being written. Readers
// look at both before they open an iterator: what is written meanwhile they have twice,
// and see it once, see cursor.
type tail struct {
	mu    sync.RWMutex // held for writing while readers may look
	parts [2]*part     // newest first; nil where there is none

	expected int // bytes of messages in the next part: as many as in the last full one

	writing chan error // what becomes of the full one; nil without one
	failed  error      // nothing is written any more
}

// tailBytes is how much memory a part takes before it is full.
const tailBytes = 32 << 20

// part is one of the two. Only the folder changes it, and none once it is full.
type part struct {
	index   map[[2]uint64]int // in rows, by the hash of the prefix, see tallies
	rows    []tailRow
	buckets []classBucket // that rows lie in; mostly one
	upTo    ulid.ULID     // of the record that was folded last into it
	bytes   int           // that all of it takes, about
	written int           // bytes that the engine gets of it, about

	// Ids and contents of messages, one after the other, once for all rows that have
	// them. What is there does not change, since readers have it.
	messages []byte

	// Pieces of memory from which rows are cut.
	prefixes []byte
	spans    []messageSpan
}

type classBucket struct {
	class  log.Class
	bucket uint32
}

// tailRow has the messages under a prefix that came since the part began.
type tailRow struct {
	prefix   []byte
	messages []messageSpan // in part.messages; they may be of several chunks
	tally    tally         // with the newest of them
	key      [2]uint64
	into     ulid.ULID // the chunk that the first message goes into
	begins   []int32   // which messages begin a chunk
}

// The sizes of the pieces.
const (
	pieceBytes = 64 << 10
	pieceSpans = 4 << 10
)

// rowHeadSize is how much a row takes beside its prefix and value, at most.
const rowHeadSize = 1 + len(ulid.ULID{}) + 2*binary.MaxVarintLen32

// cut takes n from the piece of memory, of which there are new ones of the size block.
func cut[T any](piece *[]T, n, block int) []T {
	if n > block/4 {
		return make([]T, 0, n)
	}
	if n > cap(*piece)-len(*piece) {
		*piece = make([]T, 0, block)
	}
	from := len(*piece)
	*piece = (*piece)[:from+n]
	return (*piece)[from : from : from+n]
}

// addition is a message for one row.
type addition struct {
	prefix []byte
	key    [2]uint64 // its hash
	tally  tally
	whole  bool // with its content
}

// add shows readers the message id under all its prefixes.
func (t *tail) add(c log.Class, bucket uint32, id ulid.ULID, content []byte, all []addition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[0]
	if p == nil {
		p = &part{index: make(map[[2]uint64]int), messages: make([]byte, 0, t.expected)}
		t.parts[0] = p
	}
	if n := len(p.messages) + len(id) + len(content); n > cap(p.messages) {
		p.messages = append(make([]byte, 0, max(2*cap(p.messages), n, pieceBytes)), p.messages...)
	}
	at := messageSpan{id: uint32(len(p.messages))}
	p.messages = append(p.messages, id[:]...)
	at.content = uint32(len(p.messages))
	p.messages = append(p.messages, content...)
	p.bytes += len(id) + len(content)
	for i := range all {
		a := &all[i]
		r := p.row(c, bucket, a)
		if at.end = at.content; a.whole {
			at.end = uint32(len(p.messages))
		}
		at.ordinal = a.tally.ordinal
		n := len(r.messages)
		p.written += messageHeadSize + int(at.end-at.content)
		if n == 0 {
			r.into = a.tally.chunk
			p.written += rowHeadSize + len(r.prefix)
		} else if a.tally.chunk == id {
			p.written += rowHeadSize + len(r.prefix)
		}
		if a.tally.chunk == id {
			r.begins = append(r.begins, int32(n))
		}
		if n == cap(r.messages) { // what it had stays as it is, for readers
			r.messages = append(cut(&p.spans, max(2*n, 1), pieceSpans), r.messages...)
			p.bytes += 2 * 24 * cap(r.messages)
		}
		r.messages, r.tally = append(r.messages, at), a.tally
	}
}

// row is the row under the prefix, which is made if it isn't there.
func (p *part) row(c log.Class, bucket uint32, a *addition) *tailRow {
	if i, ok := p.index[a.key]; ok {
		return &p.rows[i]
	}
	p.index[a.key] = len(p.rows)
	p.bytes += len(a.prefix) + 256 // the row and its place in the index
	p.rows = append(p.rows, tailRow{prefix: append(cut(&p.prefixes, len(a.prefix), pieceBytes), a.prefix...), key: a.key})
	if cb := (classBucket{c, bucket}); !slices.Contains(p.buckets, cb) {
		p.buckets = append(p.buckets, cb)
	}
	return &p.rows[len(p.rows)-1]
}

// find is the row under the prefix with that hash; nil if there is none.
func (p *part) find(key [2]uint64) *tailRow {
	if p == nil {
		return nil
	}
	if i, ok := p.index[key]; ok {
		return &p.rows[i]
	}
	return nil
}

// chunk is what r has, to be read.
func (p *part) chunk(r *tailRow) chunk { return chunk{p.messages, r.messages} }

// write puts the rows of the part into the batch.
func (p *part) write(b *pebble.Batch) error {
	order := make([]*tailRow, len(p.rows))
	for i := range p.rows {
		order[i] = &p.rows[i]
	}
	slices.SortFunc(order, func(a, b *tailRow) int { return bytes.Compare(a.prefix, b.prefix) })
	for _, r := range order {
		// The newest first, as the keys go.
		all := p.chunk(r)
		for to, n := all.len(), len(r.begins); to > 0; n-- {
			into, from := r.into, 0
			if n > 0 {
				from = int(r.begins[n-1])
				into = all.id(from)
			}
			size := 0
			for i := from; i < to; i++ {
				size += messageSize(all.ordinal(i), all.content(i))
			}
			var op *pebble.DeferredBatchOp
			if n > 0 {
				op = b.SetDeferred(len(r.prefix)+len(into), size)
			} else {
				op = b.MergeDeferred(len(r.prefix)+len(into), size)
			}
			appendRowID(append(op.Key[:0], r.prefix...), into)
			value := op.Value[:0]
			for i := from; i < to; i++ {
				value = appendMessage(value, all.id(i), all.ordinal(i), all.content(i))
			}
			to = from
			if err := op.Finish(); err != nil {
				return err
			}
		}
	}
	return b.Set(keyPosition, p.upTo[:], nil)
}

// turnTail lets the part that grows be written, and begins another. It waits while
// there is a full one already.
func (r *rows) turnTail() error {
	if err := r.waitTail(); err != nil {
		return err
	}
	full := r.tail.parts[0]
	if full == nil {
		return nil
	}
	full.upTo = r.position
	r.tail.expected = len(full.messages)
	r.remember(full)
	r.tail.show([2]*part{nil, full})
	done := make(chan error, 1)
	r.tail.writing = done
	go func() {
		b := r.db.NewBatchWithSize(full.written + 64)
		err := full.write(b)
		if err == nil {
			err = b.Commit(pebble.NoSync)
		}
		if err = errors.Join(err, b.Close()); err == nil {
			r.tail.drop(full)
		}
		done <- err
	}()
	return nil
}

// waitTail returns when no part is being written.
func (r *rows) waitTail() error {
	if r.tail.writing != nil {
		err := <-r.tail.writing
		if r.tail.writing = nil; err != nil {
			r.tail.failed = fmt.Errorf("write the newest rows: %w", err)
		}
	}
	return r.tail.failed
}

// writeTail gives all to the engine, and returns when it is there.
func (r *rows) writeTail() error {
	if err := r.turnTail(); err != nil {
		return err
	}
	return r.waitTail()
}

// commitWithTail commits what b has together with the tail, as of position.
func (r *rows) commitWithTail(b *pebble.Batch, position ulid.ULID, moved bool) error {
	if err := r.waitTail(); err != nil {
		return err
	}
	p := r.tail.parts[0]
	if p == nil {
		p = new(part)
	}
	p.upTo = position
	r.remember(p)
	if err := p.write(b); err != nil {
		return err
	}
	if err := r.commit(b, moved); err != nil {
		return err
	}
	r.tail.drop(p)
	return nil
}

// remember notes the tallies of a part that goes.
func (r *rows) remember(p *part) {
	for i := range p.rows {
		r.tallies.set(p.rows[i].key, p.rows[i].tally)
	}
}

func (t *tail) show(parts [2]*part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parts = parts
}

func (t *tail) drop(p *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.parts {
		if t.parts[i] == p {
			t.parts[i] = nil
		}
	}
}

// settleTail lets all that was acknowledged be in the engine, for readers that look at
// more than the rows of one archive.
func (s *Store) settleTail() error {
	if err := s.log.Await(); err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.rows.writeTail()
}

// bucketTail is what the tail has for a cursor in one bucket: the newest first.
type bucketTail struct {
	bucket uint32
	chunks [2]chunk
	n      int
}

// tails appends to found what there is under the key, which is a prefix, in the buckets
// of sp; the key's bucket changes. It is good for ever, and belongs to iterators that
// are opened later. r.tail.mu is held.
func (r *rows) tails(found []bucketTail, c log.Class, sp span, key []byte) []bucketTail {
	for i, p := range r.tail.parts {
		if p == nil {
			continue
		}
		for _, b := range p.buckets {
			if b.class != c || b.bucket < sp.first || b.bucket > sp.last {
				continue
			}
			setKeyBucket(key, b.bucket)
			row := p.find(r.tallies.hash(key))
			if row == nil {
				continue
			}
			at := slices.IndexFunc(found, func(t bucketTail) bool { return t.bucket == b.bucket })
			if at < 0 || i == 0 {
				at, found = len(found), append(found, bucketTail{bucket: b.bucket})
			}
			t := &found[at]
			t.chunks[t.n] = p.chunk(row)
			t.n++
		}
	}
	return found
}
