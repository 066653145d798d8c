package projections

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

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

	spare    *part  // empty, with the memory of one that was written
	reserved func() // gives back to the cache what the tail takes of its size; nil before it was full once

	writing chan error // what becomes of the full one; nil without one
	failed  error      // nothing is written any more
}

// tailBytes is how much memory a part takes before it is full.
const tailBytes = 16 << 20

// part is one of the two. Only the folder changes it, and none once it is full.
type part struct {
	index   map[[2]uint64]int // in rows, by the hash of the prefix, see tallies
	rows    []tailRow
	buckets []classBucket // that rows lie in; mostly one
	bytes   int           // that all of it takes, about
	written int           // bytes that the engine gets of it, about

	// Ids and contents of messages, one after the other, once for all rows that have
	// them. What is there does not change, since readers have it.
	messages []byte
	readers  atomic.Int32 // who have it

	// Memory from which rows are cut.
	prefixes pieces[byte]
	spans    pieces[messageSpan]
}

func newPart() *part {
	return &part{index: make(map[[2]uint64]int), prefixes: pieces[byte]{size: 64 << 10}, spans: pieces[messageSpan]{size: 4 << 10}}
}

// empty makes the part a new one with the memory of the old.
func (p *part) empty() *part {
	clear(p.index)
	clear(p.rows)
	p.prefixes.empty()
	p.spans.empty()
	return &part{index: p.index, rows: p.rows[:0], buckets: p.buckets[:0], messages: p.messages[:0], prefixes: p.prefixes, spans: p.spans}
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

// rowHeadSize is how much a row takes beside its prefix and value, at most.
const rowHeadSize = 1 + len(ulid.ULID{}) + 2*binary.MaxVarintLen32

// pieces are pieces of memory of one size.
type pieces[T any] struct {
	size int
	all  [][]T // those before used are full, and that at used is cut
	used int
}

// cut returns room for n.
func (p *pieces[T]) cut(n int) []T {
	if n > p.size/4 {
		return make([]T, 0, n)
	}
	if p.used < len(p.all) && n > cap(p.all[p.used])-len(p.all[p.used]) {
		p.used++
	}
	if p.used == len(p.all) {
		p.all = append(p.all, make([]T, 0, p.size))
	}
	piece := &p.all[p.used]
	from := len(*piece)
	*piece = (*piece)[:from+n]
	return (*piece)[from : from : from+n]
}

// empty lets all be cut anew.
func (p *pieces[T]) empty() {
	for i := range p.all {
		p.all[i] = p.all[i][:0]
	}
	p.used = 0
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
		if p, t.spare = t.spare, nil; p == nil {
			p = newPart()
		}
		t.parts[0] = p
	}
	if n := len(p.messages) + len(id) + len(content); n > cap(p.messages) {
		p.messages = append(make([]byte, 0, max(2*cap(p.messages), n, 64<<10)), p.messages...)
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
		}
		if a.tally.chunk == id {
			r.begins = append(r.begins, int32(n))
		}
		if n == 0 || a.tally.chunk == id {
			p.written += rowHeadSize + len(r.prefix)
		}
		if n == cap(r.messages) { // what it had stays as it is, for readers
			r.messages = append(p.spans.cut(max(2*n, 1)), r.messages...)
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
	p.rows = append(p.rows, tailRow{prefix: append(p.prefixes.cut(len(a.prefix)), a.prefix...), key: a.key})
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

// write puts the rows of the part into the batch, with the position up to which they
// were folded.
func (p *part) write(b *pebble.Batch, position ulid.ULID) error {
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
	return b.Set(keyPosition, position[:], nil)
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
	position := r.position
	if r.tail.reserved == nil {
		r.tail.reserved = r.reserve()
	}
	r.remember(full)
	r.tail.mu.Lock()
	r.tail.parts = [2]*part{nil, full}
	r.tail.mu.Unlock()
	done := make(chan error, 1)
	r.tail.writing = done
	go func() {
		b := r.db.NewBatchWithSize(full.written + 64)
		err := full.write(b, position)
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
		p = newPart()
	}
	r.remember(p)
	if err := p.write(b, position); err != nil {
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

func (t *tail) drop(p *part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.parts {
		if t.parts[i] == p {
			t.parts[i] = nil
			if p.readers.Load() == 0 {
				t.spare = p.empty()
			}
		}
	}
}

// reserve takes what a tail in use needs from what the cache may have: two parts, and
// the batch that one of them becomes.
func (r *rows) reserve() (release func()) {
	if r.cache == nil {
		return func() {}
	}
	return r.cache.Reserve(int(min(3*tailBytes, r.cache.MaxSize()/4)))
}

// hold returns the parts as they are, which nobody empties until they are released.
// r.tail.mu is held.
func (t *tail) hold() [2]*part {
	for _, p := range t.parts {
		if p != nil {
			p.readers.Add(1)
		}
	}
	return t.parts
}

func release(parts [2]*part) {
	for _, p := range parts {
		if p != nil {
			p.readers.Add(-1)
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
// of sp; the key's bucket changes. It is good while the parts are held, and belongs to
// iterators that are opened later. r.tail.mu is held.
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
