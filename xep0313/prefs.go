package xep0313

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Verdict is what preferences say about messages with one peer.
type Verdict struct {
	Keep      bool   // archived
	Entry     string // which is the entry of a list that says so; "": the default does
	IfContact bool   // archived if the peer is a contact of the owner's; Keep is not set
}

// Judge tells what p says about messages between owner, a bare JID, and peer, as text
// (XEP-0441 section 2.5). The most telling entry decides: one with the resource
// before one without, and where both lists have it, never.
func Judge(p *log.Preferences, owner, peer string) Verdict {
	bare := bareOf(peer)
	for _, j := range [...]string{peer, bare} {
		if _, ok := slices.BinarySearch(p.GetNever(), j); ok {
			return Verdict{Entry: j}
		}
		if _, ok := slices.BinarySearch(p.GetAlways(), j); ok {
			return Verdict{Keep: true, Entry: j}
		}
	}
	switch p.GetDefault() {
	case log.Default_DEFAULT_ALWAYS:
		return Verdict{Keep: true}
	case log.Default_DEFAULT_ROSTER:
		// One's own account counts as a contact: notes to oneself are kept.
		return Verdict{Keep: bare == owner, IfContact: bare != owner}
	}
	return Verdict{}
}

// allows tells whether messages with the peer are archived.
func allows(p *log.Preferences, s *side) (bool, error) {
	v := Judge(p, s.owner, s.peer)
	switch {
	case !v.IfContact:
		return v.Keep, nil
	case s.contacts == nil:
		return s.Contact, nil
	}
	return s.contacts.HasContact(s.owner, bareOf(s.peer))
}

// Preferences returns what is in force for owner and the event that decided it:
// their own preferences, or with own false those that the server's policy gives.
func (a *Archive) Preferences(owner jid.JID) (p *log.Preferences, decidedBy ulid.ULID, own bool, err error) {
	h, err := a.hostOf(owner)
	if err != nil {
		return nil, ulid.ULID{}, false, err
	}
	p, decidedBy, err = a.projections.Preferences(owner.Bare().String())
	if err != nil || p != nil {
		return p, decidedBy, p != nil, err
	}
	return h.policy, h.policyID, false, nil
}

// SetPreferences records owner's preferences, with their JIDs prepared, sorted
// and each listed once, and returns them. On return they govern every message
// recorded from then on. A bad default or JID is a *stanza.Error, and nothing is
// changed. actor is the full JID of the client, or who ran the command.
func (a *Archive) SetPreferences(ctx context.Context, owner jid.JID, p *log.Preferences, actor string, cause log.Cause) (*log.Preferences, error) {
	if _, err := a.hostOf(owner); err != nil {
		return nil, err
	}
	after := &log.Preferences{Default: p.GetDefault()}
	if d := after.Default; d < log.Default_DEFAULT_ALWAYS || d > log.Default_DEFAULT_ROSTER {
		return nil, stanza.BadRequest("the default must be always, never or roster")
	}
	if n := len(p.GetAlways()) + len(p.GetNever()); n > a.limits.PreferenceJIDs {
		return nil, stanza.PolicyViolation("the lists have %d JIDs; %d are allowed", n, a.limits.PreferenceJIDs)
	}
	var err error
	if after.Always, err = prepareJIDs(p.GetAlways()); err != nil {
		return nil, err
	}
	if after.Never, err = prepareJIDs(p.GetNever()); err != nil {
		return nil, err
	}
	bare := owner.Bare().String()
	err = a.Changing(bare, func() error {
		before, _, err := a.projections.Preferences(bare)
		if err != nil || proto.Equal(before, after) {
			return err
		}
		return a.change(ctx, &log.PreferencesChanged{Owner: bare, Before: before, After: after, Actor: actor, Cause: cause})
	})
	return after, err
}

// change appends a preference change and waits until it is in force. The
// owner's stripe is held.
func (a *Archive) change(ctx context.Context, p *log.PreferencesChanged) error {
	// An asker who goes away must not let messages in before the change is in
	// force.
	_, err := a.log.AppendWait(context.WithoutCancel(ctx), log.Entry{
		Class: log.Audit, Event: &log.Event{Kind: &log.Event_Preferences{Preferences: p}},
	})
	if err == nil {
		a.metrics.preferenceChanges.Inc()
	}
	return err
}

func prepareJIDs(in []string) ([]string, error) {
	var out []string
	for _, s := range in {
		j, err := jid.Parse(s)
		if err != nil {
			return nil, stanza.JIDMalformed("%q is not a JID", s)
		}
		out = append(out, j.String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// noteUse turns archiving on for the owner at the first use of the archive under
// mam_smart_enable, with the host's default.
func (a *Archive) noteUse(ctx context.Context, r *request) error {
	if !r.host.Options.SmartEnable || r.room {
		return nil
	}
	owner := r.owner
	if p, _, err := a.projections.Preferences(owner); err != nil || p != nil {
		return err
	}
	return a.Changing(owner, func() error {
		if p, _, err := a.projections.Preferences(owner); err != nil || p != nil {
			return err
		}
		return a.change(ctx, &log.PreferencesChanged{
			Owner: owner, After: r.host.policy, Actor: r.asker.String(), Cause: log.Cause_CAUSE_SMART_ENABLE,
		})
	})
}

var defaultNames = map[log.Default]string{
	log.Default_DEFAULT_ALWAYS: "always",
	log.Default_DEFAULT_NEVER:  "never",
	log.Default_DEFAULT_ROSTER: "roster",
}

// prefsElement is <prefs/> as XEP-0441 section 2.1 shows it.
func prefsElement(p *log.Preferences) *stanza.Element {
	list := func(name string, jids []string) *stanza.Element {
		l := stanza.New(NS, name)
		for _, j := range jids {
			l.Add(stanza.New(NS, "jid").AddText(j))
		}
		return l
	}
	return stanza.New(NS, "prefs", "default", defaultNames[p.GetDefault()]).
		Add(list("always", p.GetAlways()), list("never", p.GetNever()))
}

// parsePrefs reads what a client wants to set.
func parsePrefs(e *stanza.Element) (*log.Preferences, error) {
	p := new(log.Preferences)
	name := e.Attr("default")
	for d, n := range defaultNames {
		if n == name {
			p.Default = d
		}
	}
	if p.Default == 0 {
		return nil, stanza.BadRequest("the default is %q; it must be always, never or roster", name)
	}
	for _, c := range e.Elements() {
		var list *[]string
		switch {
		case c.Is(NS, "always"):
			list = &p.Always
		case c.Is(NS, "never"):
			list = &p.Never
		default:
			return nil, stanza.BadRequest("<%s/> is not allowed in <prefs/>", c.Local)
		}
		for _, j := range c.Elements() {
			if !j.Is(NS, "jid") {
				return nil, stanza.BadRequest("<%s/> is not allowed in a list of <jid/>", j.Local)
			}
			*list = append(*list, trim(j.Text()))
		}
	}
	return p, nil
}
