package xep0313

import (
	"context"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
	"mamlog/projections"
)

// cutBatch is how many messages one commit takes away.
const cutBatch = 4096

// cut takes the messages up to up off owner's archive, oldest first, and records
// it. On return queries don't see them any more.
func (a *Archive) cut(ctx context.Context, h *host, owner string, up ulid.ULID, cause log.CutCause, actor string) (gone projections.Usage, err error) {
	all := &log.Cut{Owner: owner, Cause: cause, Actor: actor}
	for more := true; more && err == nil && ctx.Err() == nil; {
		err = a.Changing(owner, func() error {
			if err := h.Log.Settle(ctx); err != nil { // what is on its way
				return err
			}
			one := &log.Cut{Owner: owner, Cause: cause, Actor: actor}
			more, err = h.Archives.Cut(ctx, h.class, up, cutBatch, one)
			if err == nil && one.Messages > 0 {
				all.UpTo, all.Messages, all.Bytes = one.UpTo, all.Messages+one.Messages, all.Bytes+one.Bytes
			}
			return err
		})
	}
	if all.Messages == 0 {
		return gone, err
	}
	a.metrics.cut.WithLabelValues(strings.ToLower(strings.TrimPrefix(cause.String(), "CUT_CAUSE_"))).Add(float64(all.Messages))
	// Also of what was cut before an error it is to be known.
	_, auditErr := a.log.AppendWait(context.WithoutCancel(ctx), log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Cut{Cut: all}}})
	if err == nil && auditErr != nil {
		err = fmt.Errorf("record what was cut off the archive of %s: %w", owner, auditErr)
	}
	return projections.Usage{Messages: all.Messages, Bytes: all.Bytes}, err
}

// enforce cuts owner's archive to what is kept of it: at once what is older than a
// retention of their own, and with a quota that is exceeded a sixteenth more than
// must go, so that it need not be done again for every message.
func (a *Archive) enforce(ctx context.Context, h *host, owner, actor string) error {
	keep, err := a.keeps(h, owner)
	if err != nil {
		return err
	}
	q, err := a.all(h, owner)
	if err != nil {
		return err
	}
	if keep.expiresAfter > 0 && keep.expiresAfter != h.Options.ExpiresAfter {
		var up ulid.ULID
		if up = log.FirstAt(q.NotBefore); up != (ulid.ULID{}) {
			if _, err := a.cut(ctx, h, owner, before(up), log.CutCause_CUT_CAUSE_RETENTION, actor); err != nil {
				return err
			}
		}
	}
	used, err := h.Archives.Usage(q)
	if err != nil || fits(used, keep.quota) {
		return err
	}
	up, ok, err := h.Archives.Surplus(q, less(keep.quota))
	if err != nil || !ok {
		return err
	}
	_, err = a.cut(ctx, h, owner, up, log.CutCause_CUT_CAUSE_QUOTA, actor)
	return err
}

func fits(used, quota projections.Usage) bool {
	return (quota.Messages == 0 || used.Messages <= quota.Messages) && (quota.Bytes == 0 || used.Bytes <= quota.Bytes)
}

func less(quota projections.Usage) projections.Usage {
	return projections.Usage{Messages: quota.Messages - quota.Messages/16, Bytes: quota.Bytes - quota.Bytes/16}
}

// before is the id before id.
func before(id ulid.ULID) ulid.ULID {
	for n := len(id) - 1; n >= 0; n-- {
		if id[n]--; id[n] != 0xff {
			break
		}
	}
	return id
}
