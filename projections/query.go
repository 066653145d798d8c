package projections

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
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

	// Uncounted leaves count and index out, for callers that don't look at them.
	Uncounted bool
}

// Page is a part of a result set, oldest first.
type Page struct {
	Rows        []Row     // of Query; Visit has none
	Len         int       // number of rows
	First, Last ulid.ULID // of the rows, zero without any
	Count       int       // of the whole result set, exact; 0 if Query.Uncounted
	Index       int       // of the first row in the result set; 0 without rows, or if Query.Uncounted
	Complete    bool      // nothing of the result set is left in the direction of paging
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
	rows := make([]Row, 0, min(q.Max, 64))
	var arena []byte // the copies of a page lie in few pieces of memory
	page, err = s.Visit(q, func(row *Row) error {
		r := *row
		if n := len(r.content); n > cap(arena)-len(arena) {
			arena = make([]byte, 0, max(n, 16<<10))
		}
		from := len(arena)
		arena = append(arena, r.content...)
		r.moved(arena[from:len(arena):len(arena)])
		rows = append(rows, r)
		return nil
	})
	if q.Backward {
		slices.Reverse(rows)
	}
	page.Rows = rows
	return page, err
}

// Visit is Query for callers that need each row only once: visit is called for
// each, oldest first or, paging backward, newest first. It must not keep the row
// beyond the call, but copies of its strings and times, wait for anything, nor call
// the store. An error of visit ends the page and is returned.
func (s *Store) Visit(q Query, visit func(*Row) error) (page Page, err error) {
	s.queries.Add(1)
	err = s.read(func(r *rows) error {
		page, err = r.query(&q, visit)
		return err
	})
	if _, missing := errors.AsType[*NotFoundError](err); err != nil && !missing {
		err = fmt.Errorf("query the archive of %s: %w", q.Owner, err)
	}
	return page, err
}

