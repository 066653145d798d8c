package c2s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
)

var (
	// ErrExists: there is an account of that name.
	ErrExists = errors.New("the account exists already")
	// ErrNoAccount: there is no account of that name.
	ErrNoAccount = errors.New("there is no such account")
)

// Accounts are the users of the embedded host. It needs no running Server, so
// that accounts can be managed beside one and on a stopped store.
type Accounts struct {
	Log         *log.Log
	Projections *projections.Store // of Log
	Hosts       []string           // the domains that may have accounts

	mu sync.Mutex // one change of accounts or rosters at a time: read, decide, append
}

// Add makes an account. The password is kept as SCRAM keys only. It is durable
// and usable on return. It fails with ErrExists if there is one already, and in
// clear words for a host that isn't served, a JID that doesn't name an account,
// or a password that no client could send.
func (a *Accounts) Add(ctx context.Context, j jid.JID, password, actor string) error {
	return a.change(ctx, j, actor, password, false, func(exists bool) error {
		if exists {
			return fmt.Errorf("%s: %w", j, ErrExists)
		}
		return nil
	})
}

// SetPassword replaces the password of an account; ErrNoAccount without one.
// Sessions that are open stay so (see Server.Kick).
func (a *Accounts) SetPassword(ctx context.Context, j jid.JID, password, actor string) error {
	return a.change(ctx, j, actor, password, false, func(exists bool) error {
		if !exists {
			return fmt.Errorf("%s: %w", j, ErrNoAccount)
		}
		return nil
	})
}

// Delete deletes an account with its roster; ErrNoAccount without one. Contacts
// keep it in their rosters, without subscriptions: who makes an account of the
// same name later must not see their presence. Sessions stay open: see
// Server.Kick.
func (a *Accounts) Delete(ctx context.Context, j jid.JID, actor string) error {
	return a.change(ctx, j, actor, "", true, func(exists bool) error {
		if !exists {
			return fmt.Errorf("%s: %w", j, ErrNoAccount)
		}
		return nil
	})
}

func (a *Accounts) change(ctx context.Context, j jid.JID, actor, password string, remove bool, allowed func(exists bool) error) error {
	if err := a.check(j); err != nil {
		return err
	}
	var keys *log.Credentials // none: deleted
	if !remove {
		var err error
		if keys, err = deriveCredentials(password); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	exists, err := a.Exists(j)
	if err != nil {
		return err
	}
	if err := allowed(exists); err != nil {
		return err
	}
	entries := []log.Entry{{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Account{
		Account: &log.AccountChanged{Owner: j.String(), Credentials: keys, Actor: actor},
	}}}}
	deleted, err := a.Projections.DeletedAt(j.String())
	if err != nil {
		return err
	}
	if !remove && !exists && deleted != (ulid.ULID{}) {
		// Sessions of the deleted account may have gone on for a moment: what they
		// left behind ends here, and not where it was deleted.
		entries = append([]log.Entry{{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Account{
			Account: &log.AccountChanged{Owner: j.String(), Actor: actor},
		}}}}, entries...)
	}
	if remove {
		// What is personal in these is erased with the account, as all that is before its end.
		ends, err := a.endSubscriptions(j.String())
		if err != nil {
			return err
		}
		// Nor must their preferences govern another's messages.
		before, _, err := a.Projections.Preferences(j.String())
		if err != nil {
			return err
		}
		if before != nil {
			ends = append(ends, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Preferences{
				Preferences: &log.PreferencesChanged{
					Owner: j.String(), Before: before, Actor: actor, Cause: log.Cause_CAUSE_ACCOUNT_DELETED,
				},
			}}})
		}
		entries = append(ends, entries...)
	}
	// The next change must see this one, also if whoever asked for it leaves.
	if _, err = a.Log.AppendWait(context.WithoutCancel(ctx), entries...); err != nil {
		return fmt.Errorf("record the account %s: %w", j, err)
	}
	return nil
}

// EndSubscriptions ends those of an account whose roster goes, which gone sees to:
// until that returns nobody can change a roster. Contacts keep the account in theirs.
func (a *Accounts) EndSubscriptions(ctx context.Context, j jid.JID, gone func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ends, err := a.endSubscriptions(j.String())
	if err != nil {
		return err
	}
	if _, err := a.Log.AppendWait(context.WithoutCancel(ctx), ends...); err != nil {
		return fmt.Errorf("end the subscriptions of %s: %w", j, err)
	}
	return gone()
}

// endSubscriptions are the changes of other people's rosters that go with the
// end of owner's. Both sides of a subscription know of it, so owner's roster
// names everybody.
func (a *Accounts) endSubscriptions(owner string) (changes []log.Entry, err error) {
	items, err := a.Projections.Roster(owner)
	if err != nil {
		return nil, fmt.Errorf("end the subscriptions of %s: %w", owner, err)
	}
	for _, i := range items {
		theirs, err := a.Projections.RosterItem(i.GetContact(), owner)
		if err != nil {
			return nil, fmt.Errorf("end the subscriptions of %s: %w", owner, err)
		}
		if theirs == nil {
			continue
		}
		theirs.Subscription, theirs.Ask, theirs.PendingIn = log.Subscription_SUBSCRIPTION_NONE, false, false
		changes = append(changes, rosterChange(i.GetContact(), owner, theirs))
	}
	return changes, nil
}

func (a *Accounts) check(j jid.JID) error {
	if j.Localpart() == "" {
		return fmt.Errorf("%q names no user: an account is user@host, with one of the hosts %s", j, strings.Join(a.Hosts, ", "))
	}
	if !slices.ContainsFunc(a.Hosts, func(h string) bool { return sameDomain(h, j.Domainpart()) }) {
		return fmt.Errorf("the host of %s is not served here: the hosts are %s", j, strings.Join(a.Hosts, ", "))
	}
	if r := j.Resourcepart(); r != "" {
		return fmt.Errorf("%s names a device: an account is user@host, without /%s", j, r)
	}
	return nil
}

func sameDomain(configured, prepared string) bool {
	j, err := jid.New("", configured, "")
	return err == nil && j.Domainpart() == prepared
}

// Exists tells whether j's bare JID has an account.
func (a *Accounts) Exists(j jid.JID) (bool, error) {
	c, err := a.Projections.Account(j.Bare().String())
	if err != nil {
		return false, fmt.Errorf("look up the account %s: %w", j.Bare(), err)
	}
	return c != nil, nil
}
