package log

import (
	"fmt"

	"github.com/oklog/ulid/v2"
)

// Backup makes a copy of the log in dir, which must not exist, and returns the
// newest record that is in it for sure: all that was acknowledged before the call
// is, and some of what comes meanwhile may be. The copy is durable on return. Files
// that never change again are hard links where dir is on the same file system, so
// that they take no space until the log has dropped them. Reading and appending go
// on meanwhile.
func (l *Log) Backup(dir string) (ulid.ULID, error) {
	last := l.Last()
	if err := l.fs.Trouble(); err != nil {
		return last, fmt.Errorf("back up the log: the disk takes no writes: %w", err)
	}
	if err := l.db.Checkpoint(dir); err != nil {
		return last, fmt.Errorf("back up the log to %s: %w", dir, err)
	}
	return last, nil
}
