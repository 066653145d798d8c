package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"mamlog/admin"
	"mamlog/attach/c2s"
	"mamlog/audit"
	"mamlog/cmd/mamlog/config"
	"mamlog/disk"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
)

// stores are what a configuration names, opened: the main one, and one for each
// archive_store, or those of them that are needed. They draw their ids from one clock and share one cache.
type stores struct {
	config   *config.Config
	clock    *log.Clock
	cache    *pebble.Cache
	main     admin.Store
	messages []messageStore
}

// messageStore is one opened store of messages.
type messageStore struct {
	config.Store
	opened   admin.Store
	inMemory bool
	fellBack bool // because its data could not be opened
}

// openOptions say how to open stores.
type openOptions struct {
	logger   *zap.Logger
	create   bool                    // where there is no main store yet; otherwise that is an error
	fallback bool                    // do as the configuration's fallback says
	remake   bool                    // projections that can't be opened are deleted and made anew
	only     func(config.Store) bool // which stores of messages; nil: all
	retry    time.Duration           // of writes that the disk does not take; 0: as the log has it
	progress func(store string) func(records int)
}

// openStores opens everything. The main store's log comes first: its lock is the
// one that keeps other processes out of the whole data directory.
func openStores(c *config.Config, o openOptions) (_ *stores, err error) {
	if !o.create {
		if _, err := os.Stat(c.MainDir()); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no store in %s, which is data_dir in %s; 'mamlog serve' and 'mamlog user add' make one", c.DataDir, c.File)
		}
	}
	if err := disk.MakeDir(vfs.Default, c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	s := &stores{config: c, clock: log.NewClock(nil), cache: pebble.NewCache(c.CacheSize)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.main, err = s.open(config.MainStore, c.MainDir(), nil, o); err != nil {
		return nil, err
	}
	for _, cs := range c.Stores() {
		if o.only != nil && !o.only(cs) {
			continue
		}
		m, err := s.openMessages(cs, o)
		if err != nil {
			return nil, err
		}
		s.messages = append(s.messages, m)
	}
	return s, nil
}

func (s *stores) openMessages(cs config.Store, o openOptions) (messageStore, error) {
	m := messageStore{Store: cs, inMemory: cs.Backend == config.Memory}
	var err error
	if !m.inMemory {
		m.opened, err = s.open(cs.Name, cs.Dir, nil, o)
		var locked *lockedError
		if err == nil || errors.As(err, &locked) {
			return m, err
		}
		if !o.fallback {
			return m, s.adviseRestore(cs, err)
		}
		if !cs.Fallback {
			return m, fmt.Errorf("%w\nTo start without these messages, set storage: {fallback: memory} in %s; new ones are then lost at the next stop", err, s.config.File)
		}
		o.logger.Error("THE STORE CAN'T BE OPENED: going on in memory, as storage.fallback says. Its messages can't be read, and new ones are lost when the server stops",
			zap.String("store", cs.Name), zap.Strings("hosts", cs.Hosts), zap.String("dir", cs.Dir), zap.Error(err))
		m.inMemory, m.fellBack = true, true
	} else if o.fallback {
		o.logger.Warn("messages are kept in memory only, as storage says: all of them are lost when the server stops",
			zap.String("store", cs.Name), zap.Strings("hosts", cs.Hosts))
	}
	m.opened, err = s.open(cs.Name, "/"+cs.Name, vfs.NewMem(), o)
	return m, err
}

// adviseRestore says what is left to do where a log can't be read; where only
// projections can't be opened, the error says so already.
func (s *stores) adviseRestore(cs config.Store, err error) error {
	var u *unreadableError
	if !errors.As(err, &u) {
		return err
	}
	return fmt.Errorf("%w\nTo have its messages back, restore the directory %s from a backup. Until then 'mamlog serve' goes on without them if storage: {fallback: memory} is set in %s", err, cs.Dir, s.config.File)
}

// open opens one store in dir of fsys, nil for the operating system's.
func (s *stores) open(name, dir string, fsys vfs.FS, o openOptions) (st admin.Store, err error) {
	logger := o.logger.With(zap.String("store", name))
	if fsys == nil { // messages are nobody else's business, whatever data_dir's mode is
		if err := disk.MakeDir(vfs.Default, dir, 0o700); err != nil {
			return admin.Store{}, fmt.Errorf("make the store %s: %w", name, err)
		}
	}
	onDisk := log.DiskOptions{Reserve: uint64(s.config.DiskReserve), Retry: o.retry}
	logDir := filepath.Join(dir, "log")
	if st.Log, err = log.Open(logDir, log.Options{FS: fsys, Cache: s.cache, Clock: s.clock, Logger: logger, Disk: onDisk, MaxJump: s.config.MaxClockJump}); err != nil {
		return admin.Store{}, explainOpen(name, logDir, err)
	}
	rowsDir := filepath.Join(dir, "projections")
	po := projections.Options{
		FS: fsys, Cache: s.cache, Logger: logger, Disk: onDisk,
		Retention: func(c log.Class) time.Duration { return s.retention(st.Log.ClassName(c)) },
	}
	if o.progress != nil {
		po.Progress = o.progress(name)
	}
	st.Projections, err = projections.Open(rowsDir, st.Log, po)
	damage := log.Damaged(err)
	lost := damage != nil && filepath.Dir(damage.File) == logDir
	if err != nil && o.remake && fsys == nil && !lost {
		// The log has everything that was in there.
		logger.Warn("the projections can't be opened and are made anew", zap.Error(err))
		if err = os.RemoveAll(rowsDir); err == nil {
			st.Projections, err = projections.Open(rowsDir, st.Log, po)
		}
	}
	if errors.Is(err, projections.ErrLogCut) {
		err = fmt.Errorf("%w\nWhat is missing was acknowledged. Restore a backup, or go on without it after 'mamlog rebuild --store %s', which makes the projections anew from what is left", err, name)
		return admin.Store{}, errors.Join(err, st.Log.Close())
	}
	if lost {
		err = &unreadableError{name, fmt.Errorf("%w\n%s is damaged, and the projections were to be made anew from it; they are as they were", damage, damage.File)}
		return admin.Store{}, errors.Join(err, st.Log.Close())
	}
	if err != nil {
		err = fmt.Errorf("%w\nThe log is not affected: 'mamlog rebuild --store %s' makes the projections anew from it", err, name)
		return admin.Store{}, errors.Join(err, st.Log.Close())
	}
	return st, nil
}

// retention is how long messages of the class are kept; classes bear the names
// of hosts.
func (s *stores) retention(class string) time.Duration {
	if h := s.config.Host(class); h != nil {
		return h.Archive.ExpiresAfter
	}
	return 0
}

// explainOpen says what keeps a log from being opened.
func explainOpen(name, dir string, err error) error {
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		if pid := lockHolder(filepath.Join(dir, "LOCK")); pid > 0 {
			return &lockedError{name, pid}
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("open the store %s: %w\nRun this as the user who owns it", name, err)
	}
	return &unreadableError{name, err}
}

// unreadableError: the log of the store can't be opened, and nothing else has
// what is in it.
type unreadableError struct {
	store string
	err   error
}

func (e *unreadableError) Error() string { return fmt.Sprintf("open the store %s: %v", e.store, e.err) }
func (e *unreadableError) Unwrap() error { return e.err }

// lockedError: another process has the store open.
type lockedError struct {
	store string
	pid   int
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("the store %s is in use by process %d (%s)", e.store, e.pid, processName(e.pid))
}

// all are the stores by name.
func (s *stores) all() map[string]admin.Store {
	st := s.main
	st.Dir = filepath.Base(s.config.MainDir())
	m := map[string]admin.Store{config.MainStore: st}
	for _, ms := range s.messages {
		st := ms.opened
		st.InMemory, st.Dir = ms.inMemory, filepath.Join("stores", ms.Name)
		m[ms.Name] = st
	}
	return m
}

// book has the key that signs the audit history. One is made where there is none.
func (s *stores) book() (*audit.Book, error) {
	return audit.OpenBook(filepath.Join(s.config.DataDir, "audit"), "mamlog/"+s.config.Hosts[0].Name)
}

// accounts are the users of the embedded host.
func (s *stores) accounts() *c2s.Accounts {
	return &c2s.Accounts{Log: s.main.Log, Projections: s.main.Projections, Hosts: s.config.LocalHosts()}
}

// archive is the archive on these stores. Only a server that serves records
// policies that the configuration changed: nothing is decided by them before.
func (s *stores) archive(ctx context.Context, logger *zap.Logger, metrics prometheus.Registerer, serving bool) (*xep0313.Archive, error) {
	c := xep0313.Config{
		Log: s.main.Log, Projections: s.main.Projections, Contacts: s.main.Projections,
		Logger: logger, Metrics: metrics, KeepPolicies: !serving, Limits: archiveLimits(s.config.Limits),
	}
	for _, h := range s.config.Hosts {
		for _, ms := range s.messages {
			if slices.Contains(ms.Hosts, h.Name) {
				c.Hosts = append(c.Hosts, xep0313.Host{Name: h.Name, Options: h.Archive, Log: ms.opened.Log, Archives: ms.opened.Projections})
			}
		}
	}
	return xep0313.New(ctx, c)
}

// Close closes what is open: all logs first, main's last of them, so that nothing
// is applied to or asked of projections that are closed.
func (s *stores) Close() error {
	opened := []admin.Store{s.main}
	for _, ms := range s.messages {
		opened = append(opened, ms.opened)
	}
	var errs []error
	for _, st := range slices.Backward(opened) {
		if st.Log != nil {
			errs = append(errs, st.Log.Close())
		}
	}
	for _, st := range opened {
		if st.Projections != nil {
			errs = append(errs, st.Projections.Close())
		}
	}
	s.cache.Unref()
	return errors.Join(errs...)
}
