package projections

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// Query asks for one page of one archive.
type Query struct {
	Class log.Class
	Owner string // bare JID
	With  string // bare or full JID; "" for all

	// The result set. The bounds hold together; zero values are open.
	NotBefore     time.Time   // retention: an older message does not exist
	Floor         ulid.ULID   // nor does one up to this id
	Since, Until  time.Time   // inclusive
	After, Before ulid.ULID   // exclusive
	IDs           []ulid.ULID // if not nil, only these

	// The page of it (XEP-0059).
	PageAfter, PageBefore ulid.ULID // exclusive
	Backward              bool      // the last Max of what is left, not the first
	Index                 int       // skip so many of the result set; forward only
	Max                   int       // rows at most; 0 only counts

	// MaxBytes, if not 0, ends the page at the row that reaches so many bytes,
	// which it still holds. A row counts for its stanza, about as much as the rest
	// of its event has, and RowBytes.
	MaxBytes, RowBytes int
}

// Page is a part of a result set, oldest first.
type Page struct {
	Rows     []Row
	Count    int  // of the whole result set, exact
	Index    int  // of Rows[0] in the result set; 0 without rows
	Complete bool // nothing of the result set is left in the direction of paging
}

// NotFoundError says that a query names an id that the archive does not hold,
// or no longer.
type NotFoundError struct{ ID ulid.ULID }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("there is no message %s in the archive", e.ID)
}

var maxID = ulid.ULID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Query returns the page, as of one moment. An id in After, Before, IDs,
// PageAfter or PageBefore that the archive does not hold is a *NotFoundError;
// whether the message matches the other bounds does not matter. Since, Until and
// NotBefore go by the time of the ids, which for a message that waited somewhere
// is later than its Row.Time. The cost grows with Max, with the number of IDs and with the number of time buckets that the
// bounds span, and not with the size of the archive.
func (s *Store) Query(q Query) (page Page, err error) {
	err = s.read(func(r *rows) error {
		page, err = r.query(q)
		return err
	})
	var missing *NotFoundError
	if err != nil && !errors.As(err, &missing) {
		err = fmt.Errorf("query the archive of %s: %w", q.Owner, err)
	}
	return page, err
}

func (r *rows) query(q Query) (Page, error) {
	sc, err := r.newScan(q.Class, q.Owner, q.With)
	if err != nil {
		return Page{}, err
	}
	defer sc.close()
	all := interval{hi: maxID}.from(ceilID(q.NotBefore)).after(q.Floor)
	for _, id := range append([]ulid.ULID{q.After, q.Before, q.PageAfter, q.PageBefore}, q.IDs...) {
		if id == (ulid.ULID{}) {
			continue
		}
		if ok, err := sc.holds(id, all.lo); err != nil {
			return Page{}, err
		} else if !ok {
			return Page{}, &NotFoundError{id}
		}
	}
	set := all.from(ceilID(q.Since)).after(q.After).before(q.Before)
	if !q.Until.IsZero() {
		if hi := log.FirstAt(q.Until.Truncate(time.Millisecond).Add(time.Millisecond)); hi.Compare(set.hi) < 0 {
			set.hi = hi // zero for a time before 1970: nothing is that old
		}
	}
	left := set.after(q.PageAfter).before(q.PageBefore)
	if q.IDs != nil {
		return sc.pick(q, set, left)
	}
	return sc.page(q, set, left)
}

// ceilID is the smallest id of a message that is not before t.
func ceilID(t time.Time) ulid.ULID {
	if t.IsZero() {
		return ulid.ULID{}
	}
	if ms := t.Truncate(time.Millisecond); ms.Before(t) {
		t = ms.Add(time.Millisecond)
	}
	return log.FirstAt(t)
}

// interval is a range of ids: lo is in it, hi is not.
type interval struct{ lo, hi ulid.ULID }

func (i interval) from(id ulid.ULID) interval {
	if id.Compare(i.lo) > 0 {
		i.lo = id
	}
	return i
}

func (i interval) after(id ulid.ULID) interval {
	if id == (ulid.ULID{}) {
		return i
	}
	for n := len(id) - 1; n >= 0; n-- {
		if id[n]++; id[n] != 0 {
			break
		}
	}
	return i.from(id)
}

func (i interval) before(id ulid.ULID) interval {
	if id != (ulid.ULID{}) && id.Compare(i.hi) < 0 {
		i.hi = id
	}
	return i
}

func (i interval) contains(id ulid.ULID) bool { return id.Compare(i.lo) >= 0 && id.Compare(i.hi) < 0 }

