package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"
)

// A wall clock that is set a year ahead by mistake must not make archives expire.
// So retention goes by a time of its own: the wall clock's, unless that runs ahead of
// the time that has passed by more than Options.MaxJump. Then the retention time goes
// on as time passes, and is held: until the wall clock is right again, or somebody
// says that it is. Where it was is written down (keyTime), so that a restart takes
// nothing for granted; the time that a server was stopped looks like a jump, too.
type retentionTime struct {
	mu   sync.Mutex
	at   time.Time     // the retention time when
	when time.Duration // the clock's elapsed time was this
	held bool
	kept time.Time // as it is written down
}

// keepTimeEvery is how often the retention time is written down, with what is
// appended.
const keepTimeEvery = time.Minute

// RetentionTime is what the age of records is counted to; never before what it was.
// While held is true the wall clock is too far ahead, and nothing should be deleted
// for its age.
func (l *Log) RetentionTime() (t time.Time, held bool) {
	if l.maxJump == 0 {
		return l.clock.Now(), false
	}
	wall, elapsed := l.clock.read()
	r := &l.retention
	r.mu.Lock()
	due := r.at.Add(max(elapsed-r.when, 0))
	was := r.held
	r.when = elapsed
	if r.held = wall.Sub(due) > l.maxJump; r.held {
		r.at = due
	} else if wall.After(r.at) {
		r.at = wall
	}
	t, held = r.at, r.held
	r.mu.Unlock()
	switch {
	case held && !was:
		l.logger.Error("THE CLOCK IS AHEAD of the time that has passed: nothing expires until it is right, or 'mamlog clock --accept' says that it is",
			zap.Time("clock", wall), zap.Time("retention_time", t), zap.Duration("max_clock_jump", l.maxJump))
	case was && !held:
		l.logger.Warn("the clock is right again: messages expire again", zap.Time("clock", wall))
	}
	return t, held
}

// AcceptTime takes the wall clock for right, durably, wherever it is. That actor did
// so is on record before.
func (l *Log) AcceptTime(ctx context.Context, actor string) error {
	before, _ := l.RetentionTime()
	wall, _ := l.clock.read()
	_, err := l.AppendWait(ctx, Entry{Class: Audit, Event: &Event{Kind: &Event_Clock{Clock: &ClockAccepted{
		Actor: actor, ClockUnixMs: wall.UnixMilli(), RetentionUnixMs: before.UnixMilli(),
	}}}})
	if err != nil {
		return fmt.Errorf("log: record that the clock is accepted: %w", err)
	}
	wall, elapsed := l.clock.read()
	r := &l.retention
	r.mu.Lock()
	r.at, r.when, r.held = wall, elapsed, false
	r.mu.Unlock()
	l.logger.Warn("the clock was accepted: messages expire by it", zap.Time("clock", wall))
	return l.keepTime(pebble.Sync)
}

// timeToKeep is the value of keyTime if it is time to write it down.
func (l *Log) timeToKeep() []byte {
	if l.maxJump == 0 {
		return nil
	}
	t, _ := l.RetentionTime()
	r := &l.retention
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Sub(r.kept).Abs() < keepTimeEvery {
		return nil
	}
	r.kept = t
	return timeValue(t)
}

func timeValue(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixMilli(), 0)))
}

// keepTime writes the retention time down.
func (l *Log) keepTime(o *pebble.WriteOptions) error {
	if l.maxJump == 0 {
		return nil
	}
	t, _ := l.RetentionTime()
	if err := l.db.Set(keyTime, timeValue(t), o); err != nil {
		return fmt.Errorf("log: write down the time: %w", err)
	}
	return nil
}

// loadTime goes on from the time that was written down, or else from that of the
// newest record. A new log believes the wall clock.
func (l *Log) loadTime() error {
	r := &l.retention
	r.at, r.when = l.clock.read()
	switch b, err := l.get(keyTime); {
	case errors.Is(err, pebble.ErrNotFound):
		if last := l.Last(); last.Time() > 0 {
			r.at = IDTime(last)
		}
	case err != nil:
		return err
	case len(b) != 8:
		return fmt.Errorf("the time that it was used last has %d bytes instead of 8: the store is damaged", len(b))
	default:
		r.at = time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC()
		r.kept = r.at
	}
	return nil
}
