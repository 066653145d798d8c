package main

import (
	"fmt"
	"strings"
	"time"
)

const timeForms = "allowed is RFC 3339, as in 2026-11-22T20:27:03Z or 2026-11-22T21:27:03.5+01:00, or a date"

// parseTime reads a time of the command line. A date is its first instant, or
// with end its last one (to the millisecond, as archives count), in UTC.
func parseTime(s string, end bool) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			t = t.AddDate(0, 0, 1).Add(-time.Millisecond)
		}
		return t, nil
	}
	// RFC 3339 section 5.6 lets T and Z be small, and a space stand for T.
	u := strings.ToUpper(s)
	if len(u) > 10 && u[10] == ' ' {
		u = u[:10] + "T" + u[11:]
	}
	t, err := time.Parse(time.RFC3339Nano, u)
	if err != nil {
		return t, fmt.Errorf("%q is not a time; %s", s, timeForms)
	}
	return t.UTC(), nil
}

// timeFlag is a flag that holds a time.
type timeFlag struct {
	t   time.Time
	set bool
	end bool // a date is its last instant
}

func (f *timeFlag) String() string {
	if !f.set {
		return ""
	}
	return stamp(f.t)
}

func (f *timeFlag) Set(s string) (err error) {
	f.t, err = parseTime(s, f.end)
	f.set = err == nil
	return err
}

func (f *timeFlag) Type() string { return "TIME" }

// stamp is a time for machines: XEP-0082, in UTC and milliseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// clock is a time for people, in UTC.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
