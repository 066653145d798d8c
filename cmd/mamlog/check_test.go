package main

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

func TestCheckAndRebuild(t *testing.T) {
	s := newSite(t, "")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.record(conversation()...)
	s.run("", "check").want(0, "archive: ok", "main: ok")
	s.run("", "check", "--store", "elsewhere").want(2, `there is no store "elsewhere"; there is archive, main`)
	s.run("", "rebuild", "--store", "elsewhere").want(2)
	s.run("", "rebuild", "--store", "archive").want(0, "archive: rebuilt from ")
	s.run("", "check").want(0, "archive: ok", "main: ok")

	loseRows(t, s, 3)
	s.run("", "check").want(3, "archive: 3 of", "main: ok", "3 rows differ from the log", "mamlog rebuild")
	s.run("", "check", "--store", "main").want(0)
	r := s.serve()
	s.run("", "check").want(3, "3 rows differ") // the same beside a server
	s.run("", "rebuild").want(0, "archive: rebuilt from", "main: rebuilt from")
	s.run("", "check").want(0)
	if m := s.run("", "query", "juliet@test.example", "--json").want(0).messages(); len(m) != 253 {
		t.Errorf("after the rebuild there are %d messages, want 253", len(m))
	}
	if code := r.stop(15); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.log)
	}
}

// loseRows deletes the last n rows of the archive store's projections.
func loseRows(t *testing.T, s *site, n int) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.data, "stores", "archive", "projections", "rows-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v %v", dirs, err)
	}
	db, err := pebble.Open(dirs[0], &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	ok := it.Last()
	for range n {
		if !ok {
			t.Fatal("there are fewer rows")
		}
		if err := db.Delete(it.Key(), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		ok = it.Prev()
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) { panic("pebble can't go on") }

func TestRebuildOfDamagedProjections(t *testing.T) {
	s := newSite(t, "")
	s.record(conversation()...)
	dirs, _ := filepath.Glob(filepath.Join(s.data, "stores", "archive", "projections", "rows-*"))
	damage(t, dirs[0])
	s.run("", "query", "juliet@test.example").want(1, "open projections", "mamlog rebuild --store archive")
	s.run("", "rebuild").want(0, "archive: rebuilt from")
	if m := s.run("", "query", "juliet@test.example", "--json").want(0).messages(); len(m) != 253 {
		t.Errorf("after the rebuild there are %d messages, want 253", len(m))
	}
}