// scan reads the rows of one archive, or of one conversation in it, as of one
// moment.
type scan struct {
	*rows
	class       log.Class
	owner, peer string
	width       width
	span        span // buckets that may hold something
	empty       bool // none does
	it          *pebble.Iterator
	messages    *pebble.Iterator // for a conversation: to find message rows; else it
	arena       []byte           // what keep copies into
	key         []byte           // of a message row in keyBucket, to look up others with
	keyBucket   uint32
}

func (r *rows) newScan(c log.Class, owner, peer string) (*scan, error) {
	sc := &scan{rows: r, class: c, owner: owner, peer: peer}
	r.spanMu.RLock()
	sp, ok := r.spans[c]
	sc.width = r.widths[c]
	r.spanMu.RUnlock()
	sc.span, sc.empty = sp, !ok
	if sc.empty {
		return sc, nil
	}
	var err error
	sc.it, err = r.db.NewIter(&pebble.IterOptions{
		LowerBound: bucketKey(c, sp.first), UpperBound: end(bucketKey(c, sp.last)),
	})
	if err != nil {
		return nil, err
	}
	sc.messages = sc.it
	if peer != "" {
		if sc.messages, err = sc.it.Clone(pebble.CloneOptions{}); err != nil {
			return nil, errors.Join(err, sc.it.Close())
		}
	}
	return sc, nil
}

func (sc *scan) close() {
	if sc.it == nil {
		return
	}
	// An iterator that failed has said so where it was used.
	if sc.messages != sc.it {
		_ = sc.messages.Close()
	}
	_ = sc.it.Close()
}

// holds tells whether the archive holds the message id, be it in the
// conversation or not.
func (sc *scan) holds(id, floor ulid.ULID) (bool, error) {
	if sc.empty || id.Compare(floor) < 0 {
		return false, nil
	}
	return has(sc.messages, withID(rowsPrefix(sc.class, sc.width.bucketOf(id), sc.owner, ""), id))
}

func has(it *pebble.Iterator, key []byte) (bool, error) {
	if !it.SeekGE(key) {
		return false, it.Error()
	}
	return slices.Equal(it.Key(), key), nil
}

// buckets are the ones that i lies in, of those that may hold something.
func (sc *scan) buckets(i interval) (sp span, ok bool) {
	if sc.empty || i.lo.Compare(i.hi) >= 0 {
		return span{}, false
	}
	sp = sc.span
	if i.lo.Time() > 0 {
		sp.first = max(sp.first, sc.width.bucketOf(i.lo))
	}
	if i.hi != maxID {
		sp.last = min(sp.last, sc.width.bucketOf(i.hi))
	}
	return sp, sp.first <= sp.last
}

// rank is the number of rows in the bucket with an id below id.
func (sc *scan) rank(bucket uint32, id ulid.ULID) (uint64, error) {
	if id.Compare(sc.width.start(bucket)) <= 0 {
		return 0, nil
	}
	prefix := rowsPrefix(sc.class, bucket, sc.owner, sc.peer)
	if !sc.it.SeekLT(withID(prefix, id)) {
		return 0, sc.it.Error()
	}
	if !under(sc.it.Key(), prefix) {
		return 0, nil
	}
	return sc.ordinal()
}

// under tells whether key is prefix and an id.
func under(key, prefix []byte) bool {
	return len(key) == len(prefix)+16 && string(key[:len(prefix)]) == string(prefix)
}

// ordinal is the one of the row that sc.it stands at.
func (sc *scan) ordinal() (uint64, error) {
	n, size := binary.Uvarint(sc.it.Value())
	if size <= 0 {
		return 0, errDamagedRow
	}
	return n, nil
}

// counts are the numbers of rows in i, bucket by bucket from sp.first.
func (sc *scan) counts(i interval, sp span) (counts []uint64, total uint64, err error) {
	counts = make([]uint64, 0, sp.last-sp.first+1)
	for b := sp.first; b <= sp.last; b++ {
		hi, err := sc.rank(b, i.hi)
		if err != nil {
			return nil, 0, err
		}
		var lo uint64
		if hi > 0 {
			if lo, err = sc.rank(b, i.lo); err != nil {
				return nil, 0, err
			}
		}
		counts = append(counts, hi-lo)
		total += hi - lo
	}
	return counts, total, nil
}

