package xep0313

import (
	"bytes"
	"errors"
	"slices"
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
// all of that is durable and can be queried. Calls of done come in the order in
// which the recipients' archives have the messages, and for what isn't archived
// in the order of the calls of Record; they come from the log's goroutine and
// must neither block nor call Record. An error of Record means that done will
// not be called and that nothing was archived; a *stanza.Error is for the sender.
//
// A message to oneself is archived once, under RecipientID and SenderID alike.
func (a *Archive) Record(m Message, done func(Delivery)) error {
	st := stripStanzaIDs(m)
	d := Delivery{Stanza: st.Bytes()}
	var sides []side
	add := func(owner jid.JID, peer jid.JID, direction log.Direction) {
		if h := a.hosts[owner.Domainpart()]; h != nil {
			sides = append(sides, side{
				Side: Side{Peer: peer, Direction: direction, Stanza: st},
				host: h, owner: owner.String(), contacts: a.contacts, bytes: d.Stanza,
			})
		}
	}
	from, to := m.From.Bare(), m.To.Bare()
	self := m.FromLocal && from.Equal(to)
	if m.FromLocal {
		add(from, m.To, log.Direction_DIRECTION_OUT)
	}
	if m.ToLocal && !self {
		add(to, m.From, log.Direction_DIRECTION_IN)
	}
	if self && len(sides) == 1 {
		sides[0].toSelf(m.From, m.To)
	}
	set := func(s side, id ulid.ULID) {
		if s.Direction != log.Direction_DIRECTION_IN {
			d.SenderID = id
		}
		if s.Direction != log.Direction_DIRECTION_OUT {
			d.RecipientID = id
		}
	}
	sent := func() {
		if m.FromLocal && m.Sent != nil {
			m.Sent(d)
		}
	}
	if len(sides) == 0 {
		sent()
		done(d)
		return nil
	}
	for _, s := range sides {
		if e := a.shed(s.host.Log); e != nil {
			return e
		}
	}
	retraction := retractionOf(st)
	if retraction != nil {
		logs := make([]*log.Log, len(sides))
		for i, s := range sides {
			logs[i] = s.host.Log
		}
		if err := settle(logs...); err != nil {
			return err
		}
	}
	var held locks
	for _, s := range sides {
		held.add(s.owner, false)
	}
	release := a.lock(held)
	if len(sides) == 1 || sides[0].host.Log == sides[1].host.Log {
		defer release()
		return a.record(sides, retraction, sides[0].host.Log.Append, func(ids []ulid.ULID, err error) {
			d.Err = err
			for i, id := range ids {
				set(sides[i], id)
			}
			if err == nil {
				sent()
			}
			done(d)
		})
	}
	// Two stores: first the sender's, and when that is durable the recipient's,
	// in whose order the message is delivered. The locks are held until the
	// second is queued; taking them in the callback could wait for a change that
	// itself waits for this very goroutine.
	err := a.record(sides[:1], retraction, sides[0].host.Log.Append, func(ids []ulid.ULID, err error) {
		defer release()
		if err == nil {
			set(sides[0], ids[0])
			sent()
			err = a.record(sides[1:], retraction, sides[1].host.Log.AppendInCallback, func(ids []ulid.ULID, err error) {
				if d.Err = err; err == nil {
					set(sides[1], ids[0])
				}
				done(d)
			})
		}
		if err != nil {
			d.Err = err
			done(d)
		}
	})
	if err != nil {
		release()
	}
	return err
}

// record decides on the sides, which share a store, and queues what is archived.
// No preference of theirs changes meanwhile: the caller holds their stripes. done
// gets an id a side, zero for not archived. retraction, if not nil, is what their
// stanza retracts.
func (a *Archive) record(sides []side, retraction *retraction, queue func([]log.Entry, func([]ulid.ULID, error)) error, done func([]ulid.ULID, error)) error {
	var entries, retractions []log.Entry
	archived := make([]int, len(sides)) // index into entries + 1
	var form stored
	for i := range sides {
		s := &sides[i]
		event, err := a.decide(s, &form)
		if err != nil {
			return err
		}
		if event == nil {
			continue
		}
		if retraction != nil {
			e, err := a.retract(s, retraction, nil)
			if err != nil {
				return err
			}
			if e != nil {
				retractions = append(retractions, *e)
			}
		}
		entries = append(entries, a.entry(s, event))
		archived[i] = len(entries)
	}
	return queue(append(entries, retractions...), func(ids []ulid.ULID, err error) {
		if err != nil {
			if errors.Is(err, log.ErrSuspended) { // the log has said so, once
				done(nil, err)
				return
			}
			a.logger.Error("a message could not be archived and was not delivered", zap.Error(err))
			done(nil, err)
			return
		}
		out := make([]ulid.ULID, len(sides))
		for i, n := range archived {
			if n > 0 {
				out[i] = ids[n-1]
			}
		}
		done(out, nil)
	})
}

// stripStanzaIDs removes the stanza-ids that name one of the archives the
// message goes into, or its server: only those themselves may write them
// (XEP-0359 section 4).
func stripStanzaIDs(m Message) *stanza.Element {
	var ours []jid.JID
	if m.FromLocal {
		ours = append(ours, m.From.Bare(), m.From.Domain())
	}
	if m.ToLocal {
		ours = append(ours, m.To.Bare(), m.To.Domain())
	}
	return withoutStanzaIDs(m.Stanza, func(by jid.JID) bool { return slices.ContainsFunc(ours, by.Equal) })
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
