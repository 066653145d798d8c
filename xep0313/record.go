package xep0313

import (
	"bytes"
	"errors"
	"strings"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Message is one message stanza on its way through the server.
type Message struct {
	Stanza             *stanza.Element // its from and to are those below
	From, To           jid.JID         // To as addressed; both prepared
	FromLocal, ToLocal bool            // that side has an account, and so an archive, here

	// Sent, if not nil, is called before done, when the sender's archive has the
	// message: in the order in which it has them. It is the moment for copies to
	// the sender's own resources. It is not called for what failed. Like done it
	// must not block.
	Sent func(Delivery)
}

// Delivery is what may be delivered of a message.
type Delivery struct {
	Stanza      []byte    // with its own xmlns; without stanza-ids that claim to be ours
	SenderID    ulid.ULID // in the sender's archive; zero: not archived
	RecipientID ulid.ULID // in the recipient's archive; zero: not archived

	// Err, if not nil, says that the message was to be archived and could not
	// be. It must not be delivered, and its sender be told to try again.
	Err error
}

// Record decides for each side whether m is archived, by the XEP's rules, the
// hints, and the preferences in force; it appends what is, and calls done when
// all of that is durable, and whoever queries then sees it. Calls of done come in the order in
// which the recipients' archives have the messages, and for what isn't archived
// in the order of the calls of Record; they come from the log's goroutine and
// must neither block nor call Record. An error of Record means that done will
// not be called and that nothing was archived; a *stanza.Error is for the sender.
//
// A message to oneself is archived once, under RecipientID and SenderID alike.
func (a *Archive) Record(m Message, done func(Delivery)) error {
	st := stripStanzaIDs(&m)
	r := &recording{archive: a, delivery: Delivery{Stanza: st.Bytes()}, done: done}
	if m.FromLocal {
		r.sent = m.Sent
	}
	var both [2]side
	sides := a.sides(both[:0], &m, st, r.delivery.Stanza)
	if len(sides) == 0 {
		r.tell()
		return nil
	}
	for i := range sides {
		if e := a.shed(sides[i].host.Log); e != nil {
			return e
		}
	}
	retraction := retractionOf(st)
	if retraction != nil {
		logs := make([]*log.Log, len(sides))
		for i := range sides {
			logs[i] = sides[i].host.Log
		}
		if err := settle(logs...); err != nil {
			return err
		}
	}
	var held locks
	for i := range sides {
		held.add(sides[i].owner, false)
	}
	a.lock(&held)
	if len(sides) == 2 && sides[0].host.Log != sides[1].host.Log {
		return a.recordApart(r, sides, retraction, held)
	}
	defer a.unlock(&held)
	var few [2]log.Entry
	entries, err := a.entries(few[:0], &r.at, sides, retraction)
	if err != nil {
		return err
	}
	return sides[0].host.Log.Append(entries, r.landed)
}

// sides appends to s the sides that m has here, with st as its stanza, of which b is
// the XML.
func (a *Archive) sides(s []side, m *Message, st *stanza.Element, b []byte) []side {
	from, to := text(m.From), text(m.To)
	sender, recipient := bareOf(from), bareOf(to)
	self := m.FromLocal && sender == recipient
	if h := a.hosts[m.From.Domainpart()]; h != nil && m.FromLocal {
		s = append(s, side{
			Side: Side{Peer: m.To, Direction: log.Direction_DIRECTION_OUT, Stanza: st},
			host: h, owner: sender, peer: to, contacts: a.contacts, bytes: b,
		})
		if self {
			s[0].toSelf(m.From, m.To)
		}
	}
	if h := a.hosts[m.To.Domainpart()]; h != nil && m.ToLocal && !self {
		s = append(s, side{
			Side: Side{Peer: m.From, Direction: log.Direction_DIRECTION_IN, Stanza: st},
			host: h, owner: recipient, peer: from, contacts: a.contacts, bytes: b,
		})
	}
	return s
}

// recordApart is for sides in two stores: first the sender's, and when that is durable
// the recipient's, in whose order the message is delivered. The locks are held until
// the second is queued; taking them in the callback could wait for a change that
// itself waits for this very goroutine.
func (a *Archive) recordApart(r *recording, sides []side, retraction *retraction, held locks) error {
	entries, err := a.entries(nil, &r.at, sides[:1], retraction)
	if err == nil {
		second := []side{sides[1]}
		err = sides[0].host.Log.Append(entries, func(ids []ulid.ULID, err error) {
			defer a.unlock(&held)
			r.take(ids, err)
			if err == nil {
				r.tellSender()
				r.sent, r.at = nil, places{}
				if entries, err = a.entries(nil, &r.at, second, retraction); err == nil {
					err = second[0].host.Log.AppendInCallback(entries, r.landed)
				}
				if err == nil {
					return
				}
			}
			r.delivery.Err = err
			r.tell()
		})
	}
	if err != nil {
		a.unlock(&held)
	}
	return err
}

// entries decides on the sides, which share a store, and appends to e what the log
// takes for them; at notes which of these archive the message. No preference of theirs
// changes meanwhile: the caller holds their stripes. retraction, if not nil, is what
// their stanza retracts.
func (a *Archive) entries(e []log.Entry, at *places, sides []side, retraction *retraction) ([]log.Entry, error) {
	var retractions []log.Entry
	var form stored
	for i := range sides {
		s := &sides[i]
		event, err := a.decide(s, &form)
		if err != nil {
			return nil, err
		}
		if event == nil {
			continue
		}
		if retraction != nil {
			own := *s // which lets sides lie on a stack
			r, err := a.retract(&own, retraction, nil)
			if err != nil {
				return nil, err
			}
			if r != nil {
				retractions = append(retractions, *r)
			}
		}
		e = append(e, a.entry(s, event))
		if s.Direction != log.Direction_DIRECTION_IN {
			at.sender = len(e)
		}
		if s.Direction != log.Direction_DIRECTION_OUT {
			at.recipient = len(e)
		}
	}
	return append(e, retractions...), nil
}

// places tell which entries of an append archive a message, for its sender and its
// recipient: their indexes + 1; 0 if none does.
type places struct{ sender, recipient int }

// recording is a message on its way into archives, and who is told.
type recording struct {
	archive  *Archive
	delivery Delivery
	at       places
	sent     func(Delivery) // nil: nobody waits for it
	done     func(Delivery)
}

// take notes what became of an append.
func (r *recording) take(ids []ulid.ULID, err error) {
	if r.delivery.Err = err; err != nil {
		if !errors.Is(err, log.ErrSuspended) { // the log has said so, once
			r.archive.logger.Error("a message could not be archived and was not delivered", zap.Error(err))
		}
		return
	}
	if r.at.sender > 0 {
		r.delivery.SenderID = ids[r.at.sender-1]
	}
	if r.at.recipient > 0 {
		r.delivery.RecipientID = ids[r.at.recipient-1]
	}
}

// landed is the callback of the last append.
func (r *recording) landed(ids []ulid.ULID, err error) {
	r.take(ids, err)
	r.tell()
}

func (r *recording) tell() {
	if r.delivery.Err == nil {
		r.tellSender()
	}
	r.done(r.delivery)
}

func (r *recording) tellSender() {
	if r.sent != nil {
		r.sent(r.delivery)
	}
}

// stripStanzaIDs removes the stanza-ids that name one of the archives the
// message goes into, or its server: only those themselves may write them
// (XEP-0359 section 4).
func stripStanzaIDs(m *Message) *stanza.Element {
	return withoutStanzaIDs(m.Stanza, func(by jid.JID) bool {
		return m.FromLocal && (by.Equal(m.From.Bare()) || by.Equal(m.From.Domain())) ||
			m.ToLocal && (by.Equal(m.To.Bare()) || by.Equal(m.To.Domain()))
	})
}

// withoutStanzaIDs returns m without the stanza-ids whose by is ours.
func withoutStanzaIDs(m *stanza.Element, ours func(by jid.JID) bool) *stanza.Element {
	return m.Without(func(e *stanza.Element) bool {
		if !e.Is(NSStanzaID, "stanza-id") {
			return false
		}
		by, err := jid.Parse(strings.TrimSpace(e.Attr("by")))
		return err == nil && ours(by)
	})
}

// WithStanzaID returns the message with <stanza-id/> as its last child, which
// tells under which id the archive of by holds it (XEP-0359); with a zero id it
// returns b. b must come from a Delivery and is not changed.
func WithStanzaID(b []byte, by string, id ulid.ULID) []byte {
	if id == (ulid.ULID{}) {
		return b
	}
	out := appendOpen(make([]byte, 0, len(b)+len(endMessage)+len(by)+80), b)
	out = append(out, `<stanza-id xmlns='`+NSStanzaID+`' by='`...)
	out = stanza.AppendEscaped(out, by)
	out = append(out, `' id='`...)
	out = appendID(out, id)
	return append(out, `'/>`+endMessage...)
}

const endMessage = "</message>"

// appendOpen appends a message without its end tag, so that a child can follow.
func appendOpen(b, message []byte) []byte {
	if head, ok := bytes.CutSuffix(message, []byte("/>")); ok {
		return append(append(b, head...), '>')
	}
	return append(b, bytes.TrimSuffix(message, []byte(endMessage))...)
}
