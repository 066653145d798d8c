package xep0313

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/oklog/ulid/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// The namespaces of retractions (XEP-0424, XEP-0425).
const (
	NSRetract   = "urn:xmpp:message-retract:1"
	NSTombstone = NSRetract + "#tombstone"

	nsModerate   = "urn:xmpp:message-moderate:1"
	nsOccupantID = "urn:xmpp:occupant-id:0"
)

// retractHorizon is among how many of the newest messages of a conversation the
// one that is retracted is looked for; in a room it is named by its archive id, and
// found at once.
const retractHorizon = 2000

// retraction is what one stanza retracts, in all archives that it goes into.
type retraction struct {
	element *stanza.Element
	ids     []string // by which its sender may have named the message
}

// retractionOf returns nil for a stanza that retracts nothing: both it and what it
// retracts must have an id (XEP-0424 section 4).
func retractionOf(m *stanza.Element) *retraction {
	e := m.Child(NSRetract, "retract")
	if e == nil || e.Attr("id") == "" || m.Attr("id") == "" {
		return nil
	}
	return &retraction{e, []string{e.Attr("id")}}
}

// settle waits until all that was appended to the logs can be queried: a message
// may be retracted right after it was sent. The caller holds no stripe.
func settle(logs ...*log.Log) error {
	for i, l := range logs {
		if slices.Contains(logs[:i], l) {
			continue
		}
		if err := l.Settle(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// retract makes the message that s, which is archived, retracts a tombstone: with
// the entry that is returned or, where it is among queued, at once. Without an
// entry there is nothing that its sender may retract.
func (a *Archive) retract(s *side, r *retraction, queued []log.Entry) (*log.Entry, error) {
	for _, e := range slices.Backward(queued) {
		m := e.Event.GetMessage()
		if m.GetOwner() != s.owner || s.room() {
			continue
		}
		if st, ok := r.names(s, m, m.Stanza); ok {
			m.StanzaBytes, m.Stanza = uint64(len(m.Stanza)), a.tombstone(s, r, st)
			a.metrics.retracted.Inc()
			return nil, nil
		}
	}
	id, st, err := a.target(s, r)
	if err != nil || st == nil {
		return nil, err
	}
	page, err := s.host.Archives.Query(projections.Query{Class: s.host.class, Owner: s.owner, IDs: []ulid.ULID{id}, Max: 1, Uncounted: true})
	if err != nil || len(page.Rows) == 0 {
		return nil, err
	}
	e, err := s.host.Archives.Retraction(s.host.class, page.Rows[0], a.tombstone(s, r, st))
	if err != nil {
		return nil, err
	}
	a.metrics.retracted.Inc()
	return &e, nil
}

var errFound = errors.New("found")

// target finds the message that s retracts, nil if there is none.
func (a *Archive) target(s *side, r *retraction) (found ulid.ULID, st *stanza.Element, err error) {
	all, err := a.all(s.host, s.owner)
	if err != nil {
		return found, nil, err
	}
	look := func(row *projections.Row) error {
		if !s.room() && !slices.ContainsFunc(r.ids, func(id string) bool {
			return row.ID.String() == id || bytes.Contains(row.Stanza, stanza.AppendEscaped(nil, id))
		}) {
			return nil
		}
		m, err := row.Message()
		if err != nil {
			return err
		}
		ok := false
		if named := row.ID.String() == r.ids[0]; named && (s.room() || s.Direction != log.Direction_DIRECTION_IN) {
			// By its archive id: the recipient's archive knows it by another name.
			if st, ok = r.may(s, m, row.Stanza); ok && m.StanzaId != "" {
				r.ids = append(r.ids, m.StanzaId)
			}
		} else if !s.room() {
			st, ok = r.names(s, m, row.Stanza)
		}
		if ok {
			found = row.ID
			return errFound
		}
		return nil
	}
	if s.room() {
		id, err := ulid.ParseStrict(r.ids[0])
		if err != nil {
			return found, nil, nil
		}
		all.IDs, all.Max = []ulid.ULID{id}, 1
	} else {
		all.With, all.Backward, all.Max, all.Uncounted = bareOf(s.peer), true, retractHorizon, true
	}
	_, err = s.host.Archives.Visit(all, look)
	var missing *projections.NotFoundError
	switch {
	case errors.Is(err, errFound):
		return found, st, nil
	case errors.As(err, &missing):
		err = nil
	}
	return found, nil, err
}

// names tells whether r names m by an id that its sender gave it, and may.
func (r *retraction) names(s *side, m *log.MessageArchived, content []byte) (*stanza.Element, bool) {
	st, ok := r.may(s, m, content)
	if !ok {
		return nil, false
	}
	origin := st.Child(NSStanzaID, "origin-id")
	return st, slices.ContainsFunc(r.ids, func(id string) bool {
		return m.StanzaId == id || origin != nil && origin.Attr("id") == id
	})
}

// may tells whether the sender of s may retract m, which is in the same archive
// (XEP-0424 section 6, XEP-0425 section 6), and reads it.
func (r *retraction) may(s *side, m *log.MessageArchived, content []byte) (*stanza.Element, bool) {
	if m.Direction != s.Direction || m.Stanza == nil {
		return nil, false
	}
	st, err := stanza.Parse(content)
	if err != nil || st.Attr("type") == "error" || st.Child(NSRetract, "retract") != nil || st.Child(NSRetract, "retracted") != nil {
		return nil, false
	}
	peer, err := jid.Parse(m.Peer)
	if err != nil || !peer.Bare().Equal(s.Peer.Bare()) {
		return nil, false
	}
	switch {
	case s.room() && r.moderated(s) != nil:
		return st, true
	case s.room():
		// The nickname alone could be somebody else's by now.
		sender, err := jid.Parse(m.Sender)
		return st, err == nil && peer.Equal(s.Peer) && sender.Bare().Equal(s.Sender.Bare())
	case st.Child(nsMUCUser, "x") != nil || s.Stanza.Child(nsMUCUser, "x") != nil:
		return st, peer.Equal(s.Peer) // between occupants, who share a bare JID
	}
	return st, true
}

// moderated is what a room itself says of the moderator; nil if it isn't the room.
func (r *retraction) moderated(s *side) *stanza.Element {
	if !s.room() || s.Peer.Resourcepart() != "" {
		return nil
	}
	return r.element.Child(nsModerate, "moderated")
}

// tombstone is what the message st becomes (XEP-0424 section 5, XEP-0425 section
// 5): nothing is left of it but who sent it to whom under which ids.
func (a *Archive) tombstone(s *side, r *retraction, st *stanza.Element) []byte {
	t := stanza.New(stanza.NSClient, "message")
	for _, name := range []string{"type", "from", "to", "id"} {
		t.SetAttr(name, st.Attr(name))
	}
	for _, kept := range [][2]string{{nsOccupantID, "occupant-id"}, {NSStanzaID, "origin-id"}} {
		if e := st.Child(kept[0], kept[1]); e != nil {
			t.Add(stanza.New(kept[0], kept[1], "id", e.Attr("id")))
		}
	}
	at := s.Stamp
	if now := s.host.Log.Clock().Now(); at.IsZero() || at.After(now) {
		at = now
	}
	gone := stanza.New(NSRetract, "retracted", "id", s.Stanza.Attr("id"), "stamp", stamp(at.UnixMilli()))
	if m := r.moderated(s); m != nil {
		gone.Add(m)
		if reason := r.element.Child(NSRetract, "reason"); reason != nil {
			gone.Add(reason)
		}
	}
	return t.Add(gone).Bytes()
}
