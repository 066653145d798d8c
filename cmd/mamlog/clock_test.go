package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"mamlog/projections"
	"mamlog/xep0313"
)

// TestClockAYearAhead: what is kept for an hour is still there when the server starts
// with a clock that is a year ahead, and goes when somebody accepts it.
func TestClockAYearAhead(t *testing.T) {
	mem := vfs.NewMem()
	l, clock := newLedger(), newSimulated()
	var s *stores
	open := func() {
		t.Helper()
		var err error
		if s, err = openIn(mem, clock.now, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	open()
	w, err := newWorkload(rand.New(rand.NewPCG(seed(t), 0)), s, clock, l)
	if err != nil {
		t.Fatal(err)
	}
	left := func(what string, held bool, want int) {
		t.Helper()
		archive, err := s.archive(t.Context(), zap.NewNop(), nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Expire(t.Context(), "", "", false); errors.Is(err, xep0313.ErrTimeHeld) != held || !held && err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		page, err := s.messages[0].opened.Projections.Query(projections.Query{Class: w.class, Owner: "owner@h"})
		if err != nil || page.Count != want {
			t.Errorf("%s: %d messages, %v, want %d", what, page.Count, err, want)
		}
	}
	for range 10 {
		x, e := w.message("owner@h")
		if err := w.append([]*written{x}, []xep0313.Side{e}, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.wg.Wait()
	left("at first", false, 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.advance(365 * 24 * time.Hour)
	open()
	left("a year ahead", true, 10)
	for _, st := range s.all() {
		if err := st.Log.AcceptTime(t.Context(), "operator:root"); err != nil {
			t.Fatal(err)
		}
	}
	left("accepted", false, 0)
	var who []string
	for r, err := range s.main.Log.Scan(ulid.ULID{}) {
		if err != nil {
			t.Fatal(err)
		}
		if c := r.Event.GetClock(); c != nil {
			who = append(who, c.Actor)
			if ahead := time.Duration(c.ClockUnixMs-c.RetentionUnixMs) * time.Millisecond; ahead < 364*24*time.Hour {
				t.Errorf("the clock is on record as %v ahead", ahead)
			}
		}
	}
	if fmt.Sprint(who) != "[operator:root]" {
		t.Errorf("on record: %v", who)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
