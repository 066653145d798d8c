package xep0313

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"mamlog/projections"
)

// RunExpiry deletes what is not to be kept of each host's messages, at once and
// then at the host's archive_cleanup_interval, until ctx ends. Beside that it
// enforces quotas as archives grow, and erases deleted accounts.
func (a *Archive) RunExpiry(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { a.runChores(ctx) })
	for _, h := range a.hosts {
		if h.Options.CleanupInterval == 0 {
			continue
		}
		wg.Go(func() {
			t := time.NewTicker(h.Options.CleanupInterval)
			defer t.Stop()
			for {
				if err := a.cleanUp(ctx, h, ""); err != nil && !errors.Is(err, context.Canceled) {
					a.logger.Error("expiry failed and is tried again at the next interval",
						zap.String("host", h.Name), zap.Duration("interval", h.Options.CleanupInterval), zap.Error(err))
				}
				a.EraseDeleted() // what failed before
				select {
				case <-ctx.Done():
					return
				case <-t.C:
				}
			}
		})
	}
	wg.Wait()
}

// cleanUp is one run for one host, which actor asked for, if somebody did.
func (a *Archive) cleanUp(ctx context.Context, h *host, actor string) error {
	if _, held := h.Log.RetentionTime(); held {
		a.metrics.expiryRuns.WithLabelValues("held").Inc()
		a.logger.Error("nothing expires, since the clock is too far ahead", zap.String("host", h.Name))
		return a.scrub(ctx, h)
	}
	if err := a.expire(ctx, h, actor); err != nil {
		return err
	}
	for owner, err := range h.Archives.Owners(h.class) {
		if err == nil {
			err = a.enforceIfOwn(ctx, h, owner, actor)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return a.scrub(ctx, h)
}

// enforceIfOwn is enforce for archives that something else than the host's expiry
// holds for.
func (a *Archive) enforceIfOwn(ctx context.Context, h *host, owner, actor string) error {
	keep, err := a.keeps(h, owner)
	if err != nil || keep == (retention{expiresAfter: h.Options.ExpiresAfter}) {
		return err
	}
	return a.enforce(ctx, h, owner, actor)
}

// expire deletes what the host's messages that are older than its retention
// leave on disk, up to the last whole time bucket, and gives the space back. To
// queries they do not exist already.
func (a *Archive) expire(ctx context.Context, h *host, actor string) error {
	if h.Options.ExpiresAfter == 0 {
		return nil
	}
	now, _ := h.Log.RetentionTime()
	cut := h.Archives.ExpiryCut(h.class, now.Add(-h.Options.ExpiresAfter))
	deleted, err := h.Log.Expire(ctx, h.class, cut, actor)
	switch {
	case err != nil:
		a.metrics.expiryRuns.WithLabelValues("failed").Inc()
		return err
	case !deleted:
		a.metrics.expiryRuns.WithLabelValues("nothing").Inc()
		return nil
	}
	a.metrics.expiryRuns.WithLabelValues("deleted").Inc()
	a.logger.Info("deleted expired messages", zap.String("host", h.Name), zap.Time("before", cut))
	return errors.Join(h.Log.Compact(ctx, h.class, cut), h.Archives.Compact(ctx, h.class, cut))
}

// Expiring is what one run would delete, or has deleted, of one host's messages.
type Expiring struct {
	Host     string
	Archives uint64            // that something goes of
	Expired  projections.Usage // older than the host's retention: whole time buckets
	Own      projections.Usage // older than a user's own
	Quota    projections.Usage // more than a quota allows
}

// ErrTimeHeld says that nothing expires for now; see log.Log.RetentionTime.
var ErrTimeHeld = errors.New("nothing expires, since the clock is ahead of the time that has passed; 'mamlog clock' tells more")

// Expire runs expiry, own retentions and quotas once for each host, or with "" for
// all; dry, it deletes nothing. It says what goes, for which it looks into every
// archive. actor is who asked for it.
func (a *Archive) Expire(ctx context.Context, host, actor string, dry bool) (runs []Expiring, err error) {
	for name, h := range a.hosts {
		if host != "" && name != host {
			continue
		}
		if _, held := h.Log.RetentionTime(); held {
			return nil, ErrTimeHeld
		}
		e, err := a.expiring(ctx, h)
		if err == nil && !dry {
			err = a.cleanUp(ctx, h, actor)
		}
		if err != nil {
			return nil, fmt.Errorf("expire the messages of %s: %w", name, err)
		}
		runs = append(runs, e)
	}
	return runs, nil
}

func (a *Archive) expiring(ctx context.Context, h *host) (e Expiring, err error) {
	e.Host = h.Name
	cut := time.Time{}
	if keep := h.Options.ExpiresAfter; keep > 0 {
		now, _ := h.Log.RetentionTime()
		cut = h.Archives.ExpiryCut(h.class, now.Add(-keep))
	}
	for owner, err := range h.Archives.Owners(h.class) {
		if err != nil {
			return e, err
		}
		if ctx.Err() != nil {
			return e, ctx.Err()
		}
		before := e
		if err := a.expiringOf(h, owner, cut, &e); err != nil {
			return e, err
		}
		if e != before {
			e.Archives++
		}
	}
	return e, nil
}

// expiringOf adds what goes of one archive to e.
func (a *Archive) expiringOf(h *host, owner string, cut time.Time, e *Expiring) error {
	keep, err := a.keeps(h, owner)
	if err != nil {
		return err
	}
	q, err := a.all(h, owner)
	if err != nil {
		return err
	}
	visible, err := h.Archives.Usage(q)
	if err != nil {
		return err
	}
	// All that there is, and what of it the host's run leaves.
	whole, err := h.Archives.Usage(projections.Query{Class: h.class, Owner: owner})
	if err != nil {
		return err
	}
	left, err := h.Archives.Usage(projections.Query{Class: h.class, Owner: owner, NotBefore: cut})
	if err != nil {
		return err
	}
	e.Expired = plus(e.Expired, minus(whole, left))
	if keep.expiresAfter > 0 && keep.expiresAfter != h.Options.ExpiresAfter {
		// What a deletion has hidden is gone otherwise.
		shown, err := h.Archives.Usage(projections.Query{Class: h.class, Owner: owner, NotBefore: cut, Floor: q.Floor})
		if err != nil {
			return err
		}
		e.Own = plus(e.Own, minus(shown, visible))
	}
	if fits(visible, keep.quota) {
		return nil
	}
	up, ok, err := h.Archives.Surplus(q, less(keep.quota))
	if err != nil || !ok {
		return err
	}
	q.Floor = up
	rest, err := h.Archives.Usage(q)
	e.Quota = plus(e.Quota, minus(visible, rest))
	return err
}

func plus(a, b projections.Usage) projections.Usage {
	return projections.Usage{Messages: a.Messages + b.Messages, Bytes: a.Bytes + b.Bytes}
}

func minus(a, b projections.Usage) projections.Usage {
	return projections.Usage{Messages: a.Messages - b.Messages, Bytes: a.Bytes - b.Bytes}
}

// grew notes that a message went into the archive of s, if a quota holds for it.
func (a *Archive) grew(s *side) {
	keep, err := a.keeps(s.host, s.owner)
	if err != nil || keep.quota != (projections.Usage{}) {
		a.chores.outgrown(s.owner)
	}
}
