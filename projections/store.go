package projections

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/tlog"

	"mamlog/disk"
	"mamlog/log"
)

// formatVersion changes whenever the same log gives other rows; a store of
// another version is rebuilt when it is opened.
const formatVersion = 4

// Options for Open. The zero value works.
type Options struct {
	FS     vfs.FS        // nil: the operating system's
	Cache  *pebble.Cache // nil: one of its own, 8 MiB
	Logger *zap.Logger   // nil: silent
	Disk   log.DiskOptions

	// Retention tells how long records of a class are kept, 0 for ever; nil
	// keeps all for ever. It chooses how finely the class's rows are cut into
	// time buckets; a change that asks for another cut makes Open rebuild.
	Retention func(log.Class) time.Duration

	// Progress, if not nil, is told how many records were folded in catching up.
	Progress func(records int)

	tallies int // that are remembered at least, 0: many; tests want few
	tail    int // bytes of the tail that are gathered, 0: many; tests want few
}

// Store holds the rows of one log. It is made by Open.
type Store struct {
	dir  string
	log  *log.Log
	opts Options

	maintaining sync.Mutex  // held by whoever needs the rows not to be exchanged, and for good by Close
	closing     atomic.Bool // a rebuild or check should end

	applying sync.Mutex   // held while rows are written or exchanged
	using    sync.RWMutex // rows may be read under a read lock
	closed   bool         // under using
	rows     *rows        // exchanged by a rebuild, under both locks

	preferences preferenceCache
	queries     atomic.Uint64
}

// rows is one generation of rows: an engine, and what is kept of it in memory.
// Written only under Store.applying.
type rows struct {
	db       *pebble.DB
	fs       *disk.FS
	dir      string
	replaces string        // dir of the rows that these take the place of; "" when those are gone
	cache    *pebble.Cache // nil: one of db's own
	position ulid.ULID
	tallies  tallies
	tail     tail

	tops tops

	floorMu sync.Mutex
	floors  map[string]ulid.ULID // by class and owner, those looked up of late

	// Queries read these too. spanMu is held for writing while rows are committed
	// of which some are below a floor then.
	spanMu sync.RWMutex
	widths map[log.Class]width
	spans  map[log.Class]span // which buckets may hold something
	leaves int64              // of the audit tree
}

type span struct{ first, last uint32 }

// ErrLogCut is wrapped by the error of opening rows that know of records behind the
// end of the log. Rows are made of what is durable, so no crash leaves that: the
// log's files are damaged, or not the ones that the rows were made of.
var ErrLogCut = errors.New("the log has lost its end")

