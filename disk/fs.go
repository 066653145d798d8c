package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrFull is reported while there is less free space than the reserve.
var ErrFull = errors.New("the disk is nearly full")

// errClosed ends a write that still waits when the FS is closed.
var errClosed = errors.New("closed while the disk took no writes")

// Options for New. The zero value works.
type Options struct {
	// Report is told why the disk takes no writes, when that begins, and nil when
	// it does again. It is called by one goroutine at a time and must not touch
	// the disk. nil: nobody is told.
	Report func(error)
	// Reserve is how many bytes are kept free: with less, ErrFull is reported. It
	// leaves room for the engine to write out what it has been given, and to give
	// space back.
	Reserve uint64
	// Retry is how long a failed write waits until it is tried again, and how
	// often the free space is looked at; 0: a second.
	Retry time.Duration
}

// FS is a file system for one store of the engine, in one directory. Until Watch
// it passes everything through, so that a store that can't be opened fails.
type FS struct {
	vfs.FS
	dir  string
	opts Options

	gentle atomic.Bool // what is written has all the time in the world

	mu       sync.Mutex
	watching bool
	waiting  int   // writes that are tried again and again
	failed   error // the last failure since the disk was found well
	reported error // what report was told last

	reporting sync.Mutex
	ctx       context.Context
	close     context.CancelFunc
	watched   sync.WaitGroup
}

// New returns an FS for the store in dir of base.
func New(base vfs.FS, dir string, o Options) *FS {
	if o.Report == nil {
		o.Report = func(error) {}
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	f := &FS{FS: base, dir: filepath.Clean(dir), opts: o}
	f.ctx, f.close = context.WithCancel(context.Background())
	return f
}

// Watch makes failed writes wait from now on, and looks after the disk until
// Close.
func (f *FS) Watch() {
	f.mu.Lock()
	f.watching = true
	f.mu.Unlock()
	f.look() // what is full already is told before anything is written
	f.watched.Go(func() {
		t := time.NewTicker(f.opts.Retry)
		defer t.Stop()
		for {
			select {
			case <-f.ctx.Done():
				return
			case <-t.C:
				f.look()
			}
		}
	})
}

// Gentle makes the tables that are written from now on take gentle turns, or not.
func (f *FS) Gentle(on bool) { f.gentle.Store(on) }

// Close lets writes that wait fail. The store must not be used any more.
func (f *FS) Close() {
	f.close()
	f.watched.Wait()
	f.reporting.Lock()
	defer f.reporting.Unlock()
	if f.reported != nil {
		f.reported = nil
		f.opts.Report(nil) // what was in trouble is no more
	}
}

// Trouble is why the disk takes no writes, nil if it does. While it isn't nil, to
// close the store might wait for ever.
func (f *FS) Trouble() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reported
}

// look finds out whether the disk takes writes and reports a change.
func (f *FS) look() {
	f.mu.Lock()
	failed, waiting := f.failed, f.waiting
	f.mu.Unlock()
	full := f.full()
	if failed != nil && waiting == 0 && full == nil && f.probe() == nil {
		f.mu.Lock()
		if f.waiting == 0 {
			f.failed = nil
		}
		f.mu.Unlock()
	}
	f.report(full)
}

// full is ErrFull with figures if less than the reserve is free, and what was removed
// does not change that soon. A file system that can't tell is taken to have enough.
func (f *FS) full() error {
	u, err := f.FS.GetDiskUsage(f.dir)
	if err == nil && u.AvailBytes < f.opts.Reserve {
		ctx, cancel := context.WithTimeout(f.ctx, f.opts.Retry)
		_ = space.wait(ctx)
		cancel()
		u, err = f.FS.GetDiskUsage(f.dir)
	}
	if err != nil || u.AvailBytes >= f.opts.Reserve {
		return nil
	}
	return fmt.Errorf("%w: %d MiB are free, and %d MiB are to be kept free", ErrFull, u.AvailBytes>>20, f.opts.Reserve>>20)
}

// report tells the present state if it is another than was told last.
func (f *FS) report(full error) {
	f.reporting.Lock()
	defer f.reporting.Unlock()
	f.mu.Lock()
	now := f.failed
	if now == nil {
		now = full
	}
	told := f.reported
	f.reported = now
	f.mu.Unlock()
	if (now == nil) != (told == nil) {
		f.opts.Report(now)
	}
}

// probe tells whether a file can be written, synced and removed.
func (f *FS) probe() (err error) {
	name := f.FS.PathJoin(f.dir, "probe")
	file, err := f.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = file.Write(make([]byte, 64<<10)); err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close(), f.FS.Remove(name))
}

