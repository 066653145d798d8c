package projections

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Rows that a rebuild could not remove still have what is erased later: a scrub, and
// the next rebuild, remove them first, or fail.
func TestScrubRemovesWhatARebuildLeft(t *testing.T) {
	var fails atomic.Bool
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fails.Load() && op.Kind == errorfs.OpRemoveAll && strings.Contains(op.Path, "rows-") {
			return syscall.EIO
		}
		return nil
	}))
	l, s, c := openBoth(t, fs, nil, Options{})
	defer s.Close()
	defer l.Close()
	ids := archive(t, l, c, "a@h", "b@h/x", 3)
	generations := func() []string {
		t.Helper()
		names, err := mem.List("rows")
		if err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, "rows-") })
		slices.Sort(names)
		return names
	}
	fails.Store(true)
	if err := s.Rebuild(nil); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a rebuild that can't remove the old rows: %v", err)
	}
	if err := s.Scrub(t.Context(), c, ids[0], ids[2]); !errors.Is(err, syscall.EIO) {
		t.Errorf("a scrub that leaves the old rows: %v", err)
	}
	if err := s.Rebuild(nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("a second rebuild leaves them too: %v", err)
	}
	fails.Store(false)
	if got := generations(); len(got) != 2 {
		t.Fatalf("there are %q", got)
	}
	if err := s.Scrub(t.Context(), c, ids[0], ids[2]); err != nil {
		t.Fatal(err)
	}
	if got := generations(); !slices.Equal(got, []string{filepath.Base(s.rows.dir)}) {
		t.Errorf("after the scrub there are %q", got)
	}
	if page, err := s.Query(Query{Class: c, Owner: "a@h", Max: 10}); err != nil || page.Len != 3 {
		t.Errorf("%d messages, %v", page.Len, err)
	}
}
