package log

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"mamlog/disk"
)

// TestReclaimTakesNothingFromReaders: when all records have expired and their space is
// given back, who was reading them reads on to the end, and a backup, whose files are
// the same, has them all.
func TestReclaimTakesNothingFromReaders(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Now().Add(-48 * time.Hour)
	l := open(t, vfs.Default, func() time.Time { return now })
	defer l.Close()
	class, err := l.Class("test.example")
	if err != nil {
		t.Fatal(err)
	}
	const records = 12 // of a megabyte, which are more than the cache holds
	for range records {
		mustAppend(t, l, Entry{Class: class, Event: &Event{Kind: &Event_Message{Message: &MessageArchived{Owner: "a@h", Stanza: noise(t, 1<<20)}}}})
		if err := l.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Backup("backup"); err != nil {
		t.Fatal(err)
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: recordKey(class, ulid.ULID{}), UpperBound: recordKey(class+1, ulid.ULID{})})
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	if it.First() {
		read++
	}
	now = now.Add(24 * time.Hour)
	if _, err := l.Expire(t.Context(), class, now, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Compact(t.Context(), class, now); err != nil {
		t.Fatal(err)
	}
	if err := disk.Reclaimed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for it.Next() {
		read++
	}
	if err := it.Close(); err != nil || read != records {
		t.Errorf("the reader got %d records, want %d: %v", read, records, err)
	}
	if err := Deleted(t.Context(), l.db, l.fs, l.dir); err != nil {
		t.Fatal(err)
	}
	if ids := scanIDs(t, l, ulid.ULID{}); len(ids) != 1 {
		t.Errorf("%d records are left, want that of the expiry alone", len(ids))
	}

	b, err := Open("backup", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if ids := scanIDs(t, b, ulid.ULID{}); len(ids) != records {
		t.Errorf("the backup has %d records, want %d", len(ids), records)
	}
}

// noise is what compression can't shrink.
func noise(t *testing.T, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}
