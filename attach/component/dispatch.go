package component

import (
	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// NS is the namespace of the attach protocol.
const NS = "urn:mamlog:attach:1"

const (
	nsPing  = "urn:xmpp:ping"
	nsInfo  = "http://jabber.org/protocol/disco#info"
	nsItems = "http://jabber.org/protocol/disco#items"
)

// call is one iq that asks for something.
type call struct {
	s           *stream
	h           *host // who asks, if it is a host of this link; otherwise nil
	iq, payload *stanza.Element
	size        int   // bytes of the iq as it was sent
	turn        *turn // of what is answered in order; otherwise nil
}

// kind is what an iq asks for.
type kind struct{ space, local, typ string }

// request is how a kind of iq is answered.
type request struct {
	name    string                    // for metrics
	do      func(*call) *stanza.Error // returns what to answer with, or sees to the answer
	who     who
	inOrder bool // is answered in the order of those of the host that are
}

type who uint8

const (
	anybody who = iota
	hosts       // those of this link
	greeted     // those that said hello
)

var requests = map[kind]request{
	{NS, "hello", "get"}:                      {"hello", (*call).hello, hosts, false},
	{NS, "batch", "set"}:                      {"batch", (*call).batch, greeted, true},
	{NS, "query", "get"}:                      {"query", (*call).query, greeted, false},
	{NS, "delete", "set"}:                     {"delete", (*call).delete, greeted, true},
	{delegationNS + "1", "delegation", "set"}: {"delegated", (*call).delegated, hosts, false},
	{delegationNS + "2", "delegation", "set"}: {"delegated", (*call).delegated, hosts, false},
	{nsPing, "ping", "get"}:                   {"ping", (*call).ping, anybody, false},
	{nsInfo, "query", "get"}:                  {"disco", (*call).info, anybody, false},
	{nsItems, "query", "get"}:                 {"disco", (*call).items, anybody, false},
}

// handle is the reader's: what to do with one element. An error ends the stream.
func (s *stream) handle(f frame) error {
	e, err := s.parse(f.bytes)
	switch {
	case f.large, err != nil:
		return s.handleFaulty(f, err)
	case e.Is(nsStream, "error"):
		return readStreamError(e)
	case e.Local == "iq" && isStanza(e):
		s.iq(e, len(f.bytes))
	case e.Local == "message" && isStanza(e):
		s.message(e)
	}
	return nil // presence, and what nobody should send, concerns nobody here
}

// handleFaulty answers what is too large or can't be parsed, by how it begins. What
// stands in a message must not end the stream, or whoever can write one could.
func (s *stream) handleFaulty(f frame, fault error) error {
	iq, err := s.parseStart(f.bytes)
	if err != nil {
		return err
	}
	if iq.Local != "iq" || !isStanza(iq) {
		return nil
	}
	c := s.newCall(iq)
	switch {
	case c == nil:
		return nil
	case f.large:
		fault = stanza.PolicyViolation("an iq is at most %d bytes", s.frames.limit)
	default:
		if c.h != nil {
			if e := s.salvage(f.bytes); e != nil {
				s.iq(e, len(f.bytes))
				return nil
			}
		}
		fault = stanza.BadRequest("%v", fault)
	}
	c.settle(func(request) *stanza.Error { return asError(fault) })
	return nil
}

// isStanza tells whether e is in the stream's namespace; some servers write
// jabber:client there.
func isStanza(e *stanza.Element) bool { return e.Space == nsAccept || e.Space == stanza.NSClient }

func readStreamError(e *stanza.Element) error {
	err := &remoteError{condition: "undefined-condition"}
	for _, c := range e.Elements() {
		switch {
		case c.Space == nsStreams && c.Local == "text":
			err.text = c.Text()
		case c.Space == nsStreams:
			err.condition = c.Local
		}
	}
	return err
}

// newCall returns nil for an iq that asks for nothing.
func (s *stream) newCall(iq *stanza.Element) *call {
	if t := iq.Attr("type"); t != "get" && t != "set" {
		return nil
	}
	c := &call{s: s, iq: iq, payload: iq.First()}
	// As the server wrote it and nothing else: no other spelling of an address is
	// certain to be its own.
	c.h = s.l.spoken[iq.Attr("from")]
	return c
}

func (s *stream) iq(e *stanza.Element, size int) {
	if c := s.newCall(e); c != nil {
		c.size = size
		c.settle(func(r request) *stanza.Error { return r.do(c) })
	}
}

// settle finds out what is asked and whether by somebody who may, and has it done:
// do may return an error to answer with.
func (c *call) settle(do func(request) *stanza.Error) {
	r, known := request{name: "other"}, false
	if c.payload != nil {
		if k, ok := requests[kind{c.payload.Space, c.payload.Local, c.iq.Attr("type")}]; ok {
			r, known = k, true
		}
	}
	if r.inOrder && c.h != nil {
		c.turn = c.s.turns[c.h].take()
	}
	se := c.refuse(r, known)
	if se == nil {
		se = do(r)
	}
	if se != nil {
		c.fail(r.name, se)
		return
	}
	c.s.l.metrics.requests(r.name, "ok").Inc()
}

// refuse tells what the asker may not, or what nobody can.
func (c *call) refuse(r request, known bool) *stanza.Error {
	p := c.payload
	ours := p != nil && p.Space == NS
	switch {
	case c.h == nil && (ours || p != nil && p.Space == xep0313.NS):
		return stanza.Forbidden("")
	case c.h != nil && p == nil:
		return stanza.BadRequest("the iq is empty")
	case !c.toComponent(), !known && !ours:
		return stanza.ServiceUnavailable("")
	case !known:
		return stanza.FeatureNotImplemented("<%s/> with type=%q is not part of %s as it is spoken here", p.Local, c.iq.Attr("type"), NS)
	case r.who != anybody && c.h == nil:
		return stanza.Forbidden("")
	case r.who == greeted && !c.greeted():
		return &stanza.Error{Type: "wait", Condition: "unexpected-request", Text: "there was no hello of " + c.h.name + " on this link"}
	}
	return nil
}

// toComponent tells whether c was sent to the component itself, and not to some
// address at it.
func (c *call) toComponent() bool {
	to := c.iq.Attr("to")
	if to == c.s.l.domain {
		return true
	}
	j, err := jid.Parse(to)
	return err == nil && j.Equal(c.s.l.address)
}

// message tells who sent a message that nobody is here to read it.
func (s *stream) message(e *stanza.Element) {
	if t := e.Attr("type"); t == "error" || t == "headline" || s.granted(e) {
		return
	}
	s.out.answer(appendError(nil, "message", e, stanza.ServiceUnavailable("")))
}

// fail answers with an error.
func (c *call) fail(name string, se *stanza.Error) {
	c.s.l.metrics.requests(name, result(se)).Inc()
	c.write(appendError(nil, "iq", c.iq, se))
}

// write queues the answer, which nobody may change any more.
func (c *call) write(b []byte) {
	if c.turn != nil {
		c.s.turns[c.h].answer(c.turn, b, c.s.out)
		return
	}
	c.s.out.answer(b)
}

// appendReply appends the start tag of the reply to e.
func appendReply(b []byte, local, typ string, e *stanza.Element) []byte {
	b = append(append(append(append(b, '<'), local...), ` type='`...), typ...)
	for _, a := range [...][2]string{{"id", e.Attr("id")}, {"from", e.Attr("to")}, {"to", e.Attr("from")}} {
		if a[1] != "" {
			b = append(append(append(b, `' `...), a[0]...), `='`...)
			b = stanza.AppendEscaped(b, a[1])
		}
	}
	return append(b, `'>`...)
}

func appendError(b []byte, local string, e *stanza.Element, se *stanza.Error) []byte {
	b = appendReply(b, local, "error", e)
	b = append(append(append(b, `<error type='`...), se.Type...), `'>`...)
	for _, c := range se.Element().Elements() {
		b = c.Append(b, nsAccept)
	}
	return append(append(append(b, `</error></`...), local...), '>')
}

// reply answers with a result.
func (c *call) reply(payload []byte) {
	b := appendReply(make([]byte, 0, len(payload)+200), "iq", "result", c.iq)
	c.write(append(append(b, payload...), `</iq>`...))
}
