package log

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

// holding is a file system on which the tables of compactions wait to be made.
type holding struct {
	vfs.FS
	begun, held chan struct{}
}

func (h holding) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if category == "pebble-compaction" {
		select {
		case h.begun <- struct{}{}:
		default:
		}
		<-h.held
	}
	return h.FS.Create(name, category)
}

// A compaction that is under way, and puts tables deeper than there were any, hides
// nothing that was deleted from CompactRange.
func TestCompactRangeBesideACompaction(t *testing.T) {
	fs := holding{vfs.NewMem(), make(chan struct{}, 1), make(chan struct{})}
	db, err := pebble.Open("db", &pebble.Options{
		FS: fs, Logger: EngineLogger(zap.NewNop()), FormatMajorVersion: pebble.FormatNewest,
		L0CompactionThreshold: 4, LBaseMaxBytes: 64 << 10, // so that what comes next goes less deep
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	noise := rand.NewChaCha8([32]byte{})
	value := make([]byte, 1000)
	for range 2 {
		// What stays keeps the engine from deleting the table as a whole.
		if err := db.Set([]byte("above"), nil, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			noise.Read(value)
			if err := db.Set(fmt.Appendf(nil, "key%d", i), value, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	<-fs.begun
	if err := db.DeleteRange([]byte("k"), []byte("l"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	flushes := db.Metrics().Flush.Count
	done := make(chan error, 1)
	go func() { done <- CompactRange(context.Background(), db, []byte("k"), []byte("l")) }()
	for db.Metrics().Flush.Count == flushes {
		select { // it looks how deep there are tables, then flushes, then waits for the other
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
	}
	close(fs.held)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); m.Total().TablesSize > 10_000 {
		t.Errorf("of 200 kB that were deleted %d bytes are left:\n%s", m.Total().TablesSize, m)
	}
}

// What a compaction kept for a reader, in the deepest level there is, CompactRange
// makes the files forget when the reader has gone.
func TestCompactRangeInTheDeepestLevel(t *testing.T) {
	db, err := pebble.Open("db", &pebble.Options{
		FS: vfs.NewMem(), Logger: EngineLogger(zap.NewNop()), FormatMajorVersion: pebble.FormatNewest, DisableAutomaticCompactions: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	noise := rand.NewChaCha8([32]byte{})
	value := make([]byte, 100_000)
	noise.Read(value)
	compact := func() {
		t.Helper()
		if err := db.Compact(t.Context(), []byte("k"), []byte("l"), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Set([]byte("key"), value, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	compact()
	reader := db.NewSnapshot()
	if err := db.Delete([]byte("key"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	compact()
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if size := db.Metrics().Total().TablesSize; size < 100_000 {
		t.Fatalf("the reader's value has %d bytes", size)
	}
	if err := CompactRange(t.Context(), db, []byte("ka"), []byte("l")); err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); m.Total().TablesSize > 1000 {
		t.Errorf("of 100 kB that were deleted %d bytes are left:\n%s", m.Total().TablesSize, m)
	}
}