// Open opens the rows of l in dir, folds what is new in l, and follows it from
// then on. Rows that are missing, of another version or cut otherwise than the
// options ask are made anew, which takes long for a long log. Rows that are ahead of
// the log prove that it has lost something: then Open fails with ErrLogCut.
func Open(dir string, l *log.Log, o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.tail == 0 {
		o.tail = tailBytes
	}
	if o.Retention == nil {
		o.Retention = func(log.Class) time.Duration { return 0 }
	}
	s := &Store{dir: dir, log: l, opts: o}
	s.preferences.reset()
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open projections %s: %w", dir, err)
	}
	if err := l.Follow(s, o.Progress); err != nil {
		return nil, errors.Join(fmt.Errorf("open projections %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// The rows lie in dir/rows-N. A rebuild makes rows-N+1 and deletes rows-N when
// it is complete, so a crash at any moment leaves one that is, and a log that can't be
// read takes nothing from what was made of it.
func (s *Store) open() error {
	if err := disk.RemoveAll(s.opts.FS, filepath.Join(s.dir, "check")); err != nil {
		return err // left behind by a check that was cut short
	}
	generations, err := s.generations()
	if err != nil {
		return err
	}
	if err := disk.RemoveRest(s.opts.FS, s.dir); err != nil {
		return err
	}
	next := 1
	for _, n := range slices.Backward(generations) {
		next = max(next, n+1)
		r, why, err := s.openRows(n)
		if err != nil {
			return err
		}
		if why == "" {
			s.rows = r
			break
		}
		s.opts.Logger.Warn("these rows are of no use", zap.String("dir", r.dir), zap.String("because", why))
		if err := r.close(); err != nil {
			return err
		}
	}
	if s.rows == nil {
		if err := s.begin(s.generation(next), len(generations) > 0); err != nil {
			return err
		}
	}
	for _, n := range generations {
		if dir := s.generation(n); dir != s.rows.dir {
			if err := disk.RemoveAll(s.opts.FS, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin makes rows in dir: anew, from the log, or first ones.
func (s *Store) begin(dir string, anew bool) error {
	r, err := s.createRows(dir)
	if err != nil {
		return err
	}
	if anew {
		s.opts.Logger.Warn("making the rows anew from the log, which takes long for a long log", zap.String("dir", dir))
		err = s.log.Feed(&folder{Store: s, into: r, hurry: true}, s.opts.Progress)
	}
	if err == nil {
		err = r.complete()
	}
	if err != nil {
		return errors.Join(err, s.drop(r))
	}
	s.rows = r
	return nil
}

func (s *Store) generation(n int) string { return filepath.Join(s.dir, "rows-"+strconv.Itoa(n)) }

func (s *Store) generations() ([]int, error) {
	if err := s.opts.FS.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	names, err := s.opts.FS.List(s.dir)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "rows-")); err == nil && strings.HasPrefix(name, "rows-") {
			found = append(found, n)
		}
	}
	sort.Ints(found)
	return found, nil
}

func (s *Store) newRows(dir string) (*rows, error) {
	o := s.opts
	fs := disk.New(o.FS, dir, s.log.Disk(dir, o.Disk))
	o.FS = fs
	db, err := pebble.Open(dir, pebbleOptions(o))
	if err != nil {
		return nil, err
	}
	fs.Watch()
	return &rows{db: db, fs: fs, dir: dir, cache: o.Cache, tallies: newTallies(o.tallies), widths: make(map[log.Class]width), spans: make(map[log.Class]span)}, nil
}

func pebbleOptions(o Options) *pebble.Options {
	po := &pebble.Options{
		FS:                          o.FS,
		Cache:                       o.Cache,
		Logger:                      log.EngineLogger(o.Logger),
		EventListener:               log.EngineListener(o.Logger),
		FormatMajorVersion:          pebble.FormatNewest,
		DisableWAL:                  true, // the log is the write-ahead log
		Merger:                      joining,
		MemTableSize:                8 << 20, // a full tail is more than half of it, and becomes a table at once
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8, // which is four layers of tables, each of all owners
		L0StopWritesThreshold:       24,
	}
	po.CompactionConcurrencyRange = func() (int, int) { return 1, 2 }
	for i := range po.Levels {
		// No filters: a query seeks, and hardly ever asks for a single key.
		po.Levels[i].BlockSize = 16 << 10
	}
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return po
}

// openRows opens a generation; why tells, if it isn't empty, what is wrong with
// it.
func (s *Store) openRows(n int) (r *rows, why string, err error) {
	if r, err = s.newRows(s.generation(n)); err != nil {
		return nil, "", err
	}
	if _, err := r.get(keyComplete); errors.Is(err, pebble.ErrNotFound) {
		return r, "a rebuild did not come to its end", nil
	} else if err != nil {
		return nil, "", errors.Join(err, r.close())
	}
	why, err = r.load(s)
	if err != nil {
		return nil, "", errors.Join(err, r.close())
	}
	return r, why, nil
}

func (r *rows) load(s *Store) (why string, err error) {
	version, err := r.get(keyFormat)
	if err != nil {
		return "", err
	}
	if len(version) != 4 || binary.BigEndian.Uint32(version) != formatVersion {
		return "they were made by another version", nil
	}
	position, err := r.get(keyPosition)
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return "", err
	}
	copy(r.position[:], position)
	if r.position.Compare(s.log.Last()) > 0 {
		return "", fmt.Errorf("%w: it ends with %s, and the rows were made up to %s", ErrLogCut, s.log.Last(), r.position)
	}
	for _, c := range s.log.Classes() {
		w, err := r.get(widthKey(c))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		r.widths[c] = width(binary.BigEndian.Uint64(w))
		if r.widths[c] != s.width(c) {
			return fmt.Sprintf("the retention of %s asks for other time buckets", s.log.ClassName(c)), nil
		}
		if err := r.loadSpan(c); err != nil {
			return "", err
		}
	}
	r.tallies.forget(r.spans)
	return "", r.loadLeaves()
}

func (r *rows) loadSpan(c log.Class) error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: bucketKey(c, 0)[:3], UpperBound: end(bucketKey(c, 0)[:3])})
	if err != nil {
		return err
	}
	if it.First() {
		sp := span{first: keyBucket(it.Key())}
		it.Last()
		sp.last = keyBucket(it.Key())
		r.spans[c] = sp
	}
	return it.Close()
}

func keyBucket(key []byte) uint32 { return binary.BigEndian.Uint32(key[3:]) }

func (s *Store) width(c log.Class) width {
	return width(bucketWidth(s.opts.Retention(c)).Milliseconds())
}

