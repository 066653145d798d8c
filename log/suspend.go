package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"mamlog/disk"
)

// ErrSuspended is wrapped by the errors of appends while the disk takes no writes.
// Append succeeds again when it does.
var ErrSuspended = errors.New("nothing is archived now, since the disk takes no writes; try again later")

// DiskOptions say how a store bears a disk that takes no writes.
type DiskOptions struct {
	Reserve uint64        // bytes; with less free space appends are refused
	Retry   time.Duration // until a failed write is tried again; 0: a second
}

// Disk is what the file system under an engine is made with: of the log, or of a
// follower, which can't take what is appended while its own disk takes no writes.
// who names it in log lines.
func (l *Log) Disk(who string, o DiskOptions) disk.Options {
	return disk.Options{Reserve: o.Reserve, Retry: o.Retry, Report: func(err error) { l.Suspend(who, err) }}
}

// Suspend makes appends fail with an error that wraps ErrSuspended and err, until
// it is called with the same who and nil. Those that are under way are answered
// with it too: whether they become durable and visible later is unknown. Readers,
// and appends with no entries, go on.
func (l *Log) Suspend(who string, err error) {
	l.mu.Lock()
	before := len(l.refuses)
	if err == nil {
		delete(l.refuses, who)
	} else {
		l.refuses[who] = err
		l.releaseSoon()
		l.room.Broadcast()
	}
	after := len(l.refuses)
	l.mu.Unlock()
	switch {
	case err != nil:
		l.logger.Error("THE DISK TAKES NO WRITES: nothing is archived until it does; queries are answered",
			zap.String("of", who), zap.Bool("full", disk.IsFull(err)), zap.Error(err))
	case before > 0 && after == 0:
		l.logger.Warn("the disk takes writes again: messages are archived again")
	}
}

// suspension is the error of appends. l.mu is held.
func (l *Log) suspension() error {
	for _, err := range l.refuses {
		return fmt.Errorf("%w: %w", ErrSuspended, err)
	}
	if l.doubt != nil {
		// What is decided now could be ordered after what it doesn't know of.
		return fmt.Errorf("%w: what was under way is not settled yet", ErrSuspended)
	}
	return nil
}

// Settle returns when everything that was appended before is durable and applied, or
// never will be. While what was under way when the log was suspended may still
// come, it returns an error that wraps ErrSuspended; an append with no entries does
// not tell.
func (l *Log) Settle(ctx context.Context) error {
	if _, err := l.AppendWait(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.doubt != nil {
		return l.suspension()
	}
	return nil
}

// releaseSoon lets deliver answer those who wait. l.mu is held.
func (l *Log) releaseSoon() {
	select {
	case l.suspended <- struct{}{}:
	default:
	}
}

// release answers those who wait, in order, while the log is suspended. What has
// not been given to the engine is dropped; what has been stays on its way, and is
// applied if it becomes durable after all. Deliver calls it.
func (l *Log) release() {
	l.mu.Lock()
	err := l.suspension()
	if err == nil {
		l.mu.Unlock()
		return
	}
	var waiters []waiter
	for _, g := range l.flying {
		waiters = append(waiters, g.waiters...)
		g.waiters = nil
		l.doubt = g
	}
	behind := l.applied.Load().Compare(*l.durable.Load()) < 0
	open := l.open
	waiters = append(waiters, open.waiters...)
	open.waiters = nil
	if !open.batch.Empty() {
		for _, k := range open.once {
			delete(l.pending, k)
		}
		l.taking -= open.takes
		l.open = l.newGroup()
	} else {
		open = nil
	}
	l.mu.Unlock()
	if open != nil {
		l.queued.Add(-int64(open.bytes))
		_ = open.batch.Close()
	}
	for _, w := range waiters {
		if len(w.ids) == 0 && !behind {
			w.done(nil, nil) // it only waited for those before it
			continue
		}
		l.stats.refused.Add(1)
		w.done(nil, err)
	}
}

// landed takes g off those that are under way, and returns who waits for it.
// l.mu is held.
func (l *Log) landed(g *group) []waiter {
	if i := slices.Index(l.flying, g); i >= 0 {
		l.flying = slices.Delete(l.flying, i, i+1)
	}
	if g == l.doubt {
		l.doubt = nil
	}
	return g.waiters
}