// fail notes that a write failed.
func (f *FS) fail(err error) {
	f.mu.Lock()
	f.failed = err
	f.mu.Unlock()
	f.report(nil)
}

// pause waits until a failed write is worth another try, and returns false when
// there will be none. It may be space that is missing.
func (f *FS) pause() bool {
	defer space.hasten()()
	t := time.NewTimer(f.opts.Retry)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// insist does what must not fail until it doesn't. try returns what is left to
// be tried, with the error.
func (f *FS) insist(try func() error) error {
	err := try()
	if err == nil || !f.isWatching() {
		return err
	}
	f.mu.Lock()
	f.waiting++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
	}()
	for err != nil {
		f.fail(err)
		if !f.pause() {
			return errors.Join(errClosed, err)
		}
		err = try()
	}
	return nil
}

func (f *FS) isWatching() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watching
}

// A fate is what becomes of a failed write.
type fate int

const (
	passes fate = iota // to the caller: not the store's, or nothing hangs on it
	told               // to the caller, after a pause, and it is reported
	waits              // until it succeeds
)

// fateOf decides by the name: of the files in the store's directory, tables and
// blobs can be written anew by the engine; the rest it can't do without.
func (f *FS) fateOf(name string) fate {
	if f.FS.PathDir(name) != f.dir {
		return passes
	}
	switch base := f.FS.PathBase(name); {
	case strings.HasSuffix(base, ".sst"), strings.HasSuffix(base, ".blob"):
		return told
	case strings.HasSuffix(base, ".log"), strings.HasPrefix(base, "MANIFEST-"),
		strings.HasPrefix(base, "marker."), strings.HasPrefix(base, "OPTIONS-"),
		strings.HasSuffix(base, ".dbtmp"):
		return waits
	}
	return passes
}

// do carries a write operation to its fate.
func (f *FS) do(fate fate, try func() error) error {
	switch fate {
	case waits:
		return f.insist(try)
	case told:
		err := try()
		if err != nil && f.isWatching() {
			f.fail(err)
			f.pause() // the engine tries again at once
		}
		return err
	}
	return try()
}

// Create implements vfs.FS. A marker, which names another file of the directory, is
// made when that one's name is on the disk: the engine syncs both names together,
// and after a crash only the marker might be there.
func (f *FS) Create(name string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	fate := f.fateOf(name)
	if fate == waits && strings.HasPrefix(f.FS.PathBase(name), "marker.") {
		if err := f.do(fate, func() error { return SyncDir(f.FS, f.dir) }); err != nil {
			return nil, err
		}
	}
	err = f.do(fate, func() (err error) {
		file, err = f.FS.Create(name, c)
		return err
	})
	return f.wrap(file, fate, c, err)
}

// ReuseForWrite implements vfs.FS. A file that can't be had again is made anew.
func (f *FS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	fate := f.fateOf(name)
	reuse := true
	err = f.do(fate, func() (err error) {
		if reuse {
			reuse = false
			if file, err = f.FS.ReuseForWrite(old, name, c); err == nil {
				return nil
			}
			_ = f.FS.Remove(old) // it may be gone: under the new name, which Create replaces
		}
		file, err = f.FS.Create(name, c)
		return err
	})
	return f.wrap(file, fate, c, err)
}

func (f *FS) wrap(file vfs.File, fate fate, c vfs.DiskWriteCategory, err error) (vfs.File, error) {
	if err != nil || fate == passes {
		return file, err
	}
	return &writer{File: file, fs: f, fate: fate, turn: Turn{urgent: c == "pebble-memtable-flush"}}, nil
}

// Rename implements vfs.FS.
func (f *FS) Rename(old, name string) error {
	return f.do(f.fateOf(name), func() error { return f.FS.Rename(old, name) })
}

// OpenDir implements vfs.FS.
func (f *FS) OpenDir(name string) (dir vfs.File, err error) {
	fate := passes
	if filepath.Clean(name) == f.dir {
		fate = waits
	}
	err = f.do(fate, func() (err error) {
		dir, err = f.FS.OpenDir(name)
		return err
	})
	if err != nil || fate == passes {
		return dir, err
	}
	return &directory{dir, f}, nil
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (io.Closer, error) { return f.FS.Lock(name) }

// Unwrap implements vfs.FS.
func (f *FS) Unwrap() vfs.FS { return f.FS }

// directory is the store's, opened to be synced.
type directory struct {
	vfs.File
	fs *FS
}

// Sync implements vfs.File.
func (d *directory) Sync() error { return d.fs.insist(d.File.Sync) }

// IsFull tells whether err is that of a disk, or of a quota, with no room left.
func IsFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
