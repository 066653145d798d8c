package log

import (
	"context"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"mamlog/disk"
)

// EngineLogger passes the storage engine's words on to l. The engine calls Fatalf
// where it can't go on without risking data: the process then ends without
// acknowledging anything more. Failed writes of a store that is open don't get
// there; see the package disk.
func EngineLogger(l *zap.Logger) pebble.Logger { return engineLogger{l.Sugar()} }

type engineLogger struct{ *zap.SugaredLogger }

// Infof: what the engine finds worth telling is for debugging.
func (e engineLogger) Infof(format string, args ...any) { e.Debugf(format, args...) }

// EngineListener tells l what goes wrong in the engine. A damaged table is no
// reason to end the process, which is what the engine does by itself: reading it
// fails, and everything else can still be read.
func EngineListener(l *zap.Logger) *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			l.Error("A FILE OF THE STORE IS DAMAGED: run 'mamlog check'", zap.String("file", i.Path), zap.String("error", i.Details.Error()))
		},
		BackgroundError: func(err error) {
			l.Warn("the storage engine tries again what failed", zap.String("error", inWords(err)))
		},
	}
}

// CompactRange makes the engine's files forget what was deleted or overwritten from one
// key to another, the other not among them. No key may be from without its last byte,
// or to with a zero behind it.
func CompactRange(ctx context.Context, db *pebble.DB, from, to []byte) error {
	// The engine looks only at the start how deep there are tables, and a compaction that
	// is under way then can put some deeper. It finds those the second time.
	//
	// It merges nothing that lies deepest already, where a compaction may have kept what
	// somebody still read then. Two deletions of nothing, one at each end, make a table
	// that has to be merged with all between them.
	from, to = from[:max(1, len(from)-1)], append(to[:len(to):len(to)], 0)
	for range 2 {
		for _, key := range [][]byte{from, to} {
			if err := db.Delete(key, pebble.NoSync); err != nil {
				return err
			}
		}
		if err := db.Compact(ctx, from, to, false); err != nil {
			return err
		}
	}
	return nil
}

// Deleted waits until the engine of the store in dir has deleted the files that it
// needs no more, and nothing of them is left: it does so behind the back of who
// compacts, and after the last reader of them.
func Deleted(ctx context.Context, db *pebble.DB, fsys vfs.FS, dir string) error {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		names, err := fsys.List(dir)
		if err != nil {
			return err
		}
		left := int64(0)
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				left++
			}
		}
		m := db.Metrics()
		if left -= m.WAL.Files; left <= 0 && m.Table.ZombieCount+m.Table.ObsoleteCount == 0 {
			return disk.Reclaimed(ctx)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// DamagedError says which file it was that a read failed of.
type DamagedError struct {
	File string
	err  error
}

func (e *DamagedError) Error() string { return inWords(e.err) }
func (e *DamagedError) Unwrap() error { return e.err }

// Damaged returns what err says of a damaged file, nil if it says nothing of one.
func Damaged(err error) *DamagedError {
	i := pebble.ExtractDataCorruptionInfo(err)
	if i == nil {
		return nil
	}
	return &DamagedError{i.Path, err}
}

// inWords is what the engine says without its internals.
func inWords(err error) string {
	return strings.ReplaceAll(err.Error(), "\n<corruption detail carrier>", "")
}
