package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mamlog/bench"
)

// execute runs the command and returns what it printed.
func execute(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	c := command(&out, &errs)
	c.SetArgs(args)
	err = c.ExecuteContext(t.Context())
	if t.Failed() {
		t.Log(errs.String())
	}
	return out.String(), err
}

var goalLine = regexp.MustCompile(`^\S.*?  +[-0-9.,e]+  +(([≥≤]) [-0-9.,]+  +(ok|short)|–) *$`)

func TestQuick(t *testing.T) {
	dir := t.TempDir()
	profile := filepath.Join(dir, "cpu.out")
	out, err := execute(t, "quick", "--quiet", "--dir", dir, "--small", "1000", "--large", "6000", "--rounds", "1", "--time", "20ms", "--cpuprofile", profile)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) < 8 {
		t.Fatalf("%v\n%s", err, out)
	}
	short := false
	for _, l := range lines {
		if !goalLine.MatchString(l) {
			t.Errorf("no line of a goal: %q", l)
		}
		short = short || strings.HasSuffix(strings.TrimSpace(l), "short")
	}
	if (err != nil) != short || err != nil && !strings.Contains(err.Error(), "are short") {
		t.Errorf("some are short: %v, but it ends with %v", short, err)
	}
	if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
		t.Errorf("there is no profile: %v", err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes.md")
	if err := os.WriteFile(notes, []byte("## Limits\n\nNone.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	printed, err := execute(t, "check", "--quiet", "--only", "floor", "--out", out, "--notes", notes)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(printed, "appends in process") {
		t.Errorf("it printed %s", printed)
	}
	page, err := os.ReadFile(filepath.Join(out, "RESULTS.md"))
	if err != nil || !strings.HasSuffix(string(page), "\n## Limits\n\nNone.\n") {
		t.Errorf("%v: the page ends with %s", err, page[max(0, len(page)-60):])
	}
	if err := bench.Check(out); err != nil {
		t.Error(err)
	}
}

// TestNotWhole: what was measured before a part fails is written, and says so.
func TestNotWhole(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir) // nothing can be built, nor any server started
	out := filepath.Join(dir, "out")
	if _, err := execute(t, "check", "--quiet", "--only", "floor,ingest", "--seed", "7", "--out", out); err == nil || !strings.Contains(err.Error(), "ingest: ") {
		t.Fatalf("it ended with %v", err)
	}
	page, err := os.ReadFile(filepath.Join(out, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"`mamlog-bench check --only floor,ingest --seed 7`", "appends in process", "## This report is not whole\n", "ingest: "} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not have %q:\n%s", want, page)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, args := range [][]string{
		{"floor", "--rounds", "0"}, {"quick", "extra"}, {"nothing"}, {"floor", "--small", "1"}, {"check", "--only", "nothing", "--quiet"},
	} {
		if out, err := execute(t, args...); err == nil {
			t.Errorf("%q was accepted: %s", args, out)
		}
	}
}
