package projections

import (
	"errors"
	"hash/maphash"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// A tally is what the newest row under a prefix says: the ordinal that was given
// last, in an archive, not in a conversation, how many bytes there are so far, and
// which chunk is the newest.
type tally struct {
	ordinal, bytes uint64
	chunk          ulid.ULID
}

// tallies remembers those of the prefixes written to of late: two maps, the older of
// which is dropped when the newer is full. Prefixes are known by 128 bits of hash under
// seeds of this process, so that the maps have no pointers, which the garbage collector
// would have to follow, and little memory for each of many prefixes.
type tallies struct {
	seeds         [2]maphash.Seed
	most          int // in each map
	recent, older map[[2]uint64]tally

	// From which bucket of a class on all prefixes are remembered, so that one that
	// isn't has no rows. A class that is missing has no rows at all.
	whole map[log.Class]uint32
}

func newTallies(most int) tallies {
	if most == 0 {
		most = 1 << 18
	}
	return tallies{most: most, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, whole: make(map[log.Class]uint32)}
}

// forget drops everything. Nothing may lie in a bucket behind spans.
func (t *tallies) forget(spans map[log.Class]span) {
	t.recent, t.older = nil, nil
	t.dropped(spans)
}

func (t *tallies) dropped(spans map[log.Class]span) {
	for c, sp := range spans {
		t.whole[c] = sp.last + 1
	}
}

// turn makes room. It is called between batches only: what a batch has written
// can't be read from the engine before its end.
func (t *tallies) turn(spans map[log.Class]span) {
	if len(t.recent) <= t.most {
		return
	}
	if t.older != nil {
		t.dropped(spans)
	}
	t.older, t.recent = t.recent, nil
}

// hash is the key of prefix.
func (t *tallies) hash(prefix []byte) [2]uint64 {
	return [2]uint64{maphash.Bytes(t.seeds[0], prefix), maphash.Bytes(t.seeds[1], prefix)}
}

func (t *tallies) get(key [2]uint64) (n tally, ok bool) {
	if n, ok = t.recent[key]; !ok {
		n, ok = t.older[key]
	}
	return n, ok
}

func (t *tallies) set(key [2]uint64, n tally) {
	if t.recent == nil {
		t.recent = make(map[[2]uint64]tally)
	}
	t.recent[key] = n
}

func (t *tallies) isWhole(c log.Class, bucket uint32) bool { return bucket >= t.whole[c] }

// raise takes note of a row that keeps the place of others.
func (t *tallies) raise(c log.Class, bucket uint32, prefix []byte, n tally) {
	key := t.hash(prefix)
	if known, ok := t.get(key); ok || t.isWhole(c, bucket) {
		if known.chunk.Compare(n.chunk) > 0 {
			n.chunk = known.chunk
		}
		t.set(key, tally{max(known.ordinal, n.ordinal), max(known.bytes, n.bytes), n.chunk})
	}
}

// next is the tally with the message id of that size, which comes next under prefix,
// in a conversation or an archive; key is the prefix's.
func (w *writer) next(c log.Class, bucket uint32, prefix []byte, key [2]uint64, conversation bool, id ulid.ULID, size uint64) (tally, error) {
	n, err := w.rows.last(c, bucket, prefix, key, conversation)
	if err != nil {
		return tally{}, err
	}
	if n.ordinal == math.MaxUint64 {
		return tally{}, errors.New("the rows are damaged: an ordinal is out of range")
	}
	n.ordinal++
	if !conversation {
		n.bytes += size
	}
	if begins(n.ordinal, size) {
		n.chunk = id
	}
	return n, nil
}

// last is the tally with the newest message under prefix.
func (r *rows) last(c log.Class, bucket uint32, prefix []byte, key [2]uint64, conversation bool) (tally, error) {
	if row := r.tail.parts[0].find(key); row != nil {
		return row.tally, nil
	}
	if n, ok := r.tallies.get(key); ok {
		return n, nil
	}
	r.tail.mu.RLock()
	if row := r.tail.parts[1].find(key); row != nil { // it has not been written yet
		defer r.tail.mu.RUnlock()
		return row.tally, nil
	}
	r.tail.mu.RUnlock()
	if r.tallies.isWhole(c, bucket) {
		return tally{}, nil
	}
	return r.newest(prefix, conversation)
}

// newest reads the tally of the newest row under prefix, zero if there is none.
func (r *rows) newest(prefix []byte, conversation bool) (n tally, err error) {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: end(prefix)})
	if err != nil {
		return tally{}, err
	}
	if it.First() {
		n, err = newestOf(it, conversation)
	}
	return n, errors.Join(err, it.Close())
}

// newestOf is newest for the row where the iterator stands.
func newestOf(it *pebble.Iterator, conversation bool) (n tally, err error) {
	var c chunk
	if err := c.read(it.Value()); err != nil {
		return n, err
	}
	if c.len() == 0 {
		return n, errDamagedRow
	}
	last := c.len() - 1
	n = tally{ordinal: c.ordinal(last), chunk: rowID(it.Key())}
	if !conversation {
		n.bytes, err = bytesSoFar(c.content(last))
	}
	return n, err
}
