package c2s

import (
	"crypto/rand"
	"slices"

	"go.uber.org/zap"

	"mamlog/log"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

const nsRoster = "jabber:iq:roster"

// maxRosterText is the most bytes of a contact's name and of a group's.
const maxRosterText = 1023

// rosterIQ answers a roster get or set of the own account (RFC 6121 section 2).
// Like presence it is done by the reader, behind what is in flight.
func (x *session) rosterIQ(iq, query *stanza.Element) {
	x.flights.settle()
	var err error
	if iq.Attr("type") == "get" {
		err = x.rosterGet(iq)
	} else {
		err = x.rosterSet(iq, query)
	}
	if err == nil {
		return
	}
	se, ok := err.(*stanza.Error)
	if !ok {
		x.s.logger.Error("c2s: roster", zap.Error(err))
		se = xep0313.Refusal(err)
	}
	x.answer(iq.ReplyError(se))
}

func (x *session) rosterGet(iq *stanza.Element) error {
	// Interest first: a change meanwhile is then pushed, and not missed.
	x.s.users.mu.Lock()
	x.interested = true
	x.s.users.mu.Unlock()
	items, err := x.s.c.Projections.Roster(x.bare)
	if err != nil {
		return err
	}
	q := stanza.New(nsRoster, "query")
	for _, i := range items {
		if shown(i) {
			q.Add(rosterElement(i))
		}
	}
	x.answer(iq.Reply("result").Add(q))
	return nil
}

func rosterElement(i *log.RosterItem) *stanza.Element {
	names := map[log.Subscription]string{
		log.Subscription_SUBSCRIPTION_TO:   "to",
		log.Subscription_SUBSCRIPTION_FROM: "from",
		log.Subscription_SUBSCRIPTION_BOTH: "both",
	}
	e := stanza.New(nsRoster, "item", "jid", i.GetContact(), "subscription", "none")
	if n := names[i.GetSubscription()]; n != "" {
		e.SetAttr("subscription", n)
	}
	e.SetAttr("name", i.GetName())
	if i.GetAsk() {
		e.SetAttr("ask", "subscribe")
	}
	for _, g := range i.GetGroups() {
		e.Add(stanza.New(nsRoster, "group").AddText(g))
	}
	return e
}

// pushLocked tells owner's interested resources of a changed item (RFC 6121
// section 2.1.6); a nil or unlisted one was removed. registry.mu is held.
func (s *Server) pushLocked(owner, contact string, i *log.RosterItem) {
	item := stanza.New(nsRoster, "item", "jid", contact, "subscription", "remove")
	if shown(i) {
		item = rosterElement(i)
	}
	push := stanza.New(stanza.NSClient, "iq", "type", "set", "id", "push-"+rand.Text()[:12])
	push.Add(stanza.New(nsRoster, "query").Add(item))
	s.users.toEachLocked(owner, (*session).isInterested, push)
}

// rosterSet adds, changes or removes one contact (RFC 6121 sections 2.3 to 2.5).
func (x *session) rosterSet(iq, query *stanza.Element) error {
	contact, item, err := x.rosterItem(query)
	if err != nil {
		return err
	}
	s := x.s
	s.c.Accounts.mu.Lock()
	defer s.c.Accounts.mu.Unlock()
	p, err := s.pair(x.bare, contact.bare)
	if err != nil {
		return err
	}
	var told []string // what the contact hears, as if it had been sent
	if item != nil {
		p.mine.Listed, p.mine.Name, p.mine.Groups = true, item.Name, item.Groups
		p.theirs = clone(p.before[1], x.bare)
	} else {
		if !shown(p.before[0]) {
			return stanza.ItemNotFound("%s is not in the roster", contact.bare)
		}
		if subscribedTo(p.mine) || p.mine.Ask {
			told = append(told, "unsubscribe")
		}
		if subscribedFrom(p.mine) {
			told = append(told, "unsubscribed")
		}
		p.mine = &log.RosterItem{Contact: contact.bare, PendingIn: p.mine.PendingIn}
		p.theirs.PendingIn, p.theirs.Ask = false, p.theirs.Ask && p.mine.PendingIn
		set(p.theirs, false, false)
	}
	if p.before[1] == nil {
		p.theirs = nil
	}
	if err := s.record(x, p); err != nil {
		return err
	}
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	x.answer(iq.Reply("result"))
	for _, typ := range told {
		x.forwardLocked(stanza.New(stanza.NSClient, "presence", "type", typ, "from", x.bare), typ, contact.bare)
	}
	if !looksDifferent(p.before[0], p.mine) {
		s.pushLocked(x.bare, contact.bare, p.mine) // clients wait for it all the same
	}
	s.announceLocked(p)
	return nil
}

// rosterItem reads the one item of a set; a nil item is to be removed.
func (x *session) rosterItem(query *stanza.Element) (contact *address, i *log.RosterItem, err error) {
	items := query.Elements()
	if len(items) != 1 || !items[0].Is(nsRoster, "item") {
		return nil, nil, stanza.BadRequest("a roster set has exactly one item")
	}
	e := items[0]
	a := x.address(e.Attr("jid"))
	switch {
	case a == nil:
		return nil, nil, stanza.JIDMalformed("%q is not an address", e.Attr("jid"))
	case a.resource != "":
		return nil, nil, stanza.BadRequest("a contact is a bare JID, without /%s", a.resource)
	case a.bare == x.bare:
		return nil, nil, stanza.NotAllowed("your own address can't be your contact")
	}
	if e.Attr("subscription") == "remove" {
		return a, nil, nil
	}
	i = &log.RosterItem{Contact: a.bare, Name: e.Attr("name")}
	notAcceptable := func(text string) error {
		return &stanza.Error{Type: "modify", Condition: "not-acceptable", Text: text}
	}
	if len(i.Name) > maxRosterText {
		return nil, nil, notAcceptable("the name is longer than 1023 bytes")
	}
	for _, g := range e.Elements() {
		name := g.Text()
		switch {
		case !g.Is(nsRoster, "group"):
			continue
		case name == "":
			return nil, nil, notAcceptable("a group has a name")
		case len(name) > maxRosterText:
			return nil, nil, notAcceptable("the name of a group is longer than 1023 bytes")
		case slices.Contains(i.Groups, name):
			return nil, nil, stanza.BadRequest("the group %q is named twice", name)
		}
		i.Groups = append(i.Groups, name)
	}
	return a, i, nil
}
