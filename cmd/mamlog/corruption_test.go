package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"mamlog/cmd/mamlog/conformance"
)

// TestFlippedBits flips one bit of one file of a stopped server, of every kind of
// file: it is found when the stores are opened, read or checked, unless nothing hangs on
// it, and no record or row is ever shown that was not written.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	flips := 60
	if conformance.Nightly() {
		flips = 1000
	}
	rng := rand.New(rand.NewPCG(seed(t), 8))
	mem := vfs.NewMem()
	l, clock := newLedger(), newSimulated()
	s, err := openIn(mem, clock.now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(rng, s, clock, l)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := w.use(); err != nil {
			t.Fatal(err)
		}
	}
	w.wg.Wait()
	for _, st := range s.all() { // some of the log into tables, and some after that
		if err := st.Log.Compact(context.Background(), w.class, clock.now()); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if err := w.use(); err != nil {
			t.Fatal(err)
		}
	}
	w.wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]string) // by kind
	err = eachFile(mem, "/data", func(name string) error {
		base := path.Base(name)
		kind := strings.TrimRight(strings.SplitN(base, "-", 2)[0], "0123456789")
		if i := strings.LastIndex(base, "."); i > 0 && !strings.HasPrefix(base, "marker") {
			kind = base[i:]
		}
		part := "log "
		if strings.Contains(name, "/projections/") {
			part = "rows "
		}
		if b, err := readFile(mem, name); err != nil || len(b) == 0 {
			return err
		}
		files[part+kind] = append(files[part+kind], name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found, total := make(map[string]int), make(map[string]int)
	kinds := make([]string, 0, len(files))
	for kind := range files {
		kinds = append(kinds, kind)
	}
	for n := range flips {
		kind := kinds[n%len(kinds)]
		name := files[kind][rng.IntN(len(files[kind]))]
		damaged := vfs.NewMem()
		if _, err := vfs.Clone(mem, damaged, "/data", "/data"); err != nil {
			t.Fatal(err)
		}
		at := flip(t, damaged, name, rng)
		total[kind]++
		err := readAll(damaged, l, clock)
		var wrong *wrongError
		if errors.As(err, &wrong) {
			t.Errorf("bit %d of %s: %v", at, name, err)
		}
		var gone *lostError
		switch {
		case errors.As(err, &gone):
			t.Errorf("bit %d of %s: nobody tells that %v", at, name, err)
		case err != nil:
			found[kind]++
		}
	}
	for _, kind := range kinds {
		t.Logf("%s: %d flipped, %d found, the others without effect", kind, total[kind], found[kind])
	}
	conformance.Figures(t, "%d bits flipped in %d kinds of files, none of them shown", flips, len(kinds))
}

// wrongError: something was shown that was never written.
type wrongError struct{ what string }

func (e *wrongError) Error() string { return e.what }

// lostError: something is gone.
type lostError struct{ what string }

func (e *lostError) Error() string { return e.what }

// readAll opens the damaged stores and reads all of them: an error if the damage is
// told, a wrongError if it is shown, a lostError if something is missing and nobody
// says so.
func readAll(fs vfs.FS, l *ledger, clock *simulated) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine gives up: %v", p)
		}
	}()
	s, err := openIn(fs, clock.now, zap.NewNop())
	if err != nil {
		return err
	}
	defer s.Close()
	for name, st := range s.all() {
		for r, err := range st.Log.Scan(ulid.ULID{}) {
			if err != nil {
				return err
			}
			if x := text(r.Event); x != "" && (l.tried[x] == nil || l.tried[x].store != name || l.tried[x].id != r.ID && l.tried[x].id != ulid.ULID{}) {
				return &wrongError{fmt.Sprintf("%s shows %q", name, x)}
			}
		}
	}
	for name, st := range s.all() {
		report, err := st.Projections.Check(context.Background(), nil)
		if err != nil || report.Differences > 0 {
			return fmt.Errorf("%s: check finds %d differences, %v", name, report.Differences, err)
		}
	}
	if err := l.verify(s); err != nil {
		return &lostError{err.Error()}
	}
	return nil
}

// flip changes one bit of the file, and tells which.
func flip(t *testing.T, fsys vfs.FS, name string, rng *rand.Rand) (bit int) {
	t.Helper()
	b, err := readFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	bit = rng.IntN(8 * len(b))
	b[bit/8] ^= 1 << (bit % 8)
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return bit
}
