package c2s

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Both sides of every subscription are local, so each change is decided with
// both rosters in view and recorded in one append: they can't disagree.

// pair is what two users' rosters say of each other.
type pair struct {
	own, other   string // bare JIDs
	mine, theirs *log.RosterItem
	before       [2]*log.RosterItem
}

func (s *Server) pair(own, other string) (p pair, err error) {
	p = pair{own: own, other: other}
	if p.before[0], err = s.c.Projections.RosterItem(own, other); err != nil {
		return p, err
	}
	if p.before[1], err = s.c.Projections.RosterItem(other, own); err != nil {
		return p, err
	}
	p.mine, p.theirs = clone(p.before[0], other), clone(p.before[1], own)
	return p, nil
}

func clone(i *log.RosterItem, contact string) *log.RosterItem {
	if i == nil {
		return &log.RosterItem{Contact: contact}
	}
	return proto.Clone(i).(*log.RosterItem)
}

// set adds or takes one half of a subscription.
func set(i *log.RosterItem, to, from bool) {
	switch {
	case to && from:
		i.Subscription = log.Subscription_SUBSCRIPTION_BOTH
	case to:
		i.Subscription = log.Subscription_SUBSCRIPTION_TO
	case from:
		i.Subscription = log.Subscription_SUBSCRIPTION_FROM
	default:
		i.Subscription = log.Subscription_SUBSCRIPTION_NONE
	}
}

// rosterChange is the event that makes owner's roster say item of contact. An
// item that says nothing is removed.
func rosterChange(owner, contact string, item *log.RosterItem) log.Entry {
	if !item.GetListed() && !item.GetPendingIn() {
		item = nil
	}
	return log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Roster{
		Roster: &log.RosterChanged{Owner: owner, Contact: contact, Item: item},
	}}}
}

// record appends what changed, and is done when it is in force. Accounts.mu is
// held.
func (s *Server) record(x *session, p pair) error {
	var entries []log.Entry
	for i, side := range []struct {
		owner, contact string
		item           *log.RosterItem
	}{{p.own, p.other, p.mine}, {p.other, p.own, p.theirs}} {
		item := side.item
		if !item.GetListed() && !item.GetPendingIn() {
			item = nil // nothing is left to be known
		}
		if p.before[i] == nil && item == nil || p.before[i] != nil && item != nil && proto.Equal(p.before[i], item) {
			continue
		}
		entries = append(entries, rosterChange(side.owner, side.contact, item))
	}
	if len(entries) == 0 {
		return nil
	}
	// Only x's own roster lists more or fewer contacts than before, so only its
	// messages are judged differently from here on.
	err := s.c.Archive.Changing(p.own, func() error {
		// A session that ends meanwhile must not end the wait: the change is made.
		_, err := s.c.Log.AppendWait(context.WithoutCancel(x.ctx), entries...)
		return err
	})
	if err != nil {
		return fmt.Errorf("record a roster change: %w", err)
	}
	return nil
}

// subscription handles the four types of RFC 6121 section 3 from x. Both sides
// are local accounts or, for to, none.
func (x *session) subscription(e *stanza.Element, typ string, to *address) {
	s := x.s
	s.c.Accounts.mu.Lock()
	defer s.c.Accounts.mu.Unlock()
	p, err := s.pair(x.bare, to.bare)
	exists := false
	if err == nil {
		exists, err = s.c.Accounts.Exists(to.jid)
	}
	if err == nil {
		err = x.subscribed(e, typ, p, exists)
	}
	if err != nil {
		if !errors.Is(err, x.ctx.Err()) {
			s.logger.Error("c2s: change a subscription", zap.Error(err))
		}
		x.answer(e.ReplyError(stanza.InternalServerError()))
	}
}

