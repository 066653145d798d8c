package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"mamlog/disk"
)

// FormatVersion is written into every store. A store with a greater one was
// made by a newer mamlog, which this one can't read.
const FormatVersion = 1

// ErrClosed is returned by operations on a log that was closed.
var ErrClosed = errors.New("the log is closed")

// ErrFailed is wrapped by the error of every append after a commit or a
// follower failed: whether that commit is durable is unknown, so nothing more is
// acknowledged until the log is opened anew.
var ErrFailed = errors.New("the log stopped after a failed write")

// Options for Open. The zero value works.
type Options struct {
	FS     vfs.FS        // nil: the operating system's
	Cache  *pebble.Cache // nil: one of its own, 8 MiB
	Clock  *Clock        // nil: one of its own, on the wall clock
	Logger *zap.Logger   // nil: silent
	Disk   DiskOptions

	// MaxJump is how far the wall clock may be ahead of the time that has passed
	// since it was last seen; see RetentionTime. 0: as far as it likes.
	MaxJump time.Duration
}

// Record is one event with its place in the log.
type Record struct {
	ID    ulid.ULID
	Class Class
	Event *Event

	// Stored is the event as its bytes are in the store, of the class Audit only:
	// the audit tree is made of these. Not to be changed.
	Stored []byte
}

// Time is when the record was appended, in whole milliseconds.
func (r Record) Time() time.Time { return IDTime(r.ID) }

// ArchiveID is the id under which an archive has the message that the record
// holds: the record's own but for an import.
func (r Record) ArchiveID() (id ulid.ULID) {
	b := r.Event.GetMessage().GetArchiveId()
	if s := r.Event.GetStump(); s != nil {
		b = s.GetArchiveId()
	}
	if len(b) == len(id) {
		return ulid.ULID(b)
	}
	return r.ID
}

// IDTime is the time that an id carries, in UTC and whole milliseconds.
func IDTime(id ulid.ULID) time.Time { return time.UnixMilli(int64(id.Time())).UTC() }

// FirstAt is the smallest id of the millisecond that t lies in: an inclusive
// lower bound for records since t.
func FirstAt(t time.Time) ulid.ULID { return firstAt(t) }

// Log is an open log. It is made by Open.
type Log struct {
	db     *pebble.DB
	fs     *disk.FS
	dir    string
	clock  *Clock
	logger *zap.Logger

	// The group of appends that the next commit takes. mu also puts ids in
	// order: an id is minted and its record queued under one hold of it.
	mu      sync.Mutex
	room    *sync.Cond // open has room again
	open    *group
	pending map[string]ulid.ULID // once keys queued but not yet readable in db
	closed  bool
	err     error
	taking  int            // entries on their way that change what is in the log already
	scrubs  map[Class]debt // see Owed
	debts   int            // that there ever were

	snapshots map[*Snapshot]chan struct{} // that are open, with what is closed with them

	flying  []*group         // taken for a commit and not finished, in order
	refuses map[string]error // why nothing is appended, by who says so
	doubt   *group           // the last one that was answered before it landed

	classes struct {
		sync.RWMutex
		byName map[string]Class
		names  map[Class]string
	}
	onceLocks [64]sync.Mutex // by once key: look-up and queueing are one step
	oldestGen atomic.Uint32  // generations below it are deleted
	maxJump   time.Duration
	retention retentionTime
	expiring  sync.Mutex // held while an expiry is under way

	strays    []ulid.ULID // set by load, see Strays
	followers []Follower  // set before the first append, read by apply
	durable   atomic.Pointer[ulid.ULID]
	applied   atomic.Pointer[ulid.ULID] // by all followers
	behind    atomic.Int64              // bytes between the two
	awaiting  struct {
		sync.Mutex
		more chan struct{} // closed when more is applied; nil if nobody waits
		err  error         // a follower's
	}
	queued atomic.Int64 // bytes
	stats  struct{ records, commits, bytes, duplicates, refused atomic.Uint64 }

	wake      chan struct{}
	syncing   chan struct{} // holds something while a group is between commit and acknowledgement
	committed chan *group
	synced    chan *group
	applying  chan *group
	eased     chan struct{} // wakes deliver when behind is less
	suspended chan struct{} // wakes deliver to release who waits
	stopped   chan struct{}
}

// Open opens the log in dir, or makes one there. It fails on a store that a
// newer version wrote, and on one that another process has open.
func Open(dir string, o Options) (*Log, error) {
	if o.Clock == nil {
		o.Clock = NewClock(nil)
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	l := &Log{
		dir: dir, clock: o.Clock, logger: o.Logger, maxJump: o.MaxJump,
		pending:   make(map[string]ulid.ULID),
		refuses:   make(map[string]error),
		snapshots: make(map[*Snapshot]chan struct{}),
		suspended: make(chan struct{}, 1),
		wake:      make(chan struct{}, 1),
		syncing:   make(chan struct{}, 1),
		committed: make(chan *group, 4),
		synced:    make(chan *group, 4),
		applying:  make(chan *group, 256),
		eased:     make(chan struct{}, 1),
		stopped:   make(chan struct{}),
	}
	l.room = sync.NewCond(&l.mu)
	l.fs = disk.New(o.FS, dir, l.Disk(dir, o.Disk))
	o.FS = l.fs
	var err error
	if l.db, err = pebble.Open(dir, pebbleOptions(o)); err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	l.open = l.newGroup()
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", dir, err), l.db.Close())
	}
	l.fs.Watch()
	go l.commit()
	go l.sync()
	go l.deliver()
	go l.apply()
	return l, nil
}

