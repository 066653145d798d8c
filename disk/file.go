package disk

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// flush is how many bytes of a table are gathered until the system begins to write
// them out: what it has to write at once when the table is synced holds up the others
// who sync. The engine asks for it too, but never for the last megabyte.
const flush = 128 << 10

// keep is how much memory a writer keeps for what comes next.
const keep = 1 << 20

// writer is a file that is written from its beginning on. One goroutine writes
// and syncs at a time.
type writer struct {
	vfs.File
	fs   *FS
	fate fate

	// Of files whose writes don't wait.
	turn    Turn
	written int64
	flushed int64 // of it, what the system was asked to write out

	// Of files whose writes wait: what was written since the last sync, and where
	// it begins. After a failed sync the system may have dropped it from memory
	// without having written it, and say nothing when it is asked again.
	unsynced []byte
	from     int64
	doubtful bool // unsynced must be written once more
}

// Write implements vfs.File.
func (w *writer) Write(p []byte) (int, error) {
	if w.fate != waits {
		if w.fs.gentle.Load() {
			w.turn.TakeGently()
		} else {
			w.turn.Take()
		}
		n := 0
		err := w.fs.do(w.fate, func() (err error) {
			n, err = w.File.Write(p)
			if w.written += int64(n); err == nil && w.written-w.flushed >= flush {
				w.flushed = w.written
				_, err = w.File.SyncTo(w.written)
			}
			return err
		})
		return n, err
	}
	left := p
	err := w.fs.insist(func() error {
		n, err := w.File.Write(left)
		left = left[n:]
		return err
	})
	written := len(p) - len(left)
	w.unsynced = append(w.unsynced, p[:written]...)
	return written, err
}

// Sync implements vfs.File.
func (w *writer) Sync() error { return w.sync(w.File.Sync) }

// SyncData implements vfs.File.
func (w *writer) SyncData() error { return w.sync(w.File.SyncData) }

func (w *writer) sync(sync func() error) error {
	if w.fate != waits {
		return w.fs.do(w.fate, sync)
	}
	space.synced.Store(time.Now().UnixNano())
	err := w.fs.insist(func() error {
		if w.doubtful {
			if _, err := w.File.WriteAt(w.unsynced, w.from); err != nil {
				return err
			}
		}
		err := sync()
		w.doubtful = err != nil
		return err
	})
	if err == nil {
		w.from += int64(len(w.unsynced))
		if w.unsynced = w.unsynced[:0]; cap(w.unsynced) > keep {
			w.unsynced = nil
		}
	}
	return err
}

// SyncTo implements vfs.File. It promises nothing, so its failure is only a
// reason to doubt.
func (w *writer) SyncTo(length int64) (bool, error) {
	full, err := w.File.SyncTo(length)
	if w.fate != waits {
		return full, err
	}
	if err != nil {
		w.doubtful = true
	}
	return false, nil
}

// Close implements vfs.File. To close a file that was synced can't lose anything.
func (w *writer) Close() error {
	w.turn.End()
	err := w.File.Close()
	if w.fate == waits && len(w.unsynced) == 0 {
		return nil
	}
	return err
}
