package xep0313

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// retention is what is kept of one archive.
type retention struct {
	expiresAfter time.Duration // 0: for ever
	quota        projections.Usage
}

// keeps is what is kept of owner's archive: what an operator has set for them, else
// what the host's options say. Nobody's messages are kept for longer than the
// host's, because these leave the disk all at once.
func (a *Archive) keeps(h *host, owner string) (retention, error) {
	keep := retention{h.Options.ExpiresAfter, projections.Usage{Messages: h.Options.QuotaItems, Bytes: h.Options.QuotaBytes}}
	own, err := a.projections.Retention(owner)
	if err != nil || own == nil {
		return keep, err
	}
	if s := own.ExpiresAfterSeconds; s != nil {
		if d := time.Duration(*s) * time.Second; keep.expiresAfter == 0 || d < keep.expiresAfter {
			keep.expiresAfter = d
		}
	}
	if own.QuotaItems != nil {
		keep.quota.Messages = *own.QuotaItems
	}
	if own.QuotaBytes != nil {
		keep.quota.Bytes = *own.QuotaBytes
	}
	return keep, nil
}

// Retention returns what is kept of owner's archive, every field set (an expiry of
// 0 means never), and what of it was set for them alone, nil for nothing.
func (a *Archive) Retention(owner jid.JID) (inForce, own *log.Retention, err error) {
	h, bare, err := a.ownerOf(owner)
	if err != nil {
		return nil, nil, err
	}
	keep, err := a.keeps(h, bare)
	if err != nil {
		return nil, nil, err
	}
	own, err = a.projections.Retention(bare)
	return &log.Retention{
		ExpiresAfterSeconds: proto.Int64(int64(keep.expiresAfter / time.Second)),
		QuotaItems:          proto.Uint64(keep.quota.Messages), QuotaBytes: proto.Uint64(keep.quota.Bytes),
	}, own, err
}

// SetRetention records what is to be kept of owner's archive, in the place of what
// the host's options say; a field that is absent is the host's. What it no longer
// allows is invisible on return, a quota apart, and deleted soon. An expiry that is
// not positive or longer than the host's is a *stanza.Error. actor is who did it.
func (a *Archive) SetRetention(ctx context.Context, owner jid.JID, after *log.Retention, actor string) error {
	h, bare, err := a.ownerOf(owner)
	if err != nil {
		return err
	}
	if s := after.ExpiresAfterSeconds; s != nil {
		d := time.Duration(*s) * time.Second
		switch longest := h.Options.ExpiresAfter; {
		case d <= 0:
			return stanza.BadRequest("messages expire after at least a second")
		case longest > 0 && d > longest:
			return stanza.BadRequest("the messages of %s expire after %s, and nobody's are kept for longer", h.Name, longest)
		}
	}
	err = a.Changing(bare, func() error {
		before, err := a.projections.Retention(bare)
		if err != nil || proto.Equal(before, after) {
			return err
		}
		_, err = a.log.AppendWait(context.WithoutCancel(ctx), log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Retention{
			Retention: &log.RetentionChanged{Owner: bare, Before: before, After: after, Actor: actor},
		}}})
		return err
	})
	if err == nil {
		a.chores.outgrown(bare)
	}
	return err
}
