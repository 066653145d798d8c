package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Files that are removed lose their names at once and give their space back little
// by little: a disk that is told which blocks are free, as the mount option discard
// has it, does nothing else meanwhile, and a megabyte may take it milliseconds. What
// has no name any more the system gives back when the process ends.
const (
	piece   = 1 << 20 // bytes that are given back at once
	idle    = 500     // how often as long as that took nothing is given back, while somebody syncs
	maxFree = 1 << 30 // bytes, which are
	maxOpen = 256     // files, that wait to be given back; with more of them the rests are shorter
)

// gone begins the names of directories that are being removed.
const gone = "gone-"

var space = reclaimer{wake: make(chan struct{}, 1)}

// reclaimer gives back space, in a goroutine that is there while there is some.
type reclaimer struct {
	wake   chan struct{} // ends a rest
	synced atomic.Int64  // when somebody last did, in ns

	mu    sync.Mutex
	files []*os.File // which have no name
	bytes int64      // of files, and of the one that is being given back
	dirs  []string   // to be removed when there are no more files
	hurry int        // how many wait
	done  chan struct{}
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error { return remove(f.FS, name) }

func remove(fsys vfs.FS, name string) error {
	if !isSystems(fsys) {
		return fsys.Remove(name)
	}
	file, openErr := os.OpenFile(name, os.O_WRONLY, 0)
	err := fsys.Remove(name)
	if openErr == nil && (err != nil || !space.give(file)) {
		_ = file.Close()
	}
	return err
}

// isSystems tells whether the files of fsys are the operating system's.
func isSystems(fsys vfs.FS) bool {
	for fsys != nil && fsys != vfs.Default {
		fsys = fsys.Unwrap()
	}
	return fsys != nil
}

// RemoveAll removes dir, if there is one, with all that is in it. On return nothing
// has that name, durably; what the process does not come to before it ends is
// left for RemoveRest.
func RemoveAll(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	parent := filepath.Dir(dir)
	if !isSystems(fsys) {
		if err := fsys.RemoveAll(dir); err != nil {
			return err
		}
		return SyncDir(fsys, parent)
	}
	for n := 1; ; n++ {
		name := filepath.Join(parent, gone+strconv.Itoa(n))
		if err := fsys.Rename(dir, name); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		space.giveDir(name)
		return SyncDir(fsys, parent)
	}
}

// RemoveRest goes on with what RemoveAll began in parent.
func RemoveRest(fsys vfs.FS, parent string) error {
	names, err := fsys.List(parent)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, gone) {
			space.giveDir(filepath.Join(parent, name))
		}
	}
	return nil
}

// Reclaimed returns when what was removed has given back all of its space, which
// goes as fast as it can meanwhile.
func Reclaimed(ctx context.Context) error { return space.wait(ctx) }

// give takes f over, if it is worth while: what has another name, as in a backup,
// must stay as it is.
func (r *reclaimer) give(f *os.File) bool {
	bytes, names, err := allocated(f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || names > 0 || bytes == 0 || len(r.files) >= maxOpen {
		return false
	}
	r.files = append(r.files, f)
	r.bytes += bytes
	r.start()
	return true
}

func allocated(f *os.File) (bytes, names int64, err error) {
	i, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	s, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, errors.ErrUnsupported
	}
	return s.Blocks * 512, int64(s.Nlink), nil // a log has blocks behind its end
}

func (r *reclaimer) giveDir(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.dirs, dir) {
		r.dirs = append(r.dirs, dir)
		r.start()
	}
}

// start is called under r.mu.
func (r *reclaimer) start() {
	if r.done == nil {
		r.done = make(chan struct{})
		go r.run()
	}
}

func (r *reclaimer) run() {
	for {
		r.mu.Lock()
		switch {
		case len(r.files) > 0:
			f := r.files[0]
			r.files = slices.Delete(r.files, 0, 1)
			r.mu.Unlock()
			r.reclaim(f)
		case len(r.dirs) > 0:
			dir := r.dirs[0]
			r.mu.Unlock()
			if !r.removeOne(dir) {
				r.mu.Lock()
				r.dirs = slices.Delete(r.dirs, 0, 1)
				r.mu.Unlock()
			}
		default:
			close(r.done)
			r.done = nil
			r.mu.Unlock()
			return
		}
	}
}

// reclaim gives back f from its end on.
func (r *reclaimer) reclaim(f *os.File) {
	defer f.Close() // gives back what is left, if anything goes wrong
	left, _, err := allocated(f)
	for err == nil && left > 0 {
		began := time.Now()
		n := min(left, piece)
		left -= n
		err = errors.Join(f.Truncate(left), f.Sync())
		r.rest(n, time.Since(began))
	}
	if left > 0 {
		r.rest(left, 0)
	}
}

// rest waits after bytes were given back, which took some time.
func (r *reclaimer) rest(bytes int64, took time.Duration) {
	r.mu.Lock()
	r.bytes -= bytes
	full := min(1, max(float64(r.bytes)/maxFree, float64(len(r.files))/maxOpen))
	hurry := r.hurry > 0
	r.mu.Unlock()
	if hurry || took == 0 || time.Now().UnixNano()-r.synced.Load() > int64(time.Second) {
		return
	}
	t := time.NewTimer(time.Duration(float64(took) * idle * (1 - full)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.wake:
	}
}

// removeOne removes a file of dir, and dir when it has none; it returns false when
// dir is gone, or can't be removed.
func (r *reclaimer) removeOne(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	names, _ := d.Readdirnames(1)
	_ = d.Close()
	if len(names) == 0 {
		_ = os.Remove(dir)
		return false
	}
	if err := remove(vfs.Default, filepath.Join(dir, names[0])); err != nil {
		_ = os.RemoveAll(dir)
		return false
	}
	return true
}

func (r *reclaimer) wait(ctx context.Context) error {
	r.mu.Lock()
	done := r.done
	r.mu.Unlock()
	if done == nil {
		return nil
	}
	defer r.hasten()()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hasten lets r not rest until the returned function is called.
func (r *reclaimer) hasten() (enough func()) {
	r.mu.Lock()
	r.hurry++
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return func() {
		r.mu.Lock()
		r.hurry--
		r.mu.Unlock()
	}
}
