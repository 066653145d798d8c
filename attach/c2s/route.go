package c2s

import (
	"errors"
	"slices"

	"go.uber.org/zap"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// outgoing is a message between its arrival and its delivery.
type outgoing struct {
	x       *session // the sender
	e       *stanza.Element
	to      *address
	typ     string
	carbons bool          // other resources of both sides get copies
	refused *stanza.Error // it can't be delivered, and why
}

// message takes a message from the client (RFC 6121 section 8.5). One that can't
// be delivered is recorded for its sender all the same, and so is the error that
// tells them; one without a readable address is only refused.
func (x *session) message(e *stanza.Element) {
	m := &outgoing{x: x, e: e, typ: messageType(e)}
	// Without an address it is for the own account (RFC 6120 section 10.3.1).
	text := e.Attr("to")
	if text == "" {
		text = x.bare
	}
	if m.to = x.address(text); m.to == nil {
		if m.typ != "error" {
			x.refused(e, stanza.JIDMalformed("%q is not an address", text))
		}
		return
	}
	if e.Attr("to") != m.to.text {
		e.SetAttr("to", m.to.text)
	}
	var drop bool
	if m.refused, drop = m.refusal(); drop || m.refused != nil && m.typ == "error" {
		return // an error is never answered
	}
	m.carbons = eligible(e, m.typ)
	flight := x.flights.add(true, m.land)
	err := x.s.c.Archive.Record(xep0313.Message{
		Stanza: e, From: x.jid, To: m.to.jid, FromLocal: true, ToLocal: m.refused == nil, Sent: m.sent,
	}, flight.arrive)
	if err != nil {
		if !errors.As(err, new(*stanza.Error)) {
			x.s.logger.Error("c2s: record a message", zap.Error(err))
		}
		flight.arrive(xep0313.Delivery{Err: err})
	}
}

// messageType is the type attribute; an unknown one means normal (RFC 6121
// section 5.2.2).
func messageType(e *stanza.Element) string {
	switch t := e.Attr("type"); t {
	case "chat", "error", "groupchat", "headline":
		return t
	}
	return "normal"
}

// refusal tells whether m can't be for anybody here; drop, that it ends here
// without a word. It is called by the reader.
func (m *outgoing) refusal() (e *stanza.Error, drop bool) {
	s := m.x.s
	switch {
	case !m.to.local:
		return remoteServerNotFound(m.to), false
	case !m.to.user:
		return stanza.ServiceUnavailable("the server itself takes no messages"), false
	case !s.users.online(m.to.bare):
		ok, err := s.c.Accounts.Exists(m.to.jid)
		if err != nil {
			s.logger.Error("c2s: route a message", zap.Error(err))
			return stanza.InternalServerError(), false
		}
		if !ok {
			return stanza.ServiceUnavailable("there is no such account"), false
		}
	}
	here := m.to.resource != "" && s.users.has(m.to.bare, m.to.resource)
	switch {
	case here:
	case m.typ == "error":
		// Also what comes back for a carbon copy, which carries the account's
		// own address (XEP-0280 section 10.3): nobody is to hear of it.
		return nil, true
	case m.typ == "groupchat":
		return stanza.ServiceUnavailable("the recipient is not a room, and not in one"), false
	case m.typ == "headline" && m.to.resource != "":
		return nil, true
	}
	return nil, false
}

func remoteServerNotFound(to *address) *stanza.Error {
	return &stanza.Error{
		Type: "cancel", Condition: "remote-server-not-found",
		Text: "this server talks to no others, and " + to.jid.Domainpart() + " is not one of its hosts",
	}
}

// land delivers m, which is recorded now. It is called by the log's goroutine,
// in the order of commits.
func (m *outgoing) land(d xep0313.Delivery) (keeps bool) {
	x := m.x
	if d.Err != nil {
		if m.typ != "error" {
			x.answer(m.e.ReplyError(xep0313.Refusal(d.Err)))
		}
		return false
	}
	if m.refused != nil {
		x.jobs <- func() { x.bounce(m, m.refused) }
		return true
	}
	if m.deliver(d) > 0 {
		x.s.metrics.delivered.Inc()
		return false
	}
	x.s.metrics.undelivered.Inc()
	if d.RecipientID != (xep0313.Delivery{}).RecipientID || m.typ != "chat" && m.typ != "normal" ||
		m.e.Child(stanza.NSClient, "body") == nil {
		return false // they find it in their archive, or nobody misses it
	}
	x.jobs <- func() {
		x.bounce(m, stanza.ServiceUnavailable("the recipient is offline and the message was not archived"))
	}
	return true
}

// deliver puts m and its carbon copies into queues, and returns how many of the
// recipient's resources got m itself.
func (m *outgoing) deliver(d xep0313.Delivery) (n int) {
	users := &m.x.s.users
	b := xep0313.WithStanzaID(d.Stanza, m.to.bare, d.RecipientID)
	users.mu.RLock()
	defer users.mu.RUnlock()
	theirs := users.byBare[m.to.bare]
	got := m.recipients(theirs)
	for _, r := range got {
		r.out.put(b)
	}
	if m.carbons && m.to.bare != m.x.bare { // to oneself, those of the sender are enough
		for _, o := range theirs {
			if o.carbons && !slices.Contains(got, o) {
				o.out.put(carbon("received", o, m.typ, b))
			}
		}
	}
	return len(got)
}

// recipients are the resources that m is delivered to: the one that it names;
// if that isn't there, or none is named, those with the highest priority that
// isn't negative, and of a headline all with such a priority. registry.mu is
// held.
func (m *outgoing) recipients(theirs map[string]*session) []*session {
	if m.to.resource != "" {
		if r := theirs[m.to.resource]; r != nil {
			return []*session{r}
		}
		if m.typ != "chat" && m.typ != "normal" {
			return nil
		}
	}
	var to []*session
	for _, r := range theirs {
		switch {
		case r.presence == nil || r.priority < 0:
		case m.typ == "headline" || len(to) == 0 || r.priority == to[0].priority:
			to = append(to, r)
		case r.priority > to[0].priority:
			to = append(to[:0], r)
		}
	}
	return to
}

// refused answers a message that has no readable address.
func (x *session) refused(e *stanza.Element, err *stanza.Error) {
	reply := e.ReplyError(err)
	reply.SetAttr("from", x.bare)
	x.flights.behind(func() bool {
		x.answer(reply)
		return false
	})
}

// bounce returns m to its sender, and into the sender's archive if a message
// there failed (XEP-0313 section 6.1.1). It is called by the reader or the
// worker.
func (x *session) bounce(m *outgoing, err *stanza.Error) {
	reply := m.e.ReplyError(err)
	flight := x.flights.add(false, func(d xep0313.Delivery) bool {
		if d.Err != nil {
			x.answer(reply)
		} else {
			x.out.put(xep0313.WithStanzaID(d.Stanza, x.bare, d.RecipientID))
		}
		return false
	})
	if err := x.s.c.Archive.Record(xep0313.Message{Stanza: reply, From: m.to.jid, To: x.jid, ToLocal: true}, flight.arrive); err != nil {
		if !errors.As(err, new(*stanza.Error)) {
			x.s.logger.Error("c2s: record a bounce", zap.Error(err))
		}
		flight.arrive(xep0313.Delivery{Err: err})
	}
}