// page reads the rows that q asks for of what is left of the set.
func (sc *scan) page(q Query, set, left interval) (Page, error) {
	sp, ok := sc.buckets(set)
	if !ok {
		return Page{Complete: true}, nil
	}
	if q.Index > 0 && !q.Backward {
		counts, _, err := sc.counts(set, sp)
		if err != nil {
			return Page{}, err
		}
		lo, err := sc.nth(set, sp, counts, uint64(q.Index))
		if err != nil {
			return Page{}, err
		}
		left = left.from(lo)
	}
	// First the rows: an id that the page starts at was just looked up, and the
	// iterator is near.
	c := newCollector(q)
	if err := sc.walk(left, q.Backward, c); err != nil {
		return Page{}, err
	}
	counts, total, err := sc.counts(set, sp)
	if err != nil {
		return Page{}, err
	}
	page := Page{Count: int(total), Complete: !c.more}
	if len(c.rows) == 0 {
		return page, nil
	}
	if q.Backward {
		slices.Reverse(c.rows)
	}
	first := c.rows[0]
	bucket := sc.width.bucketOf(first.id)
	index := first.ordinal - 1
	if bucket == sp.first {
		lo, err := sc.rank(bucket, set.lo)
		if err != nil {
			return Page{}, err
		}
		index -= lo
	}
	for _, n := range counts[:bucket-sp.first] {
		index += n
	}
	page.Index = int(index)
	page.Rows, err = sc.load(c.rows)
	return page, err
}

// found is a row of the page.
type found struct {
	id      ulid.ULID
	ordinal uint64
	value   []byte
}

// collector takes the rows of a page, from where it starts, until it is full.
type collector struct {
	rows            []found
	max             int
	bytes, maxBytes int
	perRow          int
	more            bool // there is a row that it did not take
}

func newCollector(q Query) *collector {
	c := &collector{rows: make([]found, 0, min(q.Max, 64)), max: q.Max, maxBytes: q.MaxBytes, perRow: q.RowBytes}
	if c.maxBytes == 0 {
		c.maxBytes = math.MaxInt
	}
	return c
}

// full tells whether the page ends before a row that there is.
func (c *collector) full() bool {
	c.more = len(c.rows) >= c.max || c.bytes >= c.maxBytes
	return c.more
}

func (c *collector) add(f found) {
	c.rows = append(c.rows, f)
	c.bytes += len(f.value) + c.perRow
}

// walk gives the rows in i to c until it is full.
func (sc *scan) walk(i interval, backward bool, c *collector) error {
	sp, ok := sc.buckets(i)
	if !ok {
		return nil
	}
	for n := range int64(sp.last-sp.first) + 1 {
		bucket := sp.first + uint32(n)
		seek, from, step := sc.it.SeekGE, i.lo, sc.it.Next
		if backward {
			bucket = sp.last - uint32(n)
			seek, from, step = sc.it.SeekLT, i.hi, sc.it.Prev
		}
		prefix := rowsPrefix(sc.class, bucket, sc.owner, sc.peer)
		for ok := seek(withID(prefix, from)); ok && under(sc.it.Key(), prefix); ok = step() {
			if id := rowID(sc.it.Key()); !i.contains(id) {
				break
			}
			if c.full() {
				return nil
			}
			f, err := sc.take()
			if err != nil {
				return err
			}
			c.add(f)
		}
		if err := sc.it.Error(); err != nil {
			return err
		}
	}
	return nil
}

// take reads the row that sc.it stands at, with the content from its message row
// where it has none of its own.
func (sc *scan) take() (f found, err error) {
	f.id = rowID(sc.it.Key())
	var size int
	if f.ordinal, size = binary.Uvarint(sc.it.Value()); size <= 0 {
		return f, errDamagedRow
	}
	if size < len(sc.it.Value()) {
		f.value = sc.keep(sc.it.Value())
		return f, nil
	}
	f.value, err = sc.content(f.id)
	return f, err
}

// content is the value of a message row.
func (sc *scan) content(id ulid.ULID) ([]byte, error) {
	bucket := sc.width.bucketOf(id)
	if sc.key == nil || bucket != sc.keyBucket {
		sc.key, sc.keyBucket = append(rowsPrefix(sc.class, bucket, sc.owner, ""), id[:]...), bucket
	}
	copy(sc.key[len(sc.key)-len(id):], id[:])
	ok, err := has(sc.messages, sc.key)
	if err == nil && !ok {
		err = errDamagedRow
	}
	if err != nil {
		return nil, err
	}
	return sc.keep(sc.messages.Value()), nil
}

