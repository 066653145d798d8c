package xep0313

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// RunExpiry deletes expired messages of each host at once and then at the host's
// archive_cleanup_interval, until ctx ends.
func (a *Archive) RunExpiry(ctx context.Context) {
	var wg sync.WaitGroup
	for _, h := range a.hosts {
		if h.Options.ExpiresAfter == 0 || h.Options.CleanupInterval == 0 {
			continue
		}
		wg.Go(func() {
			t := time.NewTicker(h.Options.CleanupInterval)
			defer t.Stop()
			for {
				if err := a.expire(ctx, h); err != nil && !errors.Is(err, context.Canceled) {
					a.logger.Error("expiry failed and is tried again at the next interval",
						zap.String("host", h.Name), zap.Duration("interval", h.Options.CleanupInterval), zap.Error(err))
				}
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

// expire deletes what the host's messages that are older than its retention
// leave on disk, up to the last whole time bucket, and gives the space back. To
// queries they do not exist already.
func (a *Archive) expire(ctx context.Context, h *host) error {
	cut := h.Archives.ExpiryCut(h.class, h.Log.Clock().Now().Add(-h.Options.ExpiresAfter))
	deleted, err := h.Log.Expire(ctx, h.class, cut)
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
