package log

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
)

// TestClockThatJumps: whatever the wall clock does, ids grow, the retention time
// never goes back nor further ahead than it may, and a restart forgets neither.
func TestClockThatJumps(t *testing.T) {
	fs := vfs.NewMem()
	wall := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	var elapsed time.Duration
	var l *Log
	open := func() {
		t.Helper()
		c := NewClock(func() time.Time { return wall })
		c.elapsed = func() time.Duration { return elapsed }
		var err error
		if l, err = Open("log", Options{FS: fs, Clock: c, MaxJump: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	restart := func() {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		elapsed = 0 // another process counts from another moment
		open()
	}
	pass := func(d time.Duration) { wall, elapsed = wall.Add(d), elapsed+d }
	var last ulid.ULID
	want := func(what string, retention time.Time, held bool) {
		t.Helper()
		if got, h := l.RetentionTime(); !got.Equal(retention) || h != held {
			t.Errorf("%s: the retention time is %s, held %v, want %s, %v", what, got, h, retention, held)
		}
		ids, err := l.AppendWait(t.Context(), Entry{Class: Audit, Event: &Event{Kind: &Event_Read{Read: &ArchiveRead{}}}})
		if err != nil {
			t.Fatal(err)
		}
		if ids[0].Compare(last) <= 0 {
			t.Errorf("%s: %s comes after %s", what, ids[0], last)
		}
		last = ids[0]
	}
	open()
	want("a new log", wall, false)
	pass(time.Hour)
	want("an hour later", wall, false)
	for range 70 { // a leap second, smeared over a day and more
		wall, elapsed = wall.Add(20*time.Minute-14*time.Millisecond), elapsed+20*time.Minute
		l.RetentionTime()
	}
	want("a smeared second", wall, false)
	right := wall
	wall = wall.Add(-3 * time.Hour)
	want("three hours back", right, false)
	wall = right.Add(23 * time.Hour)
	want("less ahead than it may", wall, false)

	right = wall
	wall = wall.AddDate(1, 0, 0)
	want("a year ahead", right, true)
	pass(2 * time.Hour)
	want("a year ahead, later", right.Add(2*time.Hour), true)
	restart()
	want("a year ahead, restarted", right.Add(2*time.Hour), true)
	wall = right.Add(3 * time.Hour)
	want("right again", wall, false)
	restart()
	want("right again, restarted", wall, false)

	right = wall
	wall = wall.Add(48 * time.Hour)
	restart()
	want("stopped for two days", right, true)
	if err := l.AcceptTime(t.Context(), "operator:root"); err != nil {
		t.Fatal(err)
	}
	want("accepted", wall, false)
	restart()
	want("accepted, restarted", wall, false)
	wall = wall.AddDate(0, 0, -9)
	if err := l.AcceptTime(t.Context(), "operator:root"); err != nil {
		t.Fatal(err)
	}
	want("accepted, back", wall, false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
