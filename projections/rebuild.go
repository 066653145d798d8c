package projections

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/tlog"

	"mamlog/disk"
	"mamlog/log"
)

// Rebuild makes all rows anew from the log and then exchanges them for the old
// ones. Queries and appends go on meanwhile and wait only for the exchange.
// progress, if not nil, is told how many records were folded.
func (s *Store) Rebuild(progress func(records int)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rebuild projections %s: %w", s.dir, err)
		}
	}()
	if !s.maintaining.TryLock() {
		return errBusy
	}
	defer s.maintaining.Unlock()
	if err := s.succeed(s.rows); err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(s.rows.dir), "rows-"))
	if err != nil {
		return err
	}
	fresh, err := s.createRows(s.generation(n + 1))
	if err != nil {
		return err
	}
	old, err := s.exchange(fresh, progress)
	fresh.fs.Gentle(false)
	if err != nil {
		return errors.Join(err, s.drop(fresh))
	}
	fresh.replaces = old.dir
	return errors.Join(old.close(), s.succeed(fresh))
}

// succeed makes r, which is in use, what is opened from now on, and drops the rows
// before it. Until then they would be opened, and brought up to the end of the log: if
// the disk does not let that be done, Scrub must do it, since they still have what
// it is to make forget.
func (s *Store) succeed(r *rows) error {
	if r.replaces == "" {
		return nil
	}
	if err := r.complete(); err != nil {
		return err
	}
	if err := disk.RemoveAll(s.opts.FS, r.replaces); err != nil {
		return err
	}
	r.replaces = ""
	return nil
}

// exchange folds the log into fresh and lets queries and appends go there.
func (s *Store) exchange(fresh *rows, progress func(records int)) (old *rows, err error) {
	folder := s.newFolder(fresh)
	defer folder.turn.End()
	// What comes meanwhile is less each time. Where it isn't, giving way must end, and if
	// that doesn't help appends must wait for what is left.
	folded, before := 0, math.MaxInt
	for {
		last := 0
		err := s.log.Feed(folder, func(records int) {
			if last = records; progress != nil {
				progress(folded + records)
			}
		})
		if err != nil {
			return nil, err
		}
		more := last > before/2
		if last < fewRecords || more && folder.hurry {
			break
		}
		if more {
			folder.hurry = true
			fresh.fs.Gentle(false)
		}
		folded, before = folded+last, last
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	folder.hurry = true
	// Up to what the old rows have seen; the rest will be applied to the new ones.
	if err := s.log.Feed(&upTo{folder, s.rows.position}, nil); err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	s.using.Lock()
	old = s.rows
	s.rows = fresh
	s.using.Unlock()
	s.preferences.reset()
	return old, nil
}

// fewRecords is how many are folded while appends wait, if no more come than that.
const fewRecords = 64

var errBusy = errors.New("another rebuild or check is under way, or the store is being closed")

// folder folds into rows that nobody reads yet. It gives way to those who use the
// store.
type folder struct {
	*Store
	into  *rows
	turn  disk.Turn
	hurry bool // somebody waits

	// When the store was used last, and how one knows.
	last    ulid.ULID
	queries uint64
	used    time.Time
}

func (s *Store) newFolder(into *rows) *folder {
	return &folder{Store: s, into: into, last: s.log.Last(), queries: s.queries.Load()}
}

// aStep is how many records are folded at once, which takes about a millisecond.
const aStep = 32

func (f *folder) Position() ulid.ULID { return f.into.position }

func (f *folder) Apply(records []log.Record) error {
	for step := range slices.Chunk(records, aStep) {
		if f.closing.Load() {
			return errBusy
		}
		if !f.hurry {
			f.giveWay()
		}
		if _, err := f.fold(f.into, step); err != nil {
			return err
		}
	}
	return nil
}

// giveWay waits for its turn, for long while others use the store.
func (f *folder) giveWay() {
	if last, queries := f.log.Last(), f.Store.queries.Load(); last != f.last || queries != f.queries {
		f.last, f.queries, f.used = last, queries, time.Now()
	}
	gently := time.Since(f.used) < time.Second
	f.into.fs.Gentle(gently)
	if gently {
		f.turn.TakeGently()
	} else {
		f.turn.Take()
	}
}

// upTo folds no record after last.
type upTo struct {
	*folder
	last ulid.ULID
}

var errEnough = errors.New("enough")

func (u *upTo) Apply(records []log.Record) error {
	for i, r := range records {
		if r.ID.Compare(u.last) > 0 {
			return errors.Join(u.folder.Apply(records[:i]), errEnough)
		}
	}
	return u.folder.Apply(records)
}

// CheckReport is what Check found.
type CheckReport struct {
	Records     int      // folded from the log
	Rows        int      // compared
	Differences int      // rows that are wrong, missing or too many
	Problems    []string // the first hundred differences, in words

	// Tampered is how many of the differences are between the log and the audit
	// tree that was made of it: its audit records were changed since.
	Tampered int
}

const maxProblems = 100

// Check folds the log aside and compares every row with what that gives. It
// needs as much disk space as the rows have, and gives it back. Queries and
// appends go on meanwhile. It ends early when ctx does. progress, if not nil, is
// told how many records were folded.
func (s *Store) Check(ctx context.Context, progress func(records int)) (report CheckReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("check projections %s: %w", s.dir, err)
		}
	}()
	if !s.maintaining.TryLock() {
		return report, errBusy
	}
	defer s.maintaining.Unlock()
	var live *pebble.Snapshot
	var failed error
	events, err := s.log.Snapshot(func() {
		s.applying.Lock()
		defer s.applying.Unlock()
		failed = s.rows.writeTail()
		live = s.rows.db.NewSnapshot()
	})
	if err != nil {
		return report, err
	}
	defer events.Close()
	defer live.Close()
	if failed != nil {
		return report, failed
	}

	fresh, err := s.createRows(filepath.Join(s.dir, "check"))
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, s.drop(fresh)) }()
	folder := s.newFolder(fresh)
	defer folder.turn.End()
	batch := make([]log.Record, 0, 1024)
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		report.Records += len(batch)
		err := folder.Apply(batch)
		batch = batch[:0]
		if progress != nil {
			progress(report.Records)
		}
		return err
	}
	for r, err := range events.Scan(ulid.ULID{}) {
		if err != nil {
			return report, err
		}
		if batch = append(batch, r); len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return report, err
			}
		}
	}
	if err := flush(); err != nil {
		return report, err
	}
	if strays := s.log.Strays(); len(strays) > 0 {
		report.Tampered += len(strays)
		for _, id := range strays {
			report.differ("record %s: it lies behind the end of the log, and the log did not write it", id)
		}
	}
	if err := fresh.writeTail(); err != nil {
		return report, err
	}
	return report, compare(ctx, &report, live, fresh.db)
}