func (s *Store) createRows(dir string) (*rows, error) {
	if err := disk.RemoveAll(s.opts.FS, dir); err != nil {
		return nil, err
	}
	r, err := s.newRows(dir)
	if err != nil {
		return nil, err
	}
	if err := r.db.Set(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion), pebble.NoSync); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// complete marks r as the generation to open from now on, durably. What of it is in
// the tail alone is folded again when it is opened after a crash.
func (r *rows) complete() error {
	if err := r.db.Set(keyComplete, nil, pebble.NoSync); err != nil {
		return err
	}
	return r.db.Flush()
}

func (s *Store) drop(r *rows) error {
	if err := r.close(); err != nil {
		return err
	}
	return disk.RemoveAll(s.opts.FS, r.dir)
}

func (r *rows) get(key []byte) ([]byte, error) {
	v, closer, err := r.db.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

// Close writes the rows out, so that nothing needs to be folded again, and
// closes the store. The log must be closed before.
func (s *Store) Close() error {
	s.EndMaintenance()
	s.maintaining.Lock() // for good: nothing is to be rebuilt or checked any more
	s.applying.Lock()
	defer s.applying.Unlock()
	s.using.Lock()
	defer s.using.Unlock()
	s.closed = true
	if err := s.rows.fs.Trouble(); err != nil {
		return fmt.Errorf("the rows are left as they are, and folded from the log at the next start: %w", err)
	}
	err := errors.Join(s.rows.writeTail(), s.rows.db.Flush())
	return errors.Join(err, s.rows.close())
}

func (r *rows) close() error {
	defer r.fs.Close()
	_ = r.waitTail() // whoever needed it has asked before
	if r.tail.reserved != nil {
		r.tail.reserved()
	}
	return r.db.Close()
}

// EndMaintenance lets a running Rebuild or Check return soon, with an error, and
// none begin. Whoever closes the log and the store calls it first.
func (s *Store) EndMaintenance() { s.closing.Store(true) }

// Position is the id of the last record that was folded.
func (s *Store) Position() ulid.ULID {
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.rows.position
}

// Apply folds records; the log calls it.
func (s *Store) Apply(records []log.Record) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	changed, err := s.fold(s.rows, records)
	s.preferences.forget(changed)
	return err
}

// fold writes what records mean as rows, with the position they lead to. It
// returns whose preferences changed.
func (s *Store) fold(r *rows, records []log.Record) (changed []string, err error) {
	for len(records) > 0 {
		// What deletes or rewrites rows has a batch of its own: it reads what was written
		// before, all in the engine, and what comes after it may lie in a bucket that it
		// empties, and must find it empty.
		n := slices.IndexFunc(records, func(rec log.Record) bool { return removes(rec.Event) })
		switch {
		case n < 0:
			n = len(records)
		case n == 0:
			n = 1
			if err := r.writeTail(); err != nil {
				return nil, err
			}
		}
		owners, err := s.foldBatch(r, records[:n])
		if err != nil {
			return nil, err
		}
		changed = append(changed, owners...)
		records = records[n:]
	}
	return changed, nil
}

// foldBatch is fold for what one batch takes.
func (s *Store) foldBatch(r *rows, records []log.Record) (changed []string, err error) {
	if r.tail.failed != nil {
		return nil, r.tail.failed
	}
	defer func() {
		if err != nil {
			r.tail.failed = err // it may have what the position does not tell of
		}
	}()
	b := r.db.NewBatch()
	defer b.Close()
	w := &writer{rows: r, store: s, batch: b, leaves: r.leaves}
	position := r.position
	for _, rec := range records {
		if rec.ID.Compare(position) <= 0 {
			continue // a rebuild has been here before
		}
		if err := w.fold(rec); err != nil {
			return nil, fmt.Errorf("fold record %s: %w", rec.ID, err)
		}
		position = rec.ID
	}
	old := r.widenSpans(w.touched)
	if old || w.others {
		r.tops.forget()
	}
	if !b.Empty() {
		if err := r.commitWithTail(b, position, w.moved); err != nil {
			return nil, err
		}
		if old || w.others {
			r.tops.forget() // what queries have noted meanwhile
		}
	}
	r.position = position
	r.grow(w.leaves)
	if r.narrowSpans(w.expired) || w.renumbered {
		r.tallies.forget(r.spans) // those of the rows that are gone among them
	}
	r.tallies.turn(r.spans)
	if p := r.tail.parts[0]; p != nil && p.bytes >= s.opts.tail {
		return w.changed, r.turnTail()
	}
	return w.changed, nil
}

