package log

import (
	"bytes"
	"io"
	"path"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestFilesAreNotWrittenOver: the engine makes every file of the write-ahead log anew
// and deletes it when its records are in tables. Left to itself it writes over old
// ones, with what was in them still there behind the new end.
func TestFilesAreNotWrittenOver(t *testing.T) {
	var reused atomic.Int32
	counting := func(fs vfs.FS) vfs.FS {
		return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpReuseForWrite {
				reused.Add(1)
			}
			return nil
		}))
	}
	const rounds = 20
	mem := vfs.NewMem()
	l := open(t, counting(mem), nil)
	for n := range rounds {
		mustAppend(t, l, Entry{Class: Audit, Event: message("a@h", "round "+string(rune('a'+n)))})
		if err := l.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if n := reused.Load(); n > 0 {
		t.Errorf("%d files were written over", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List("log")
	if err != nil {
		t.Fatal(err)
	}
	logs := 0
	for _, name := range names {
		if path.Ext(name) != ".log" {
			continue
		}
		logs++
		f, err := mem.Open(mem.PathJoin("log", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("round ")) {
			t.Errorf("%s has what is in tables", name)
		}
	}
	if logs != 1 {
		t.Errorf("there are %d files of the write-ahead log, want 1", logs)
	}

	// The same with the engine's own way, without which this could not fail.
	o := pebbleOptions(Options{FS: counting(vfs.NewMem()), Logger: l.logger})
	o.Cleaner = pebble.DeleteCleaner{}
	db, err := pebble.Open("log", o)
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		if err := db.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if reused.Load() == 0 {
		t.Error("the engine writes over no file either way: what keeps it from that is not needed")
	}
}
