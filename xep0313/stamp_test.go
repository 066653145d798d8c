package xep0313

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"
)

// TestStamps: stamps are what package time makes of their layout, whichever came
// before.
func TestStamps(t *testing.T) {
	var s stamps
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "ms") // the years 1 to 9999
		for _, ms := range []int64{ms, ms + rapid.Int64Range(0, 100_000_000).Draw(t, "later")} {
			want := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
			if got := string(s.append([]byte("at "), ms)); got != "at "+want {
				t.Fatalf("%d: %s, want %s", ms, got, want)
			}
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
