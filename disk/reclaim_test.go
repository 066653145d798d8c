package disk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A removed file has no name any more, and gives its space back in pieces while somebody
// syncs; who waits until all of it is back needs not wait for long.
func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "000001.sst")
	seen := big(t, name)
	f := New(vfs.Default, dir, Options{})
	log, err := f.Create(filepath.Join(dir, "000002.log"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Sync(); err != nil {
		t.Fatal(err)
	}
	if space.synced.Load() == 0 {
		t.Error("it is not known that a log was synced")
	}
	space.synced.Store(math.MaxInt64) // all the time
	defer space.synced.Store(0)
	if err := f.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has its name: %v", err)
	}
	for size(t, seen) == bigSize {
		time.Sleep(time.Millisecond)
	}
	if size(t, seen) == 0 {
		t.Error("all of it was given back at once")
	}
	reclaimed(t)
	if n := size(t, seen); n != 0 {
		t.Errorf("%d bytes were not given back", n)
	}
	if err := New(vfs.Default, dir, Options{}).Remove(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to remove what is not there: %v", err)
	}
}

// What has another name, as in a backup, stays as it is under that.
func TestReclaimLeavesLinks(t *testing.T) {
	dir := t.TempDir()
	name, backup := filepath.Join(dir, "000001.sst"), filepath.Join(dir, "backup")
	seen := big(t, name)
	if err := os.Link(name, backup); err != nil {
		t.Fatal(err)
	}
	if err := New(vfs.Default, dir, Options{}).Remove(name); err != nil {
		t.Fatal(err)
	}
	reclaimed(t)
	if b, err := os.ReadFile(backup); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{'x'}, bigSize)) {
		t.Errorf("the backup has %d bytes, and not those of before: %v", len(b), err)
	}
	if err := New(vfs.Default, dir, Options{}).Remove(backup); err != nil {
		t.Fatal(err)
	}
	reclaimed(t)
	if n := size(t, seen); n != 0 {
		t.Errorf("%d bytes were not given back with the last name", n)
	}
}

// A directory loses its name at once; what is left of it when the process ends is
// removed when the store is opened again.
func TestReclaimDirectories(t *testing.T) {
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows-1")
	var seen []*os.File
	for _, name := range []string{"rows-1/000001.sst", gone + "1/000002.sst", gone + "5/000003.sst", "rows-1/in/000004.sst"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, big(t, filepath.Join(dir, name)))
	}
	if err := RemoveAll(vfs.Default, rows); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(rows); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has its name: %v", err)
	}
	if err := errors.Join(RemoveAll(vfs.Default, rows), RemoveRest(vfs.Default, dir)); err != nil {
		t.Fatal(err)
	}
	reclaimed(t)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
	for i, f := range seen[:3] {
		if n := size(t, f); n != 0 {
			t.Errorf("of file %d, %d bytes were not given back", i+1, n)
		}
	}
}

// Before it is said that the disk is full, what was removed gives its space back.
func TestReclaimBeforeFull(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "000001.sst")
	disk := smallDisk{vfs.Default, big(t, name), t}
	var told []error
	f := New(disk, dir, Options{Reserve: 1, Retry: time.Minute, Report: func(err error) { told = append(told, err) }})
	defer f.Close()
	if err := f.Remove(name); err != nil {
		t.Fatal(err)
	}
	f.Watch()
	if err := f.Trouble(); err != nil || len(told) > 0 {
		t.Errorf("%v, and told was %v", err, told)
	}
}

// smallDisk has space when file has none.
type smallDisk struct {
	vfs.FS
	file *os.File
	t    *testing.T
}

func (d smallDisk) Unwrap() vfs.FS { return d.FS }

func (d smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(bigSize - size(d.t, d.file))}, nil
}

const bigSize = 4 * piece

// big makes a file, and opens it to see what becomes of it.
func big(t *testing.T, name string) *os.File {
	t.Helper()
	if err := os.WriteFile(name, bytes.Repeat([]byte{'x'}, bigSize), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	i, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return i.Size()
}

func reclaimed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Reclaimed(ctx); err != nil {
		t.Fatal(err)
	}
}
