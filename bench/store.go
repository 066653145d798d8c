package bench

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// store is mamlog in this process, without a server, on directories laid out as
// the server's.
type store struct {
	host    string
	options xep0313.Options
	archive *xep0313.Archive
	log     *log.Log
	rows    *projections.Store

	mainLog  *log.Log // accounts, preferences
	mainRows *projections.Store

	now     atomic.Int64 // the clock of the store, in Unix milliseconds; 0: the wall clock
	closers []func() error
}

// cacheBytes is the server's default cache_size.
const cacheBytes = 192 << 20

// openStore opens what `mamlog serve` would find in dir as data_dir, for one
// host. retention 0 is never; now, if not zero, sets the clock.
func openStore(dir, host string, retention time.Duration, now time.Time) (_ *store, err error) {
	s := &store{host: host}
	s.setClock(now)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	clock := log.NewClock(func() time.Time {
		if ms := s.now.Load(); ms != 0 {
			return time.UnixMilli(ms)
		}
		return time.Now()
	})
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref() // the stores hold it
	open := func(retention func(log.Class) time.Duration, path ...string) (*log.Log, *projections.Store, error) {
		dir := filepath.Join(append([]string{dir}, path...)...)
		l, err := log.Open(filepath.Join(dir, "log"), log.Options{Clock: clock, Cache: cache})
		if err != nil {
			return nil, nil, err
		}
		s.closers = append(s.closers, l.Close)
		p, err := projections.Open(filepath.Join(dir, "projections"), l, projections.Options{Cache: cache, Retention: retention})
		if err != nil {
			return nil, nil, err
		}
		s.closers = append(s.closers, p.Close)
		return l, p, nil
	}
	if s.mainLog, s.mainRows, err = open(nil, "main"); err != nil {
		return nil, err
	}
	if s.log, s.rows, err = open(func(log.Class) time.Duration { return retention }, "stores", "archive"); err != nil {
		return nil, err
	}
	s.options = xep0313.DefaultOptions()
	s.options.ExpiresAfter = retention
	s.archive, err = s.archiveIn(s.log)
	return s, err
}

func (s *store) setClock(now time.Time) {
	if !now.IsZero() {
		s.now.Store(now.UnixMilli())
	}
}

// close closes each log before its rows.
func (s *store) close() (err error) {
	if s.rows != nil {
		s.rows.EndMaintenance()
	}
	for _, c := range s.closers {
		err = errors.Join(err, c())
	}
	s.closers = nil
	return err
}

// withoutRows is an archive of the same host with a log of its own in dir, from which
// nobody makes rows. It ends with s.
func (s *store) withoutRows(dir string) (*xep0313.Archive, error) {
	l, err := log.Open(dir, log.Options{})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, l.Close)
	return s.archiveIn(l)
}

// archiveIn decides by what is in the main store, and records in l.
func (s *store) archiveIn(l *log.Log) (*xep0313.Archive, error) {
	return xep0313.New(context.Background(), xep0313.Config{
		Log: s.mainLog, Projections: s.mainRows, Contacts: s.mainRows,
		Hosts: []xep0313.Host{{Name: s.host, Options: s.options, Log: l, Archives: s.rows}},
	})
}

// class is the host's in the log.
func (s *store) class() (log.Class, error) { return s.log.Class(s.host) }

// rest waits until the engine has written and merged what it wants to.
func (s *store) rest(ctx context.Context) error {
	for s.rows.Stats().Compacting {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // until the next look
		}
	}
	return nil
}

// filler records messages with many in flight.
type filler struct {
	store    *store
	inFlight chan struct{}
	failed   atomic.Pointer[error]
}

func (s *store) filler() *filler { return &filler{store: s, inFlight: make(chan struct{}, 4096)} }

// record appends m, and blocks only while too many are in flight.
func (f *filler) record(m xep0313.Message) error {
	f.inFlight <- struct{}{}
	err := f.store.archive.Record(m, func(d xep0313.Delivery) {
		if d.Err != nil {
			f.failed.CompareAndSwap(nil, &d.Err)
		}
		<-f.inFlight
	})
	if err != nil {
		<-f.inFlight
	}
	return err
}

// wait returns when all is recorded.
func (f *filler) wait() error {
	for range cap(f.inFlight) {
		f.inFlight <- struct{}{}
	}
	if err := f.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fill records the messages of all archives, each at its own time.
func (s *store) fill(all []*contents, progress func(recorded int)) error {
	f := s.filler()
	jids := make(map[string]jid.JID)
	parse := func(j string) jid.JID {
		p, ok := jids[j]
		if !ok {
			p = jid.MustParse(j) // we made it
			jids[j] = p
		}
		return p
	}
	n := 0
	for c, m := range inOrder(all) {
		s.setClock(m.At)
		from, to := m.addresses(c.User, s.host)
		st, err := stanza.Parse([]byte(m.xml(c.User, s.host, true)))
		if err != nil {
			return err
		}
		x := xep0313.Message{Stanza: st, From: parse(from), To: parse(to), FromLocal: m.Out, ToLocal: !m.Out}
		if err := f.record(x); err != nil {
			return err
		}
		if n++; progress != nil && n%1000 == 0 {
			progress(n)
		}
	}
	return f.wait()
}

// fillDir makes a data_dir that holds the archives, for a server that is started
// on it later.
func fillDir(dir, host string, all []*contents, progress func(recorded int)) error {
	start := all[0].start
	for _, c := range all {
		if c.start.Before(start) {
			start = c.start
		}
	}
	s, err := openStore(dir, host, 0, start.Add(-time.Hour))
	if err != nil {
		return err
	}
	return errors.Join(s.fill(all, progress), s.close())
}
