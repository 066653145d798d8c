package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mamlog/cmd/mamlog/conformance"
)

// copied is the site once more, with a copy of its stores.
func (s *site) copied() *site {
	s.t.Helper()
	c := newSite(s.t, "")
	if err := copyDir(s.data, c.data); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// files are those of the site that match any of the patterns.
func (s *site) files(patterns ...string) (names []string) {
	s.t.Helper()
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(s.data, p))
		if err != nil {
			s.t.Fatal(err)
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		s.t.Fatalf("there are no files %v", patterns)
	}
	return names
}

// TestDamagedRows flips one bit in the files of the projections: check finds it and
// says what to do, which mends them from the log.
func TestDamagedRows(t *testing.T) {
	t.Parallel()
	flips := 6
	if conformance.Nightly() {
		flips = 200
	}
	rng := rand.New(rand.NewPCG(seed(t), 9))
	s := newSite(t, "")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.record(conversation()...)
	s.run("", "prefs", "set", "juliet@test.example", "--never", "tybalt@test.example").want(0)
	shown := func(s *site) string {
		return s.run("", "query", "juliet@test.example", "--json").want(0).out + s.run("", "prefs", "get", "juliet@test.example").want(0).out
	}
	want := shown(s)
	found := 0
	for n := range flips {
		d := s.copied()
		kind := "*.sst"
		if n%6 == 5 {
			kind = "MANIFEST-*"
		}
		files := d.files(filepath.Join("main/projections/rows-*", kind), filepath.Join("stores/archive/projections/rows-*", kind))
		name := files[rng.IntN(len(files))]
		bit := flip(t, vfs.Default, name, rng)
		r := d.run("", "check")
		switch r.code {
		case 0: // nothing hangs on it
		case exitFailed, exitDiffers:
			found++
			if !strings.Contains(r.err, "'mamlog rebuild") || strings.Contains(r.err, "docs/reliability.md") {
				t.Errorf("bit %d of %s: check does not say what to do:\n%s", bit, name, r.err)
			}
			d.run("", "rebuild").want(0, "archive: rebuilt", "main: rebuilt")
		default:
			t.Errorf("bit %d of %s: check exits with %d:\n%s", bit, name, r.code, r.err)
		}
		d.run("", "check").want(0, "archive: ok", "main: ok")
		if got := shown(d); got != want {
			t.Errorf("bit %d of %s: after check and rebuild it shows\n%s\nwant\n%s", bit, name, got, want)
		}
		if err := os.RemoveAll(d.dir); err != nil {
			t.Fatal(err)
		}
	}
	if found < flips/2 {
		t.Errorf("check finds %d of %d", found, flips)
	}
	conformance.Figures(t, "%d bits flipped, %d found and mended, the others without effect", flips, found)
}

// TestDamagedLog goes by what docs/reliability.md says is to be done when the log is
// damaged: nothing takes what is lost for absent or makes it worse, a backup is
// restored, and what came after it is read from the rows.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	const juliet = "juliet@test.example"
	s := newSite(t, "")
	backup := filepath.Join(s.dir, "backup")
	s.record(conversation()...)
	r := s.serve()
	s.run("", "backup", backup).want(0)
	if code := r.stop(15); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.log)
	}
	s.record([3]string{"romeo@test.example/orchard", juliet, "after the backup"}, [3]string{"romeo@test.example/orchard", juliet, "and once more"})
	all := s.run("", "query", juliet, "--json").want(0).messages()

	tables := s.files("stores/archive/log/*.sst")
	largest := slices.MaxFunc(tables, func(a, b string) int { return size(t, a) - size(t, b) })
	b, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/3] ^= 1
	if err := os.WriteFile(largest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check"}, {"rebuild"}, {"check", "--store", "archive"}} {
		s.run("", args...).want(1, largest+" is damaged", "don't rebuild", "When a file is damaged")
	}
	r = s.serve()
	if got := s.run("", "query", juliet, "--json").want(0).messages(); !slices.Equal(bodies(got), bodies(all)) {
		t.Errorf("with a damaged log %d messages are shown, want %d", len(got), len(all))
	}
	s.run("", "check").want(1, largest+" is damaged")
	if code := r.stop(15); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.log)
	}

	// What must make the rows anew can't, and leaves them.
	s.configure("archive_expires_after: never\n")
	for _, command := range []string{"serve", "check", "rebuild"} {
		s.run("", command).want(1, largest+" is damaged", "they are as they were")
	}
	s.configure("")
	if got := s.run("", "query", juliet, "--json").want(0).messages(); !slices.Equal(bodies(got), bodies(all)) {
		t.Errorf("after that %d messages are shown, want %d", len(got), len(all))
	}

	restored := newSite(t, "")
	restored.run("", "restore", backup).want(0, "archive: ok", "main: ok")
	old := restored.run("", "query", juliet, "--json").want(0).messages()
	after := s.run("", "query", juliet, "--after", old[len(old)-1].ID, "--json").want(0).messages()
	if got := slices.Concat(bodies(old), bodies(after)); !slices.Equal(got, bodies(all)) {
		t.Errorf("the backup has %d messages, and %d came after it; want %d", len(old), len(after), len(all))
	}
}

func size(t *testing.T, name string) int {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}