// load turns what was found into rows.
func (sc *scan) load(rows []found) (out []Row, err error) {
	out = make([]Row, len(rows))
	for n, f := range rows {
		if out[n], err = newRow(f.id, sc.owner, f.value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// keep copies a value that the iterator will take back; the copies of a page
// lie in few pieces of memory.
func (sc *scan) keep(v []byte) []byte {
	if len(v) > cap(sc.arena)-len(sc.arena) {
		sc.arena = make([]byte, 0, max(len(v), 16<<10))
	}
	from := len(sc.arena)
	sc.arena = append(sc.arena, v...)
	return sc.arena[from:len(sc.arena):len(sc.arena)]
}

// nth is the id of the row with so many rows of the set before it; past the end
// of the set it is the set's end.
func (sc *scan) nth(set interval, sp span, counts []uint64, n uint64) (ulid.ULID, error) {
	b := sp.first
	for ; b <= sp.last && n >= counts[b-sp.first]; b++ {
		n -= counts[b-sp.first]
	}
	if b > sp.last {
		return set.hi, nil
	}
	lo, err := sc.rank(b, set.lo)
	if err != nil {
		return ulid.ULID{}, err
	}
	target := lo + n // rows of the bucket below the one looked for
	// Bisect the milliseconds of the bucket, then step through the one.
	from := sc.width.start(b).Time()
	to := sc.width.start(b + 1).Time()
	for to-from > 1 {
		mid := from + (to-from)/2
		below, err := sc.rank(b, log.FirstAt(time.UnixMilli(int64(mid))))
		if err != nil {
			return ulid.ULID{}, err
		}
		if below <= target {
			from = mid
		} else {
			to = mid
		}
	}
	prefix := rowsPrefix(sc.class, b, sc.owner, sc.peer)
	for ok := sc.it.SeekGE(withID(prefix, log.FirstAt(time.UnixMilli(int64(from))))); ok && under(sc.it.Key(), prefix); ok = sc.it.Next() {
		ordinal, err := sc.ordinal()
		if err != nil {
			return ulid.ULID{}, err
		}
		if ordinal == target+1 {
			return rowID(sc.it.Key()), nil
		}
	}
	return set.hi, sc.it.Error()
}

// pick answers a query for single ids. They are held already.
func (sc *scan) pick(q Query, set, left interval) (Page, error) {
	ids := slices.Clone(q.IDs)
	slices.SortFunc(ids, ulid.ULID.Compare)
	ids = slices.Compact(ids)
	var matching []ulid.ULID
	for _, id := range ids {
		if !set.contains(id) {
			continue
		}
		ok := true
		if sc.peer != "" {
			var err error
			if ok, err = has(sc.it, withID(rowsPrefix(sc.class, sc.width.bucketOf(id), sc.owner, sc.peer), id)); err != nil {
				return Page{}, err
			}
		}
		if ok {
			matching = append(matching, id)
		}
	}
	page := Page{Count: len(matching)}
	from, to := 0, len(matching)
	for from < to && matching[from].Compare(left.lo) < 0 {
		from++
	}
	for to > from && matching[to-1].Compare(left.hi) >= 0 {
		to--
	}
	if !q.Backward {
		from = min(max(from, q.Index), to)
	}
	c := newCollector(q)
	for n := range to - from {
		if c.full() {
			break
		}
		page.Index = from
		id := matching[from+n]
		if q.Backward {
			page.Index = to - 1 - n
			id = matching[page.Index]
		}
		value, err := sc.content(id)
		if err != nil {
			return Page{}, err
		}
		c.add(found{id: id, value: value})
	}
	if q.Backward {
		slices.Reverse(c.rows)
	}
	page.Complete = !c.more
	var err error
	page.Rows, err = sc.load(c.rows)
	return page, err
}

// Bounds returns the first and the last message that are not before notBefore
// and come after floor (zero: of all); ok is false if there is none.
func (s *Store) Bounds(c log.Class, owner string, notBefore time.Time, floor ulid.ULID) (first, last Row, ok bool, err error) {
	err = s.read(func(r *rows) error {
		sc, err := r.newScan(c, owner, "")
		if err != nil {
			return err
		}
		defer sc.close()
		all := interval{hi: maxID}.from(ceilID(notBefore)).after(floor)
		var ends []found
		for _, backward := range []bool{false, true} {
			one := newCollector(Query{Max: 1})
			if err := sc.walk(all, backward, one); err != nil {
				return err
			}
			ends = append(ends, one.rows...)
		}
		rows, err := sc.load(ends)
		if err == nil && len(rows) > 0 {
			first, last, ok = rows[0], rows[1], true
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("find the bounds of the archive of %s: %w", owner, err)
	}
	return first, last, ok, err
}