func (r *rows) query(q *Query, visit func(*Row) error) (Page, error) {
	sc, err := r.newScan(q.Class, q.Owner, q.With)
	if err != nil {
		return Page{}, err
	}
	defer sc.close()
	all := sc.all(q)
	for _, id := range [...]ulid.ULID{q.After, q.Before, q.PageAfter, q.PageBefore} {
		if id != (ulid.ULID{}) {
			if err := sc.mustHold(id, all.lo); err != nil {
				return Page{}, err
			}
		}
	}
	for _, id := range q.IDs {
		if err := sc.mustHold(id, all.lo); err != nil {
			return Page{}, err
		}
	}
	set := all.from(ceilID(q.Since)).after(q.After).before(q.Before)
	if !q.Until.IsZero() {
		if hi := log.FirstAt(q.Until.Truncate(time.Millisecond).Add(time.Millisecond)); hi.Compare(set.hi) < 0 {
			set.hi = hi // zero for a time before 1970: nothing is that old
		}
	}
	left := set.after(q.PageAfter).before(q.PageBefore)
	c := &sc.collector
	c.Query, c.visit = *q, visit
	if c.MaxBytes == 0 {
		c.MaxBytes = math.MaxInt
	}
	if q.IDs != nil {
		return sc.pick(c, set, left)
	}
	return sc.page(c, set, left)
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
// moment. Its memory serves one after another.
type scan struct {
	*rows
	cursor
	class    log.Class
	owner    string
	whole    bool // all of the archive
	width    width
	floor    ulid.ULID // nothing up to it can be seen
	span     span      // buckets that may hold something
	empty    bool      // none does
	turn     uint64
	parts    [2]*part // of the tail, that are held
	messages cursor   // in the rows of the archive, unless whole; opened when it is needed

	// What the walk has found out of the ranks that count and index need.
	known [2]knownRank

	collector collector // of the page
	numbers   []uint64  // for counts
}

var scans = sync.Pool{New: func() any { return new(scan) }}

// cursor stands at a message in the rows of an archive, or of one conversation in it,
// of one bucket at a time: in a chunk of the engine's, or in what the tail has, which
// is newer. The bounds of its iterator are those of these rows, so that
// the engine opens no table that has others alone, and each key that it shows is
// one of theirs.
type cursor struct {
	it      *pebble.Iterator
	key     []byte // of prefix, and room for what it ends with
	bounds  pebble.IterOptions
	bounded uint32       // the bucket that it is bounded to
	tails   []bucketTail // of the rows, from before the iterator was opened
	tail    []chunk      // of the bucket
	loaded  chunk        // where the iterator stands; empty elsewhere
	chunk   *chunk       // where the cursor stands: loaded, or one of tail
	part    int          // which one of tail; len(tail) for loaded
	at      int          // the message in it
	damage  error        // that was met
}

// begin makes the cursor one of the rows of an archive, or of a conversation in it,
// in that bucket. Its iterator is to be made with its bounds, after its tails are set.
func (c *cursor) begin(class log.Class, bucket uint32, owner, peer string) {
	c.key, c.bounded = appendRowsPrefix(c.key[:0], class, bucket, owner, peer), bucket
	upper := append(c.bounds.UpperBound[:0], c.key...)
	upper[len(upper)-1]++ // it was 0
	c.bounds.LowerBound, c.bounds.UpperBound = c.key, upper
	c.stand(0)
}

// setTails gives the cursor what the tail has in the buckets of sp. r.tail.mu is held.
func (c *cursor) setTails(r *rows, class log.Class, sp span) {
	c.tails = r.tails(c.tails[:0], class, sp, c.key)
	setKeyBucket(c.key, c.bounded)
	c.enterTail(c.bounded)
}

// enterTail lets the cursor stand nowhere in the bucket.
func (c *cursor) enterTail(bucket uint32) {
	c.tail = nil
	for i := range c.tails {
		if t := &c.tails[i]; t.bucket == bucket {
			c.tail = t.chunks[:t.n]
		}
	}
	c.loaded.clear()
	c.stand(len(c.tail))
}

// stand lets the cursor stand in that part of the tail, or behind those in the engine.
func (c *cursor) stand(part int) {
	if c.part, c.chunk = part, &c.loaded; part < len(c.tail) {
		c.chunk = &c.tail[part]
	}
}

// close leaves its memory. An iterator that failed has said so where it was used.
func (c *cursor) close() {
	if c.it != nil {
		_ = c.it.Close()
	}
	c.loaded.clear()
	clear(c.tails)
	*c = cursor{key: c.key, bounds: c.bounds, tails: c.tails[:0], loaded: c.loaded}
}

// prefix is what the keys of the rows in the bucket begin with. It, and what is
// appended to it, is good until the next call.
func (c *cursor) prefix(bucket uint32) []byte {
	setKeyBucket(c.key, bucket)
	return c.key
}

// enter bounds the cursor to the bucket, and returns its prefix.
func (c *cursor) enter(bucket uint32) []byte {
	prefix := c.prefix(bucket)
	if bucket != c.bounded {
		setKeyBucket(c.bounds.UpperBound, bucket)
		c.it.SetBounds(prefix, c.bounds.UpperBound)
		c.bounded = bucket
		c.enterTail(bucket)
	}
	return prefix
}

// load reads the chunk to which the iterator has moved, by a seek or to an older one,
// and tells whether there is one.
func (c *cursor) load(moved bool) bool {
	for c.read(moved) {
		if !c.hide() {
			return true
		}
		moved = c.it.Next()
	}
	return false
}

// loadNewer is load for an iterator that has moved to a newer one, or the last: it
// does not look further when that lies in the tail too.
func (c *cursor) loadNewer(moved bool) bool { return c.read(moved) && !c.hide() }

// hide takes from the loaded chunk what the tail has too, which was written since, and
// tells whether nothing is left.
func (c *cursor) hide() bool {
	if len(c.tail) == 0 {
		return false
	}
	first := c.tail[len(c.tail)-1].id(0)
	if c.loaded.compare(c.loaded.len()-1, first) < 0 {
		return false
	}
	c.loaded.messages = c.loaded.messages[:c.loaded.below(first)]
	return c.loaded.len() == 0
}

// read reads the chunk to which the iterator has moved, all of it.
func (c *cursor) read(moved bool) bool {
	c.loaded.clear()
	c.stand(len(c.tail))
	if !moved {
		return false
	}
	key := c.it.Key()
	err := errDamagedRow
	if len(key) == len(c.key)+len(ulid.ULID{}) {
		err = c.loaded.read(c.it.Value())
	}
	if err == nil && (c.loaded.len() == 0 || c.loaded.compare(0, rowID(key)) != 0) {
		c.loaded.clear()
		err = errDamagedRow
	}
	c.damage = err
	return err == nil
}

// error tells why the cursor did not move.
func (c *cursor) error() error {
	if c.damage != nil {
		return c.damage
	}
	return c.it.Error()
}

// below moves to the newest message in the bucket with an id below id, and tells
// whether there is one. Newer rows come first.
func (c *cursor) below(bucket uint32, id ulid.ULID) bool {
	prefix := c.enter(bucket)
	if (!c.chunk.covers(id) || c.chunk.compare(0, id) == 0) && !c.inTail(func(t *chunk) bool { return t.compare(0, id) < 0 }) {
		if !c.load(c.it.SeekGE(append(appendRowID(prefix, id), 0))) {
			return false
		}
	}
	c.at = c.chunk.below(id) - 1
	return true
}

// inTail moves into the newest part of the tail that fits, and tells whether one does.
func (c *cursor) inTail(fits func(*chunk) bool) bool {
	for n := range c.tail {
		if fits(&c.tail[n]) {
			c.stand(n)
			return true
		}
	}
	return false
}

// from moves to the oldest message in the bucket with an id that is not below id,
// and tells whether there is one.
func (c *cursor) from(bucket uint32, id ulid.ULID) bool {
	prefix := c.enter(bucket)
	if id == (ulid.ULID{}) || !c.seek(prefix, id) {
		return c.error() == nil && c.oldest() // all are newer
	}
	if c.at = c.chunk.below(id); c.at < c.chunk.len() {
		return true
	}
	c.at--
	return c.newer()
}

// seek moves to the newest chunk that begins at id or before, and tells whether there
// is one.
func (c *cursor) seek(prefix []byte, id ulid.ULID) bool {
	return c.chunk.covers(id) || c.inTail(func(t *chunk) bool { return t.compare(0, id) <= 0 }) ||
		c.load(c.it.SeekGE(appendRowID(prefix, id)))
}

// oldest moves to the oldest message in the bucket.
func (c *cursor) oldest() bool {
	c.at = 0
	if c.loadNewer(c.it.Last()) {
		return true
	}
	if c.error() != nil || len(c.tail) == 0 {
		return false
	}
	c.stand(len(c.tail) - 1)
	return true
}

// find moves to the message id in the bucket, and tells whether there is one.
func (c *cursor) find(bucket uint32, id ulid.ULID) bool {
	if !c.seek(c.enter(bucket), id) {
		return false
	}
	c.at = c.chunk.below(id)
	return c.at < c.chunk.len() && c.chunk.compare(c.at, id) == 0
}

// older moves to the message before that where the cursor stands.
func (c *cursor) older() bool {
	switch {
	case c.at > 0:
		c.at--
		return true
	case c.part+1 < len(c.tail):
		c.stand(c.part + 1)
	case c.part < len(c.tail):
		if !c.load(c.it.First()) {
			return false
		}
	default:
		if !c.load(c.it.Next()) {
			return false
		}
	}
	c.at = c.chunk.len() - 1
	return true
}

// newer moves to the message after that where the cursor stands.
func (c *cursor) newer() bool {
	if c.at++; c.at < c.chunk.len() {
		return true
	}
	c.at = 0
	if c.part == len(c.tail) && c.loadNewer(c.it.Prev()) {
		return true
	}
	if c.error() != nil || c.part == 0 {
		return false
	}
	c.stand(c.part - 1)
	return true
}

// ordinal is that of the message where the cursor stands.
func (c *cursor) ordinal() uint64 { return c.chunk.ordinal(c.at) }

// inside is where the messages of the chunk end that lie in i, in the direction of
// the walk, which came to the one where the cursor stands from the end of i behind it.
func (c *cursor) inside(i interval, backward bool) int {
	if backward {
		if c.chunk.compare(0, i.lo) >= 0 {
			return -1
		}
		return min(c.chunk.below(i.lo)-1, c.at)
	}
	if n := c.chunk.len(); c.chunk.compare(n-1, i.hi) < 0 {
		return n
	}
	return max(c.chunk.below(i.hi), c.at)
}

type knownRank struct {
	bucket uint32
	id     ulid.ULID
	rank   uint64
	ok     bool
}

func (r *rows) newScan(c log.Class, owner, peer string) (*scan, error) {
	sc := scans.Get().(*scan)
	sc.rows, sc.class, sc.owner, sc.whole, sc.turn = r, c, owner, peer == "", r.tops.now()
	r.spanMu.RLock()
	defer r.spanMu.RUnlock()
	sp, ok := r.spans[c]
	sc.width = r.widths[c]
	sc.span, sc.empty = sp, !ok
	if sc.empty {
		return sc, nil
	}
	var err error
	if sc.floor, err = r.floor(c, owner); err == nil {
		sc.begin(c, sp.last, owner, peer)
		if !sc.whole {
			sc.messages.begin(c, sp.last, owner, "")
		}
		r.tail.mu.RLock()
		sc.parts = r.tail.hold()
		sc.setTails(r, c, sp)
		if !sc.whole {
			sc.messages.setTails(r, c, sp)
		}
		r.tail.mu.RUnlock()
		sc.it, err = r.db.NewIter(&sc.bounds)
	}
	if err != nil {
		sc.close()
		return nil, err
	}
	return sc, nil
}

// all are the ids of what exists in the archive for q.
func (sc *scan) all(q *Query) interval {
	return interval{hi: maxID}.from(ceilID(q.NotBefore)).after(q.Floor).after(sc.floor)
}

func (sc *scan) close() {
	sc.messages.close()
	sc.cursor.close()
	release(sc.parts)
	*sc = scan{cursor: sc.cursor, messages: sc.messages, numbers: sc.numbers}
	scans.Put(sc)
}

// message returns the content of the message id in the archive's row; nil if there is none.
func (sc *scan) message(id ulid.ULID) (content []byte, err error) {
	bucket := sc.width.bucketOf(id)
	c := &sc.cursor
	if !sc.whole {
		// Its own iterator, so that a walk through the conversation can go on.
		if c = &sc.messages; c.it == nil {
			if c.it, err = sc.it.Clone(pebble.CloneOptions{IterOptions: &c.bounds}); err != nil {
				return nil, err
			}
		}
	}
	if !c.find(bucket, id) {
		return nil, c.error()
	}
	return c.chunk.content(c.at), nil
}

// mustHold fails with a *NotFoundError if the archive does not hold the message
// id, be it in the conversation or not.
func (sc *scan) mustHold(id, floor ulid.ULID) error {
	if sc.empty || id.Compare(floor) < 0 {
		return &NotFoundError{id}
	}
	content, err := sc.message(id)
	if err == nil && content == nil {
		err = &NotFoundError{id}
	}
	return err
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
	of := sc.width.bucketOf(id)
	if of < bucket {
		return 0, nil
	}
	for _, k := range sc.known {
		if k.ok && k.bucket == bucket && k.id == id {
			return k.rank, nil
		}
	}
	whole := bucket < sc.span.last && of > bucket
	if whole {
		if n, ok := sc.tops.get(sc.prefix(bucket)); ok {
			return n, nil
		}
	}
	var n uint64
	var err error
	if sc.below(bucket, id) {
		n = sc.ordinal()
	} else {
		err = sc.error()
	}
	if whole && err == nil {
		sc.tops.set(sc.turn, sc.prefix(bucket), n)
	}
	return n, err
}

// counts are the numbers of rows in i, bucket by bucket from sp.first. They are
// good until the next call.
func (sc *scan) counts(i interval, sp span) (counts []uint64, total uint64, err error) {
	counts = sc.numbers[:0]
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
	sc.numbers = counts
	return counts, total, nil
}

// page reads the rows that are asked for of what is left of the set.
func (sc *scan) page(c *collector, set, left interval) (Page, error) {
	sp, ok := sc.buckets(set)
	if !ok {
		return Page{Complete: true}, nil
	}
	if c.Query.Index > 0 && !c.Backward {
		counts, _, err := sc.counts(set, sp)
		if err != nil {
			return Page{}, err
		}
		lo, err := sc.nth(set, sp, counts, uint64(c.Query.Index))
		if err != nil {
			return Page{}, err
		}
		left = left.from(lo)
	}
	if c.Max == 0 && !c.Uncounted {
		return sc.count(set, left, sp)
	}
	// First the rows: an id that the page starts at was just looked up, and the
	// iterator is near. Where they begin at an end of the set, they tell its rank.
	if err := sc.walk(left, c); err != nil || c.Uncounted {
		return c.page(), err
	}
	counts, total, err := sc.counts(set, sp)
	if err != nil {
		return Page{}, err
	}
	page := c.page()
	if page.Count = int(total); page.Len == 0 {
		return page, nil
	}
	bucket := sc.width.bucketOf(page.First)
	index := c.oldest - 1
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
	return page, nil
}

// count is the page without rows.
func (sc *scan) count(set, left interval, sp span) (page Page, err error) {
	_, total, err := sc.counts(set, sp)
	if err != nil {
		return Page{}, err
	}
	rest := total
	if left != set {
		rest = 0
		if sp, ok := sc.buckets(left); ok {
			if _, rest, err = sc.counts(left, sp); err != nil {
				return Page{}, err
			}
		}
	}
	return Page{Count: int(total), Complete: rest == 0}, nil
}

// collector visits the rows of a page, from where it starts, until it is full.
type collector struct {
	Query
	visit func(*Row) error
	row   Row // that is visited

	rows, bytes int
	more        bool // there is a row that it did not take
	start       ulid.ULID
	oldest      uint64 // ordinal of the page's oldest row, if a walk found it
}

// full tells whether the page ends before a row that there is.
func (c *collector) full() bool {
	c.more = c.rows >= c.Max || c.bytes >= c.MaxBytes
	return c.more
}

// add visits the row id. One without content is damaged.
func (c *collector) add(id ulid.ULID, content []byte) error {
	if c.rows == 0 {
		c.start = id
	}
	c.rows++
	c.bytes += len(content) + c.RowBytes
	if err := c.row.read(id, c.Owner, content); err != nil {
		return err
	}
	return c.visit(&c.row)
}

func (c *collector) page() Page {
	p := Page{Len: c.rows, First: c.start, Last: c.row.ID, Complete: !c.more}
	if c.Backward {
		p.First, p.Last = p.Last, p.First
	}
	return p
}

// walk gives the rows in i to c until it is full.
func (sc *scan) walk(i interval, c *collector) error {
	sp, ok := sc.buckets(i)
	if !ok {
		return nil
	}
	for n := range int64(sp.last-sp.first) + 1 {
		bucket := sp.first + uint32(n)
		if c.Backward {
			bucket = sp.last - uint32(n)
		}
		if err := sc.walkBucket(bucket, i, c); err != nil || c.more {
			return err
		}
	}
	return nil
}

// walkBucket is walk in one bucket, chunk by chunk.
func (sc *scan) walkBucket(bucket uint32, i interval, c *collector) error {
	from, step := i.lo, 1
	var found bool
	if c.Backward {
		from, step = i.hi, -1
		found = sc.below(bucket, from)
	} else {
		found = sc.from(bucket, from)
	}
	if found {
		sc.learn(bucket, from, sc.ordinal(), c.Backward)
	}
	for found {
		end := sc.inside(i, c.Backward)
		for ; sc.at != end; sc.at += step {
			if c.full() {
				return nil
			}
			if c.Backward || c.rows == 0 {
				c.oldest = sc.ordinal()
			}
			content := sc.chunk.content(sc.at)
			if len(content) == 0 { // it is in the archive's row
				var err error
				if content, err = sc.message(sc.chunk.id(sc.at)); err != nil {
					return err
				}
			}
			if err := c.add(sc.chunk.id(sc.at), content); err != nil {
				return err
			}
		}
		switch {
		case end == -1:
			found = sc.older()
		case end == sc.chunk.len():
			sc.at--
			found = sc.newer()
		default:
			return nil // the rest of the chunk is past the other end of i
		}
	}
	return sc.error()
}

// learn notes the rank of from in the bucket, of which the walk has just found
// its first row: the newest below from, or the oldest that isn't.
func (sc *scan) learn(bucket uint32, from ulid.ULID, ordinal uint64, backward bool) {
	if !backward {
		ordinal--
	}
	for n := range sc.known {
		if !sc.known[n].ok {
			sc.known[n] = knownRank{bucket, from, ordinal, true}
			return
		}
	}
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
	for ok := sc.from(b, log.FirstAt(time.UnixMilli(int64(from)))); ok; ok = sc.newer() {
		if sc.ordinal() == target+1 {
			return sc.chunk.id(sc.at), nil
		}
	}
	return set.hi, sc.error()
}

// pick answers a query for single ids. They are held already.
func (sc *scan) pick(c *collector, set, left interval) (Page, error) {
	ids := slices.Clone(c.IDs)
	slices.SortFunc(ids, ulid.ULID.Compare)
	ids = slices.Compact(ids)
	var matching []ulid.ULID
	for _, id := range ids {
		if !set.contains(id) {
			continue
		}
		if !sc.whole && !sc.find(sc.width.bucketOf(id), id) {
			if err := sc.error(); err != nil {
				return Page{}, err
			}
			continue
		}
		matching = append(matching, id)
	}
	from, to := 0, len(matching)
	for from < to && matching[from].Compare(left.lo) < 0 {
		from++
	}
	for to > from && matching[to-1].Compare(left.hi) >= 0 {
		to--
	}
	if !c.Backward {
		from = min(max(from, c.Query.Index), to)
	}
	index := 0
	for n := range to - from {
		if c.full() {
			break
		}
		at := from + n
		if c.Backward {
			at = to - 1 - n
		}
		if n == 0 || c.Backward {
			index = at
		}
		content, err := sc.message(matching[at])
		if err != nil {
			return Page{}, err
		}
		if err := c.add(matching[at], content); err != nil {
			return Page{}, err
		}
	}
	page := c.page()
	if !c.Uncounted {
		page.Count, page.Index = len(matching), index
	}
	return page, nil
}

// Bounds returns the first and the last message that are not before notBefore
// and come after floor (zero: of all), without their content; ok is false if
// there is none.
func (s *Store) Bounds(c log.Class, owner string, notBefore time.Time, floor ulid.ULID) (first, last Row, ok bool, err error) {
	for _, end := range []*Row{&first, &last} {
		q := Query{Class: c, Owner: owner, NotBefore: notBefore, Floor: floor, Max: 1, Backward: end == &last, Uncounted: true}
		page, err := s.Visit(q, func(r *Row) error {
			*end = *r
			end.moved(nil)
			return nil
		})
		if err != nil || page.Len == 0 {
			return first, last, false, err
		}
	}
	return first, last, true, nil
}
