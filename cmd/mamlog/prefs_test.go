package main

import (
	"encoding/json"
	"os/user"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (r *result) entries() (entries []jsonEntry) {
	r.t.Helper()
	for line := range strings.Lines(r.out) {
		var e jsonEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

func TestPrefs(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, beside := range []bool{false, true} {
		t.Run(map[bool]string{false: "stopped", true: "running"}[beside], func(t *testing.T) {
			s := newSite(t, "")
			s.run("x\n", "user", "add", "juliet@test.example").want(0)
			const juliet = "juliet@test.example"
			if beside {
				s.serve()
			}
			s.run("", "prefs", "get", juliet).want(0, "default  always", "by the configuration of test.example")
			s.run("", "prefs", "set", juliet, "--default", "roster", "--always", "Romeo@Test.example", "--always", "nurse@test.example").
				want(0, "default  roster", "always   nurse@test.example, romeo@test.example", "never    -", "by operator:"+me.Username)
			// What isn't named stays; an empty list is emptied.
			s.run("", "prefs", "set", juliet, "--never", "paris@test.example").
				want(0, "default  roster", "always   nurse@test.example, romeo@test.example", "never    paris@test.example")
			s.run("", "prefs", "set", juliet, "--always", "", "--default", "never").
				want(0, "default  never", "always   -", "never    paris@test.example")

			s.run("", "prefs", "set", juliet).want(2, "nothing to set")
			s.run("", "prefs", "set", juliet, "--default", "sometimes").want(2, "always, never or roster")
			s.run("", "prefs", "set", juliet, "--always", "@").want(2)
			s.run("", "prefs", "set", juliet, "--always", "paris@test.example").want(2, "both always and never")
			s.run("", "prefs", "set", "paris@test.example", "--default", "never").want(4, "there is no user")
			s.run("", "prefs", "get", "paris@test.example").want(4, "there is no user")
			s.run("", "prefs", "history", "paris@test.example").want(4, "there is no user")

			entries := s.run("", "prefs", "history", juliet, "--json").want(0).entries()
			if len(entries) != 4 || entries[0].Kind != "policy" {
				t.Fatalf("got %+v, want a policy and three changes of preferences", entries)
			}
			for i, e := range entries[1:] {
				if e.Kind != "preferences" || e.Actor != "operator:"+me.Username || e.Cause != "operator" || (e.Before == nil) != (i == 0) || e.After == nil {
					t.Errorf("change %d is %+v", i, e)
				}
			}
			s.run("", "prefs", "history", juliet).want(0, "- the host's policy applies", "+ default roster; always nurse@test.example, romeo@test.example; never -", "by operator:"+me.Username)

			// In force at the very millisecond of each change, and just before it.
			at := func(stamp string, back time.Duration) *result {
				t.Helper()
				when, err := time.Parse(time.RFC3339, stamp)
				if err != nil {
					t.Fatal(err)
				}
				return s.run("", "prefs", "history", juliet, "--at", when.Add(-back).Format(time.RFC3339Nano))
			}
			at(entries[0].Time, 0).want(0, "default  always", entries[0].ID)
			at(entries[0].Time, time.Millisecond).want(1, "nothing was in force")
			at(entries[1].Time, 0).want(0, "default  roster", entries[1].ID)
			at(entries[1].Time, time.Millisecond).want(0, "default  always", entries[0].ID)
			at(entries[3].Time, time.Millisecond).want(0, "default  roster", "never    paris@test.example", entries[2].ID)
			at(entries[3].Time, -time.Hour).want(0, "default  never", entries[3].ID)
		})
	}
}

// TestPolicyInHistory: a changed configuration stands between the changes of
// preferences, and smart enabling is shown as what it is.
func TestPolicyInHistory(t *testing.T) {
	s := newSite(t, "")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.run("", "prefs", "get", "juliet@test.example").want(0, "default  always\n")
	s.configure("mam_smart_enable: true\ndefault_archive_policy: roster\narchive_expires_after: never\n")
	s.run("", "prefs", "get", "juliet@test.example").want(0, "default  always\n") // until a server decides by it
	s.serve().stop(syscall.SIGTERM)
	s.run("", "prefs", "get", "juliet@test.example").want(0, "default  never until the archive is first used, then roster")
	s.run("", "prefs", "set", "juliet@test.example", "--never", "paris@test.example").want(0, "default  roster")
	s.configure("")
	s.serve().stop(syscall.SIGTERM)
	s.run("", "prefs", "get", "juliet@test.example").want(0, "default  roster")
	var kinds []string
	for _, e := range s.run("", "prefs", "history", "juliet@test.example", "--json").want(0).entries() {
		kinds = append(kinds, e.Kind)
	}
	if got, want := strings.Join(kinds, " "), "policy policy preferences policy"; got != want {
		t.Errorf("the history is %q, want %q", got, want)
	}
	s.run("", "prefs", "history", "juliet@test.example").want(0, "+ default roster, from the first use of the archive on; expires after never")
}
