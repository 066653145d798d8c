package xep0313

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestStampLayout: stamps are what package time makes of their layout.
func TestStampLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "ms") // the years 1 to 9999
		want := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
		if got := string(appendStamp(nil, ms)); got != want {
			t.Fatalf("%d: %s, want %s", ms, got, want)
		}
	})
}
