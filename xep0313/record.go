package xep0313

import (
	"bytes"
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

// side is one archive that a message may go into.
type side struct {
	host      *host
	owner     string
	peer      jid.JID
	direction log.Direction
}

// Record decides for each side whether m is archived, by the XEP's rules, the
// hints, and the preferences in force; it appends what is, and calls done when
// all of that is durable and can be queried. Calls of done come in the order in
// which the recipients' archives have the messages, and for what isn't archived
// in the order of the calls of Record; they come from the log's goroutine and
// must neither block nor call Record. An error of Record means that done will
// not be called and that nothing was archived.
//
// A message to oneself is archived once, under RecipientID and SenderID alike.
func (a *Archive) Record(m Message, done func(Delivery)) error {
	st := stripStanzaIDs(m)
	d := Delivery{Stanza: st.Bytes()}
	var sides []side
	from, to := m.From.Bare(), m.To.Bare()
	self := m.FromLocal && from.Equal(to)
	if m.FromLocal {
		if h := a.hosts[from.Domainpart()]; h != nil {
			sides = append(sides, side{h, from.String(), m.To, log.Direction_DIRECTION_OUT})
		}
	}
	if m.ToLocal && !self {
		if h := a.hosts[to.Domainpart()]; h != nil {
			sides = append(sides, side{h, to.String(), m.From, log.Direction_DIRECTION_IN})
		}
	}
	if self && len(sides) == 1 {
		sides[0].direction, sides[0].peer = log.Direction_DIRECTION_SELF, m.From
	}
	set := func(s side, id ulid.ULID) {
		if s.direction != log.Direction_DIRECTION_IN {
			d.SenderID = id
		}
		if s.direction != log.Direction_DIRECTION_OUT {
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
	owners := make([]string, len(sides))
	for i, s := range sides {
		owners[i] = s.owner
	}
	release := a.deciding(owners...)
	if len(sides) == 1 || sides[0].host.Log == sides[1].host.Log {
		defer release()
		return a.append(sides, m, st, sides[0].host.Log.Append, func(ids []ulid.ULID, err error) {
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
	err := a.append(sides[:1], m, st, sides[0].host.Log.Append, func(ids []ulid.ULID, err error) {
		defer release()
		if err == nil {
			set(sides[0], ids[0])
			sent()
			err = a.append(sides[1:], m, st, sides[1].host.Log.AppendInCallback, func(ids []ulid.ULID, err error) {
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

// append decides on the sides, which share a store, and queues what is archived.
// No preference of theirs changes meanwhile: the caller holds their stripes. done
// gets an id a side, zero for not archived.
func (a *Archive) append(sides []side, m Message, st *stanza.Element, queue func([]log.Entry, func([]ulid.ULID, error)) error, done func([]ulid.ULID, error)) error {
	var entries []log.Entry
	archived := make([]int, len(sides)) // index into entries + 1
	var stored stored
	for i, s := range sides {
		event, err := a.decide(s, m, st, &stored)
		if err != nil {
			return err
		}
		if event != nil {
			entries = append(entries, log.Entry{
				Class: s.host.class, Event: &log.Event{Kind: &log.Event_Message{Message: event}},
			})
			archived[i] = len(entries)
		}
	}
	return queue(entries, func(ids []ulid.ULID, err error) {
		if err != nil {
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

// stored is the form of a stanza in archives; hosts that leave out the same
// namespaces share it.
type stored struct {
	dropped []string
	stanza  *stanza.Element
	bytes   []byte
	reason  log.Reason
	skip    string
}

func (s *stored) prepare(st *stanza.Element, drop []string) {
	if s.stanza != nil && slices.Equal(s.dropped, drop) {
		return
	}
	s.dropped, s.bytes = drop, nil
	s.stanza = st.Without(func(e *stanza.Element) bool { return slices.Contains(drop, e.Space) })
	// What forbids archiving does so also where it is left out of the copy.
	if s.reason, s.skip = worth(st); s.skip == "" {
		s.reason, s.skip = worth(s.stanza)
	}
}

// decide returns the event that archives the message on that side, or nil.
func (a *Archive) decide(s side, m Message, st *stanza.Element, form *stored) (*log.MessageArchived, error) {
	form.prepare(st, s.host.Options.DontArchiveNamespaces)
	reason, skip := form.reason, form.skip
	if st.Attr("type") == "error" {
		ours, err := a.answersOwn(s, st)
		if err != nil {
			return nil, err
		}
		if reason, skip = log.Reason_REASON_BOUNCE, ""; !ours {
			skip = skipError
		}
	}
	if skip != "" {
		a.metrics.skipped(skip)
		return nil, nil
	}
	keep, decidedBy, skip, err := a.judge(s)
	if err != nil {
		return nil, err
	}
	if !keep {
		a.metrics.skipped(skip)
		return nil, nil
	}
	a.metrics.archived(reason)
	if form.bytes == nil {
		form.bytes = form.stanza.Bytes()
	}
	event := &log.MessageArchived{
		Owner: s.owner, Peer: s.peer.String(), Direction: s.direction, Reason: reason,
		DecidedBy: decidedBy[:], Stanza: form.bytes, StanzaId: st.Attr("id"),
	}
	if s.direction == log.Direction_DIRECTION_SELF && m.To.Resourcepart() != "" {
		event.AlsoPeer = m.To.String()
	}
	return event, nil
}

// judge applies the preferences in force (XEP-0441).
func (a *Archive) judge(s side) (keep bool, decidedBy ulid.ULID, skip string, err error) {
	p, id, err := a.projections.Preferences(s.owner)
	if err != nil {
		return false, id, "", err
	}
	if p == nil {
		if s.host.Options.SmartEnable {
			return false, id, skipSmart, nil
		}
		p, id = s.host.policy, s.host.policyID
	}
	keep, err = a.allows(p, s.owner, s.peer)
	return keep, id, skipPreferences, err
}

// bounceHorizon is among how many of the newest messages of a conversation the
// one that an error answers is looked for.
const bounceHorizon = 100

// answersOwn tells whether an error stanza came back for a message that the
// owner sent and that is archived: only that tells them something of their own.
func (a *Archive) answersOwn(s side, st *stanza.Element) (bool, error) {
	id := st.Attr("id")
	if s.direction != log.Direction_DIRECTION_IN || id == "" {
		return false, nil
	}
	q, err := a.all(s.host, s.owner)
	if err != nil {
		return false, err
	}
	q.With, q.Backward, q.Max = s.peer.Bare().String(), true, bounceHorizon
	page, err := s.host.Archives.Query(q)
	if err != nil {
		return false, err
	}
	for _, r := range page.Rows {
		m, err := r.Message()
		if err != nil {
			return false, err
		}
		if m.Direction == log.Direction_DIRECTION_OUT && m.StanzaId == id {
			return true, nil
		}
	}
	return false, nil
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
	return m.Stanza.Without(func(e *stanza.Element) bool {
		if !e.Is(NSStanzaID, "stanza-id") {
			return false
		}
		by, err := jid.Parse(strings.TrimSpace(e.Attr("by")))
		if err != nil {
			return false
		}
		return slices.ContainsFunc(ours, by.Equal)
	})
}

// WithStanzaID returns the message with <stanza-id/> as its last child, which
// tells under which id the archive of by holds it (XEP-0359); with a zero id it
// returns b. b must come from a Delivery and is not changed.
func WithStanzaID(b []byte, by string, id ulid.ULID) []byte {
	if id == (ulid.ULID{}) {
		return b
	}
	const end = "</message>"
	out := make([]byte, 0, len(b)+len(end)+len(by)+80)
	if head, ok := bytes.CutSuffix(b, []byte("/>")); ok {
		out = append(append(out, head...), '>')
	} else {
		out = append(out, bytes.TrimSuffix(b, []byte(end))...)
	}
	out = append(out, `<stanza-id xmlns='`+NSStanzaID+`' by='`...)
	out = stanza.AppendEscaped(out, by)
	out = append(out, `' id='`...)
	out = appendID(out, id)
	return append(out, `'/>`+end...)
}

func appendID(b []byte, id ulid.ULID) []byte {
	var text [ulid.EncodedSize]byte
	if err := id.MarshalTextTo(text[:]); err != nil {
		panic("xep0313: " + err.Error()) // only a buffer of the wrong size fails
	}
	return append(b, text[:]...)
}