func (x *session) subscribed(e *stanza.Element, typ string, p pair, exists bool) error {
	s := x.s
	forward, reply := true, ""
	mineTo, mineFrom := subscribedTo(p.mine), subscribedFrom(p.mine)
	theirsTo, theirsFrom := subscribedTo(p.theirs), subscribedFrom(p.theirs)
	switch typ {
	case "subscribe": // 3.1.2, 3.1.3
		p.mine.Listed = true
		switch {
		case !exists:
			// Nobody will ever answer, and that is all the sender learns.
			p.mine.Ask, p.theirs, forward = !mineTo, nil, false
		case theirsFrom:
			set(p.mine, true, mineFrom)
			p.mine.Ask, forward, reply = false, false, "subscribed"
		default:
			p.mine.Ask, p.theirs.PendingIn = true, true
		}
	case "subscribed": // 3.1.5, 3.1.6
		if !p.mine.PendingIn {
			return nil
		}
		p.mine.PendingIn, p.mine.Listed = false, true
		set(p.mine, mineTo, true)
		p.theirs.Ask = false
		set(p.theirs, true, theirsFrom)
	case "unsubscribe": // 3.3
		forward = theirsFrom || p.theirs.PendingIn
		p.mine.Ask, p.theirs.PendingIn = false, false
		set(p.mine, false, mineFrom)
		set(p.theirs, theirsTo, false)
	case "unsubscribed": // 3.1.5, 3.2
		forward = mineFrom || p.mine.PendingIn
		p.mine.PendingIn, p.theirs.Ask = false, false
		set(p.mine, mineTo, false)
		set(p.theirs, false, theirsFrom)
	}
	if !exists && p.theirs != nil {
		p.theirs = nil
		forward = false
	}
	if err := s.record(x, p); err != nil {
		return err
	}
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	if forward {
		x.forwardLocked(e, typ, p.other)
	}
	s.announceLocked(p)
	if reply != "" {
		s.users.toEachLocked(p.own, (*session).isInterested,
			stanza.New(stanza.NSClient, "presence", "type", reply, "from", p.other))
	}
	return nil
}

// forwardLocked delivers a subscription stanza under the bare JID of its sender:
// a request to whoever is there to answer, the rest to who knows the roster.
func (x *session) forwardLocked(e *stanza.Element, typ, to string) {
	c := e.Copy()
	c.SetAttr("from", x.bare)
	which := (*session).isInterested
	if typ == "subscribe" {
		which = (*session).isAvailable
	}
	for _, o := range x.s.users.byBare[to] {
		if which(o) {
			c.SetAttr("to", to)
			o.out.put(c.Bytes())
		}
	}
}

// announceLocked pushes the items that changed to their owners, and presence to
// who sees it now, or its end to who did. registry.mu is held.
func (s *Server) announceLocked(p pair) {
	sides := []struct {
		owner, contact string
		before, after  *log.RosterItem
	}{{p.own, p.other, p.before[0], p.mine}, {p.other, p.own, p.before[1], p.theirs}}
	for _, side := range sides {
		if looksDifferent(side.before, side.after) {
			s.pushLocked(side.owner, side.contact, side.after)
		}
	}
	for _, side := range sides {
		switch had, has := subscribedFrom(side.before), subscribedFrom(side.after); {
		case has && !had:
			for _, o := range s.users.byBare[side.owner] {
				if o.presence != nil {
					s.users.toEachLocked(side.contact, (*session).isAvailable, o.presence)
				}
			}
		case had && !has:
			for _, o := range s.users.byBare[side.owner] {
				if o.presence != nil {
					s.users.toEachLocked(side.contact, (*session).isAvailable,
						stanza.New(stanza.NSClient, "presence", "type", "unavailable", "from", o.full))
				}
			}
		}
	}
}

func shown(i *log.RosterItem) bool { return i.GetListed() }

// looksDifferent tells whether the owner of an item sees a difference: a request
// that waits for them is not part of their roster.
func looksDifferent(before, after *log.RosterItem) bool {
	if !shown(before) || !shown(after) {
		return shown(before) != shown(after)
	}
	return !bytes.Equal(rosterElement(before).Bytes(), rosterElement(after).Bytes())
}
