package xep0313

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"
)

// chores are what is to be done behind the scenes: whose archives may have
// outgrown what is kept of them, and whether somebody is to be erased.
type chores struct {
	mu     sync.Mutex
	owners map[string]struct{}
	wake   chan struct{} // holds one if there are owners
	erase  chan struct{} // holds one if there is somebody
}

func newChores() chores {
	return chores{owners: make(map[string]struct{}), wake: make(chan struct{}, 1), erase: make(chan struct{}, 1)}
}

// outgrown notes that owner's archive is to be looked at.
func (c *chores) outgrown(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners[owner] = struct{}{}
	poke(c.wake)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (c *chores) take() map[string]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	owners := c.owners
	c.owners = make(map[string]struct{})
	return owners
}

// choresEvery is how long archives that have grown wait at most to be looked at, so
// that it is not done for each message.
const choresEvery = time.Second

// EraseDeleted lets RunExpiry erase whose account was deleted, which it otherwise
// does at the next clean-up.
func (a *Archive) EraseDeleted() { poke(a.chores.erase) }

// runChores enforces quotas and erases, until ctx ends.
func (a *Archive) runChores(ctx context.Context) {
	a.eraseDeleted(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.chores.erase:
			a.eraseDeleted(ctx)
			continue
		case <-a.chores.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(choresEvery):
		}
		a.Enforce(ctx)
	}
}

// Enforce cuts the archives that have grown of late to what is kept of them.
func (a *Archive) Enforce(ctx context.Context) {
	for owner := range a.chores.take() {
		j, err := jid.Parse(owner)
		if err != nil {
			continue // none of ours was written so
		}
		h := a.hosts[j.Domainpart()]
		// What was noted was queued, and may not be in the rows yet.
		if err = h.Log.Settle(ctx); err == nil {
			err = a.enforce(ctx, h, owner, "")
		}
		if err != nil {
			a.failed(ctx, h, "a quota could not be enforced, which is tried again when the archive grows", err)
		}
	}
}

// failed logs what went wrong, unless everything ends.
func (a *Archive) failed(ctx context.Context, h *host, what string, err error) {
	if ctx.Err() == nil {
		a.logger.Error(what, zap.String("host", h.Name), zap.Error(err))
	}
}