func (r *CheckReport) differ(format string, args ...any) {
	if r.Differences++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// compare counts the rows in which the two differ; meta rows apart, which don't
// follow from the log alone.
func compare(ctx context.Context, report *CheckReport, live, want pebble.Reader) error {
	o := &pebble.IterOptions{LowerBound: []byte{kindBucket}}
	l, err := live.NewIter(o)
	if err != nil {
		return err
	}
	defer l.Close()
	w, err := want.NewIter(o)
	if err != nil {
		return err
	}
	defer w.Close()
	differ := func(what string, key []byte) {
		if key[0] == kindTree || key[0] == kindLeaf {
			report.Tampered++
		}
		report.differ("%s: %s", describe(key), what)
	}
	l.First()
	w.First()
	for l.Valid() || w.Valid() {
		if report.Rows++; report.Rows%(1<<14) == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		order := 0
		switch {
		case !l.Valid():
			order = 1
		case !w.Valid():
			order = -1
		default:
			order = bytes.Compare(l.Key(), w.Key())
		}
		switch {
		case order < 0:
			differ("the log knows of no such row", l.Key())
			l.Next()
		case order > 0:
			differ("the row is missing", w.Key())
			w.Next()
		default:
			if !bytes.Equal(l.Value(), w.Value()) {
				differ("the row does not say what the log says", l.Key())
			}
			l.Next()
			w.Next()
		}
	}
	return errors.Join(l.Error(), w.Error())
}

// describe names a row by its key, for people; it shows no content.
func describe(key []byte) string {
	owned := func(rest []byte) string {
		parts := bytes.SplitN(rest, []byte{0}, 2)
		return string(parts[0])
	}
	switch {
	case key[0] == kindBucket && len(key) > 8:
		what := "messages from"
		switch key[7] {
		case partConversation:
			what = "conversation from"
		case partFloor:
			return "floor of " + owned(key[8:])
		}
		return fmt.Sprintf("%s %s of %s", what, rowID(key), owned(key[8:]))
	case key[0] == kindPreferences:
		return "preferences of " + string(key[1:])
	case key[0] == kindPrefChange:
		return fmt.Sprintf("preference change %s of %s", eventID(key), owned(key[1:]))
	case key[0] == kindPolicy:
		return fmt.Sprintf("policy change %s of %s", eventID(key), owned(key[1:]))
	case key[0] == kindAccount:
		return "account of host " + owned(key[1:])
	case key[0] == kindRoster:
		return "roster item of " + owned(key[1:])
	case key[0] == kindLeaf && len(key) == 9:
		return fmt.Sprintf("audit record %d", binary.BigEndian.Uint64(key[1:]))
	case key[0] == kindTree && len(key) == 9:
		level, n := tlog.SplitStoredHashIndex(int64(binary.BigEndian.Uint64(key[1:])))
		if level == 0 {
			return fmt.Sprintf("hash of audit record %d", n)
		}
		return fmt.Sprintf("hash of audit records %d to %d", n<<level, (n+1)<<level-1)
	}
	switch key[0] {
	case kindDeleted, kindErased:
		return "erasure of " + string(key[1:])
	case kindRetention:
		return "retention of " + string(key[1:])
	}
	return fmt.Sprintf("row %x", key)
}
