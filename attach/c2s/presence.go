package c2s

import (
	"strconv"
	"strings"

	"go.uber.org/zap"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// maxDirected is to how many addresses a session's directed presence is
// remembered. Those beyond it are not told when the session goes.
const maxDirected = 1000

// handlePresence takes a presence stanza from the client. It is handled by the
// reader itself, behind everything that is in flight: what the client sends next
// must find it done.
func (x *session) handlePresence(e *stanza.Element) {
	x.flights.settle()
	typ, text := e.Attr("type"), e.Attr("to")
	if text == "" {
		switch typ {
		case "":
			x.available(e)
		case "unavailable":
			x.unavailable(e, false)
		case "error", "probe":
		default:
			x.answer(e.ReplyError(stanza.BadRequest("a presence of type %q needs an address", typ)))
		}
		return
	}
	to := x.address(text)
	switch {
	case typ == "error":
		x.direct(e, typ, to)
	case to == nil:
		x.answer(e.ReplyError(stanza.JIDMalformed("%q is not an address", text)))
	case !to.local:
		x.answer(e.ReplyError(remoteServerNotFound(to)))
	case typ == "" || typ == "unavailable":
		x.direct(e, typ, to)
	case typ == "subscribe" || typ == "subscribed" || typ == "unsubscribe" || typ == "unsubscribed":
		if to.user && to.bare != x.bare {
			x.subscription(e, typ, to)
		}
	case typ == "probe": // a client has no business to probe; it is told nothing
	default:
		x.answer(e.ReplyError(stanza.BadRequest("%q is not a type of presence", typ)))
	}
}

// priorityOf is RFC 6121 section 4.7.2.3.
func priorityOf(e *stanza.Element) (int, error) {
	t := strings.TrimSpace(e.ChildText(stanza.NSClient, "priority"))
	if t == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(t, 10, 8)
	return int(n), err
}

// available broadcasts presence (RFC 6121 sections 4.2 and 4.4). The first one
// also brings the presence of the contacts, and the requests for subscription
// that came while nobody was there.
func (x *session) available(e *stanza.Element) {
	priority, err := priorityOf(e)
	if err != nil {
		x.answer(e.ReplyError(stanza.BadRequest("a priority is a number from -128 to 127")))
		return
	}
	users := &x.s.users
	users.mu.Lock()
	defer users.mu.Unlock()
	// Under the lock: a change of the roster is announced under it too, to those
	// who are available by then.
	roster, err := x.s.c.Projections.Roster(x.bare)
	if err != nil {
		x.s.logger.Error("c2s: broadcast presence", zap.Error(err))
		x.answer(e.ReplyError(stanza.InternalServerError()))
		return
	}
	first := x.presence == nil
	x.presence, x.priority = e, priority
	x.broadcastLocked(e, roster)
	if !first {
		return
	}
	for _, o := range users.byBare[x.bare] {
		if o != x && o.presence != nil {
			x.show(o)
		}
	}
	for _, i := range roster {
		if subscribedTo(i) {
			for _, o := range users.byBare[i.GetContact()] {
				if o.presence != nil {
					x.show(o)
				}
			}
		}
		if i.GetPendingIn() {
			x.answer(stanza.New(stanza.NSClient, "presence", "type", "subscribe", "from", i.GetContact(), "to", x.bare))
		}
	}
}

// show tells x of o's presence. registry.mu is held.
func (x *session) show(o *session) {
	p := *o.presence
	p.Attrs = append([]stanza.Attr(nil), p.Attrs...)
	p.SetAttr("to", x.full)
	x.answer(&p)
}

// broadcastLocked sends e to those who may see x's presence: contacts with a
// subscription and the own resources, x among them. registry.mu is held.
func (x *session) broadcastLocked(e *stanza.Element, roster []*log.RosterItem) {
	users := &x.s.users
	for _, i := range roster {
		if subscribedFrom(i) {
			users.toEachLocked(i.GetContact(), (*session).isAvailable, e)
		}
	}
	users.toEachLocked(x.bare, (*session).isAvailable, e)
}

// unavailable ends x's presence (RFC 6121 section 4.5). leaving takes it out of
// the registry too.
func (x *session) unavailable(e *stanza.Element, leaving bool) {
	users := &x.s.users
	users.mu.Lock()
	defer users.mu.Unlock()
	roster, err := x.s.c.Projections.Roster(x.bare)
	if err != nil {
		x.s.logger.Error("c2s: end presence", zap.Error(err))
	}
	was := x.presence != nil
	if was {
		x.broadcastLocked(e, roster)
	}
	told := make(map[string]bool)
	for _, i := range roster {
		told[i.GetContact()] = was && subscribedFrom(i)
	}
	for _, to := range x.directed {
		if !told[to.bare] && (to.bare != x.bare || !was) {
			users.directLocked(e, to)
		}
	}
	x.presence, x.directed = nil, nil
	if leaving {
		users.removeLocked(x)
	}
}

// gone takes x out of the registry and tells others that it left.
func (x *session) gone() {
	x.unavailable(stanza.New(stanza.NSClient, "presence", "type", "unavailable", "from", x.full), true)
	close(x.left)
}

// direct sends presence to one address (RFC 6121 section 4.6), and remembers to
// whom, to tell them when the client goes.
func (x *session) direct(e *stanza.Element, typ string, to *address) {
	if to == nil || !to.local || !to.user {
		return
	}
	users := &x.s.users
	users.mu.Lock()
	defer users.mu.Unlock()
	switch typ {
	case "":
		if x.directed == nil {
			x.directed = make(map[string]*address)
		}
		if len(x.directed) < maxDirected {
			x.directed[to.text] = to
		}
	case "unavailable":
		delete(x.directed, to.text)
	}
	users.directLocked(e, to)
}

// directLocked delivers presence to a full JID, or to all available resources of
// a bare one (RFC 6121 sections 8.5.2.1.2 and 8.5.3). mu is held.
func (r *registry) directLocked(e *stanza.Element, to *address) {
	if to.resource == "" {
		r.toEachLocked(to.bare, (*session).isAvailable, e)
		return
	}
	if o := r.byBare[to.bare][to.resource]; o != nil {
		c := e.Copy()
		c.SetAttr("to", o.full)
		o.out.put(c.Bytes())
	}
}

func subscribedTo(i *log.RosterItem) bool {
	s := i.GetSubscription()
	return s == log.Subscription_SUBSCRIPTION_TO || s == log.Subscription_SUBSCRIPTION_BOTH
}

func subscribedFrom(i *log.RosterItem) bool {
	s := i.GetSubscription()
	return s == log.Subscription_SUBSCRIPTION_FROM || s == log.Subscription_SUBSCRIPTION_BOTH
}
