package c2s

import (
	"slices"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// Message carbons (XEP-0280). The rules of its section 6.1 are followed but for
// one: an error that answers an eligible message is not copied. So
// urn:xmpp:carbons:rules:0 is not advertised.

const (
	nsCarbons    = "urn:xmpp:carbons:2"
	nsReceipts   = "urn:xmpp:receipts"
	nsChatStates = "http://jabber.org/protocol/chatstates"
	nsMarkers    = "urn:xmpp:chat-markers:0"
	nsConference = "jabber:x:conference"
	nsMUCUser    = "http://jabber.org/protocol/muc#user"
)

// eligible tells whether copies of a message are made (section 6.1).
func eligible(e *stanza.Element, typ string) bool {
	if typ == "groupchat" || typ == "headline" || typ == "error" {
		return false
	}
	yes := typ == "chat"
	for _, c := range e.Nodes {
		if c.Element == nil {
			continue
		}
		switch c.Element.Space {
		case nsCarbons:
			if c.Element.Local == "private" {
				return false
			}
		case xep0313.NSHints:
			if c.Element.Local == "no-copy" { // XEP-0334 section 4.3
				return false
			}
		case stanza.NSClient:
			yes = yes || c.Element.Local == "body"
		case nsReceipts, nsChatStates, nsMarkers, nsConference:
			yes = true
		case nsMUCUser:
			yes = yes || c.Element.Child(nsMUCUser, "invite") != nil
		}
	}
	return yes
}

// sent puts carbons into the queues of the sender's other resources that asked
// for them, with the id in the sender's own archive. The log calls it, in the
// order of that archive.
func (m *outgoing) sent(d xep0313.Delivery) {
	if !m.carbons {
		return
	}
	users := &m.x.s.users
	users.mu.RLock()
	defer users.mu.RUnlock()
	mine := users.byBare[m.x.bare]
	var got []*session // who get the message itself
	if m.to.bare == m.x.bare && m.refused == nil {
		got = m.recipients(mine)
	}
	var b []byte
	for _, o := range mine {
		if o == m.x || !o.carbons || slices.Contains(got, o) {
			continue
		}
		if b == nil {
			b = xep0313.WithStanzaID(d.Stanza, m.x.bare, d.SenderID)
		}
		o.out.put(carbon("sent", o, m.typ, b))
	}
}

// carbon wraps a stanza, which has its own xmlns, for one resource.
func carbon(direction string, to *session, typ string, b []byte) []byte {
	c := make([]byte, 0, len(b)+len(to.bare)+len(to.full)+240)
	c = append(c, `<message xmlns='jabber:client' from='`...)
	c = stanza.AppendEscaped(c, to.bare)
	c = append(c, `' to='`...)
	c = stanza.AppendEscaped(c, to.full)
	c = append(c, `' type='`...)
	c = append(c, typ...)
	c = append(c, `'><`...)
	c = append(c, direction...)
	c = append(c, ` xmlns='`+nsCarbons+`'><forwarded xmlns='`+xep0313.NSForward+`'>`...)
	c = append(c, b...)
	c = append(c, `</forwarded></`...)
	c = append(c, direction...)
	return append(c, `></message>`...)
}

// setCarbons answers <enable/> and <disable/> (sections 4 and 5); doing either
// twice is no error.
func (x *session) setCarbons(iq *stanza.Element, on bool) {
	x.flights.behind(func() bool {
		x.s.users.mu.Lock()
		x.carbons = on
		x.s.users.mu.Unlock()
		x.answer(iq.Reply("result"))
		return false
	})
}