// commit lets queries see the batch; with moved, not between an iterator of theirs
// and the floor that belongs to it.
func (r *rows) commit(b *pebble.Batch, moved bool) error {
	if !moved {
		return b.Commit(pebble.NoSync)
	}
	r.spanMu.Lock()
	defer r.spanMu.Unlock()
	r.floorMu.Lock()
	defer r.floorMu.Unlock()
	r.floors = nil
	return b.Commit(pebble.NoSync)
}

// removes tells whether e deletes or rewrites rows that are there.
func removes(e *log.Event) bool {
	switch e.GetKind().(type) {
	case *log.Event_Expired, *log.Event_Cut, *log.Event_Stump, *log.Event_Erased, *log.Event_Retracted:
		return true
	}
	return false
}

// writer folds records into one batch.
type writer struct {
	rows    *rows
	store   *Store
	batch   *pebble.Batch
	content []byte             // of the message that is folded
	prefix  []byte             // of the row that is written
	changed []string           // owners of changed preferences
	touched map[log.Class]span // buckets written to
	expired map[log.Class]uint32

	moved      bool // floors, or rows that are not to be seen
	renumbered bool // ordinals that are remembered may be wrong

	others bool                // there were other events than messages
	leaves int64               // of the audit tree, those of this batch among them
	hashes map[int64]tlog.Hash // of the audit tree, of this batch
}

func (w *writer) fold(rec log.Record) error {
	if rec.Class == log.Audit {
		if err := w.leaf(rec); err != nil {
			return err
		}
	}
	switch e := rec.Event.GetKind().(type) {
	case *log.Event_Message:
		return w.message(rec, e.Message)
	}
	w.others = true
	switch e := rec.Event.GetKind().(type) {
	case *log.Event_Preferences:
		return w.preferences(rec, e.Preferences)
	case *log.Event_Policy:
		return w.policy(rec, e.Policy)
	case *log.Event_Account:
		return w.account(rec, e.Account)
	case *log.Event_Roster:
		return w.roster(e.Roster)
	case *log.Event_Expired:
		return w.expire(e.Expired)
	case *log.Event_Retracted:
		return w.retracted(rec, e.Retracted)
	case *log.Event_Cut:
		return w.cut(rec, e.Cut)
	case *log.Event_Stump:
		return w.stump(rec, e.Stump)
	case *log.Event_Erase:
		return w.erase(rec, e.Erase)
	case *log.Event_Erased:
		return w.erased(rec, e.Erased)
	case *log.Event_Retention:
		return w.retention(e.Retention)
	case *log.Event_Read, *log.Event_Imported, *log.Event_Clock:
		return nil // kept in the log and in the audit tree alone
	}
	return fmt.Errorf("a kind of event that this version does not know: use a newer mamlog")
}

// widenSpans also tells whether a bucket was written to that is not a class's
// newest.
func (r *rows) widenSpans(touched map[log.Class]span) (old bool) {
	r.spanMu.Lock()
	defer r.spanMu.Unlock()
	for c, t := range touched {
		all := t
		if sp, ok := r.spans[c]; ok {
			all = span{min(t.first, sp.first), max(t.last, sp.last)}
		}
		r.spans[c] = all
		old = old || t.first < all.last
	}
	return old
}

// grow shows readers the leaves that were committed.
func (r *rows) grow(leaves int64) {
	r.spanMu.Lock()
	defer r.spanMu.Unlock()
	r.leaves = leaves
}

// narrowSpans also tells whether there may have been something in the buckets that
// are gone.
func (r *rows) narrowSpans(expired map[log.Class]uint32) (any bool) {
	r.spanMu.Lock()
	defer r.spanMu.Unlock()
	for c, first := range expired {
		if sp, ok := r.spans[c]; ok && sp.first < first {
			any = true
			if sp.first = first; sp.first > sp.last {
				delete(r.spans, c)
			} else {
				r.spans[c] = sp
			}
		}
	}
	return any
}

// read lends the current rows to f, with all that was acknowledged before; they are
// not exchanged meanwhile. f must not wait for anything, nor read once more.
func (s *Store) read(f func(*rows) error) error {
	if err := s.log.Await(); err != nil {
		return err
	}
	s.using.RLock()
	defer s.using.RUnlock()
	if s.closed {
		return errClosed
	}
	return f(s.rows)
}

var errClosed = errors.New("the projections are closed")

// Stats is a store's state for metrics.
type Stats struct {
	Position   ulid.ULID
	DiskBytes  uint64
	Compacting bool // the engine rewrites tables in the background
}

// Stats returns the state.
func (s *Store) Stats() Stats {
	st := Stats{Position: s.Position()}
	_ = s.read(func(r *rows) error {
		m := r.db.Metrics()
		st.DiskBytes, st.Compacting = m.DiskSpaceUsage(), m.Compact.NumInProgress > 0
		return nil
	})
	return st
}