func pebbleOptions(o Options) *pebble.Options {
	po := &pebble.Options{
		FS:                          o.FS,
		Cache:                       o.Cache,
		Logger:                      EngineLogger(o.Logger),
		EventListener:               EngineListener(o.Logger),
		FormatMajorVersion:          pebble.FormatNewest,
		Cleaner:                     cleaner{},
		MemTableSize:                16 << 20, // it counts against the cache
		MemTableStopWritesThreshold: 4,
	}
	po.Experimental.SpanPolicyFunc = apart
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // for look-ups of idempotency keys
		po.Levels[i].BlockSize = 32 << 10
	}
	// It packs a fifth tighter than the default here, for the same time.
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return po
}

// load reads what the store says of itself.
func (l *Log) load() error {
	version, err := l.get(keyFormat)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		v := binary.BigEndian.AppendUint32(nil, FormatVersion)
		if err := l.db.Set(keyFormat, v, pebble.Sync); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if len(version) != 4 {
			return fmt.Errorf("its format version has %d bytes instead of 4: the store is damaged", len(version))
		}
		if v := binary.BigEndian.Uint32(version); v > FormatVersion {
			return fmt.Errorf("it has format version %d, and this mamlog reads versions up to %d: use a newer mamlog", v, FormatVersion)
		}
	}
	var last ulid.ULID
	if b, err := l.get(keyLast); err == nil {
		copy(last[:], b)
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	l.clock.Observe(last)
	l.durable.Store(&last)
	l.applied.Store(&last)
	if err := l.findStrays(last); err != nil {
		return err
	}
	if err := l.loadClasses(); err != nil {
		return err
	}
	return errors.Join(l.loadScrubs(), l.loadTime())
}

// maxStrays bounds how many are looked for.
const maxStrays = 100

// findStrays looks for audit records behind the last that was committed. What a
// crash leaves is never among them: last is written with the records.
func (l *Log) findStrays(last ulid.ULID) error {
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: append(recordKey(Audit, last), 0), UpperBound: recordKey(Audit+1, ulid.ULID{}),
	})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && len(l.strays) < maxStrays; it.Next() {
		l.strays = append(l.strays, recordID(it.Key()))
	}
	return it.Close()
}

// Strays are audit records that lay behind the end of the log when it was opened,
// where something else than this log must have put them: the first hundred.
func (l *Log) Strays() []ulid.ULID { return l.strays }

// get returns a copy of the value at key.
func (l *Log) get(key []byte) ([]byte, error) {
	v, closer, err := l.db.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

// Last is the id of the newest durable record, zero if there never was one.
func (l *Log) Last() ulid.ULID { return *l.durable.Load() }

// Queued is how many bytes of records were appended and not acknowledged yet.
func (l *Log) Queued() int64 { return l.queued.Load() }

// Clock is where the log's ids come from.
func (l *Log) Clock() *Clock { return l.clock }

// Close commits what was appended, calls the callbacks, and closes the store.
// Appends after it fail with ErrClosed. While the disk takes no writes the store
// can't be closed: then Close returns an error, and leaves things as a crash would.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	l.poke()
	if err := l.fs.Trouble(); err != nil {
		return fmt.Errorf("the log is left as it is, with all that was acknowledged: %w", err)
	}
	<-l.stopped
	defer l.fs.Close()
	return errors.Join(l.keepTime(pebble.Sync), l.db.Close())
}

// Stats counts since the log was opened.
type Stats struct {
	Records    uint64 // appended and durable
	Commits    uint64 // group commits, each with one fsync
	Bytes      uint64 // of records' keys and values
	Duplicates uint64 // appends recognised by their idempotency key
	Refused    uint64 // appends refused or left in doubt since the disk took no writes
	Suspended  bool   // appends are refused now
	TimeHeld   bool   // nothing expires, see RetentionTime
	DiskBytes  uint64 // on disk now
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	m := l.db.Metrics()
	l.mu.Lock()
	suspended := l.suspension() != nil
	l.mu.Unlock()
	_, held := l.RetentionTime()
	return Stats{
		TimeHeld: held,
		Refused:  l.stats.refused.Load(), Suspended: suspended,
		Records:    l.stats.records.Load(),
		Commits:    l.stats.commits.Load(),
		Bytes:      l.stats.bytes.Load(),
		Duplicates: l.stats.duplicates.Load(),
		DiskBytes:  m.DiskSpaceUsage() - m.WAL.ObsoletePhysicalSize - m.WAL.PhysicalSize + m.WAL.Size,
	}
}
