package xep0313

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

// TestStamps: stamps are what package time makes of their layout.
func TestStamps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.OneOf(
			rapid.Int64Range(-62135596800000, 253402300799999), // the years 1 to 9999
			rapid.Int64Range(-1<<48, 1<<48),
		).Draw(t, "ms")
		want := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
		if got := string(appendStamp([]byte("at "), ms)); got != "at "+want {
			t.Fatalf("%d: %s, want %s", ms, got, want)
		}
	})
}

// TestIDs: an id is written as package ulid does.
func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ulid.ULID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if got := string(appendID([]byte("id "), id)); got != "id "+id.String() {
			t.Fatalf("%s, want id %s", got, id)
		}
	})
}
