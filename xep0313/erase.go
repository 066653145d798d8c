package xep0313

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
)

// OrderErasure records that nothing of a user's be left but the facts and times of
// what was on record, and that it was erased: the archive with its conversations,
// what stands in their preferences now and ever did, their roster and their own
// retention. An account of theirs stays. On return none of it can be seen any more,
// and Erase does the rest, or the server that runs, or the next that starts. An
// unknown host or a bad address is a *stanza.Error. actor is who ordered it.
func (a *Archive) OrderErasure(ctx context.Context, owner jid.JID, actor string) error {
	_, bare, err := a.ownerOf(owner)
	if err != nil {
		return err
	}
	err = a.Changing(bare, func() error {
		_, err := a.log.AppendWait(context.WithoutCancel(ctx), log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Erase{
			Erase: &log.Erase{Owner: bare, Actor: actor},
		}}})
		a.imports.forget(bare)
		return err
	})
	if err != nil {
		return fmt.Errorf("record that %s is to be erased: %w", bare, err)
	}
	return nil
}

// Erase does what OrderErasure ordered. On return all of it is gone from the
// stores' files too; for that it reads the whole log of the host, and rewrites much
// of it.
func (a *Archive) Erase(ctx context.Context, owner jid.JID, actor string) (*log.Erased, error) {
	h, bare, err := a.ownerOf(owner)
	if err != nil {
		return nil, err
	}
	done, err := a.erase(ctx, h, bare, actor)
	if err != nil {
		return nil, err
	}
	return done, a.scrub(ctx, h)
}

// erase does what the newest order to erase owner, or the end of their account,
// asks for, and records that it was done.
func (a *Archive) erase(ctx context.Context, h *host, owner, actor string) (*log.Erased, error) {
	var owned log.Owned
	if err := h.Log.FindOwned(ctx, h.class, owner, &owned); err != nil {
		return nil, err
	}
	done := &log.Erased{Owner: owner, Actor: actor}
	err := a.Changing(owner, func() error {
		order, err := a.projections.DeletedAt(owner)
		if err != nil {
			return err
		}
		if err := h.Log.Settle(ctx); err != nil { // what is on its way
			return err
		}
		if _, _, newer, err := h.Archives.Bounds(h.class, owner, time.Time{}, order); err != nil {
			return err
		} else if newer {
			// Somebody has the name again: theirs stays, and its numbers.
			for more := true; more; {
				one := &log.Cut{Owner: owner, Actor: actor, Cause: log.CutCause_CUT_CAUSE_ERASE}
				if more, err = h.Archives.Cut(ctx, h.class, order, cutBatch, one); err != nil {
					return err
				}
				done.Messages, done.Bytes = done.Messages+one.Messages, done.Bytes+one.Bytes
			}
		} else {
			if err := h.Log.FindOwned(ctx, h.class, owner, &owned); err != nil {
				return err
			}
			if err := h.Log.Erase(ctx, h.class, owner, actor, &owned); err != nil {
				return err
			}
			done.Messages, done.Bytes = owned.Messages, owned.Bytes
		}
		return a.erasePersonal(ctx, owner, order, done)
	})
	if err != nil {
		return nil, fmt.Errorf("erase %s: %w", owner, err)
	}
	a.metrics.erasures.Inc()
	return done, nil
}

func (a *Archive) erasePersonal(ctx context.Context, owner string, order ulid.ULID, done *log.Erased) error {
	r, ok, err := a.log.Get(log.Audit, order)
	if err == nil && !ok {
		err = fmt.Errorf("the order to erase, %s, is not in the log", order)
	}
	if err != nil {
		return err
	}
	personal, err := a.log.PersonalOf(owner, order, r.Event.GetAccount() != nil)
	if err != nil {
		return err
	}
	done.UpTo, done.PreferenceChanges, done.RosterChanges = order[:], personal.Preferences, personal.Roster
	_, err = a.log.AppendWait(context.WithoutCancel(ctx), log.Entry{
		Class: log.Audit, Event: &log.Event{Kind: &log.Event_Erased{Erased: done}}, Forget: personal,
	})
	return err
}

// scrub makes the files of the host's stores forget what was erased, trimmed or
// retracted, if anything is still to be forgotten.
func (a *Archive) scrub(ctx context.Context, h *host) error {
	err := h.Log.Scrub(ctx, h.class, func(from, to ulid.ULID) error { return h.Archives.Scrub(ctx, h.class, from, to) })
	if err != nil {
		return err
	}
	return a.log.Scrub(ctx, log.Audit, func(_, _ ulid.ULID) error { return a.projections.ScrubPersonal(ctx) })
}

// eraseDeleted erases those whose accounts were deleted, or whose erasure was
// ordered and cut short, of the hosts that are here.
func (a *Archive) eraseDeleted(ctx context.Context) {
	owed := make(map[*host]bool)
	for owner, err := range a.projections.Unerased() {
		if err != nil {
			a.logger.Error("what is to be erased can't be found", zap.Error(err))
			return
		}
		j, err := jid.Parse(owner)
		if err != nil || a.hosts[j.Domainpart()] == nil || ctx.Err() != nil {
			continue
		}
		h := a.hosts[j.Domainpart()]
		if _, err := a.erase(ctx, h, owner, "mamlog"); err != nil {
			a.failed(ctx, h, "a deleted account could not be erased, which is tried again later", err)
			continue
		}
		owed[h] = true
	}
	for h := range owed {
		if err := a.scrub(ctx, h); err != nil {
			a.failed(ctx, h, "files could not be rewritten after an erasure, which is tried again later", err)
		}
	}
}
