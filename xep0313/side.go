package xep0313

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Side is one message for one archive.
type Side struct {
	Owner jid.JID // bare; an account's or a room's
	Peer  jid.JID // as the stanza has it, full or bare; in a room the sender's occupant JID

	// Direction is OUT for what the owner sent, also to themselves, IN for what
	// they received, ROOM for what the room that is the owner broadcast.
	Direction log.Direction
	Stanza    *stanza.Element // a message; not changed

	Key     string    // names this append among all of the owner's, so that it can be repeated; "": it won't be
	Contact bool      // Peer is in Owner's roster, for preferences with the default "roster"
	Stamp   time.Time // when the server had the message; zero, or in the future: now

	Sender jid.JID // ROOM: the occupant's real JID, if it is known
	Whois  bool    // ROOM: all occupants may see Sender

	// Import is for a message that another archive of the server's had: Stamp is
	// when, and neither preferences nor rules decide on it once more.
	Import bool
}

// side is a Side whose archive is known, with what else decides on it.
type side struct {
	Side
	host     *host
	owner    string // bare JID
	peer     string // Peer as text
	alsoPeer string // of a message to oneself: also found by this JID
	bytes    []byte // Stanza as XML, if somebody has made that already

	contacts  Contacts   // asked instead of Contact
	importing *importing // of an import
}

// toSelf makes s the one side that a message from its owner to their own account
// has.
func (s *side) toSelf(from, to jid.JID) {
	s.Direction, s.Peer, s.peer = log.Direction_DIRECTION_SELF, from, text(from)
	if to.Resourcepart() != "" {
		s.alsoPeer = to.String()
	}
}

func (s *side) room() bool { return s.Direction == log.Direction_DIRECTION_ROOM }

// entry is what is appended to the log for s.
func (a *Archive) entry(s *side, event *log.Event) log.Entry {
	a.metrics.archived(event.GetMessage().GetReason())
	a.grew(s)
	return log.Entry{Class: s.host.class, Event: event}
}

// stored is the form that a stanza has in archives; sides of one stanza whose
// hosts leave out the same namespaces share it.
type stored struct {
	of      *stanza.Element
	dropped []string
	stanza  *stanza.Element
	bytes   []byte
	reason  log.Reason
	skip    string
}

func (f *stored) prepare(s *side) {
	drop := s.host.Options.DontArchiveNamespaces
	if f.of == s.Stanza && !s.room() && slices.Equal(f.dropped, drop) {
		return
	}
	*f = stored{dropped: drop}
	st := s.Stanza
	if s.room() {
		// A room's copy has no addressee, and says nothing of its own about who the
		// sender is (XEP-0313 section 6.1.2).
		st = st.Without(func(e *stanza.Element) bool { return e.Space == nsMUCUser && e.Local == "x" }).Copy()
		st.SetAttr("from", s.peer)
		st.SetAttr("to", "")
	} else {
		f.of = s.Stanza
	}
	f.stanza = st.Without(func(e *stanza.Element) bool { return slices.Contains(drop, e.Space) })
	if s.Import {
		f.reason, f.skip = worthImporting(f.stanza, s.room())
		f.of = nil
		return
	}
	// What forbids archiving does so also where it is left out of the copy.
	if f.reason, f.skip = worth(st, s.room()); f.skip == "" {
		f.reason, f.skip = worth(f.stanza, s.room())
	}
}

// decide returns the event that archives the message on that side, or nil.
func (a *Archive) decide(s *side, form *stored) (*log.Event, error) {
	form.prepare(s)
	reason, skip := form.reason, form.skip
	if s.Stanza.Attr("type") == "error" && !s.room() && !s.Import {
		ours, err := a.answersOwn(s)
		if err != nil {
			return nil, err
		}
		if reason, skip = log.Reason_REASON_BOUNCE, ""; !ours {
			skip = skipError
		}
	}
	var sent int64
	var decidedBy ulid.ULID
	var err error
	if skip == "" {
		sent, skip, err = a.sent(s)
	}
	if skip == "" && err == nil {
		decidedBy, skip, err = a.judge(s)
	}
	if err != nil {
		return nil, err
	}
	if skip != "" {
		a.metrics.skipped(skip)
		return nil, nil
	}
	switch {
	case form.bytes != nil:
	case form.stanza == s.Stanza && s.bytes != nil:
		form.bytes = s.bytes
	default:
		form.bytes = form.stanza.Bytes()
	}
	event := log.NewMessage(decidedBy)
	m := event.GetMessage()
	m.Owner, m.Peer, m.Direction, m.Reason = s.owner, s.peer, s.Direction, reason
	m.Stanza, m.StanzaId, m.AlsoPeer, m.SentUnixMs = form.bytes, s.Stanza.Attr("id"), s.alsoPeer, sent
	if s.room() {
		m.Sender, m.Whois = s.Sender.String(), s.Whois
	}
	if !s.Import {
		a.imports.live(s.owner)
	}
	return event, nil
}

// sent is the time to show for a message with a stamp, in ms since 1970; 0 for
// that of its archive id. skip tells why a message of that time is not archived.
func (a *Archive) sent(s *side) (sent int64, skip string, err error) {
	if s.Stamp.IsZero() {
		return 0, "", nil
	}
	now := s.host.Log.Clock().Now()
	if sent = s.Stamp.UnixMilli(); sent >= now.UnixMilli() {
		return 0, "", nil
	}
	if s.Import {
		keep, err := a.keeps(s.host, s.owner)
		if d := keep.expiresAfter; d > 0 && s.Stamp.Before(now.Add(-d)) {
			skip = skipExpired
		}
		return sent, skip, err
	}
	// What waited while the account was deleted was for whoever had it then.
	deleted, err := a.projections.DeletedAt(s.owner)
	if err == nil && deleted != (ulid.ULID{}) && sent <= int64(deleted.Time()) {
		skip = skipDeleted
	}
	return sent, skip, err
}

// judge applies the preferences in force (XEP-0441): decidedBy is the event that
// set them.
func (a *Archive) judge(s *side) (decidedBy ulid.ULID, skip string, err error) {
	switch {
	case s.Import:
		return decidedBy, "", nil
	case s.room():
		// Rooms have no preferences, and the host's default is for accounts: whether a
		// room is archived is for its owner to say, and the server asks only then.
		return s.host.policyID, "", nil
	}
	p, decidedBy, err := a.projections.Preferences(s.owner)
	if err != nil {
		return decidedBy, "", err
	}
	if p == nil {
		if s.host.Options.SmartEnable {
			return decidedBy, skipSmart, nil
		}
		p, decidedBy = s.host.policy, s.host.policyID
	}
	keep, err := allows(p, s)
	if !keep {
		skip = skipPreferences
	}
	return decidedBy, skip, err
}

// bounceHorizon is among how many of the newest messages of a conversation the
// one that an error answers is looked for.
const bounceHorizon = 100

// answersOwn tells whether an error stanza came back for a message that the
// owner sent and that is archived: only that tells them something of their own.
func (a *Archive) answersOwn(s *side) (bool, error) {
	id := s.Stanza.Attr("id")
	if s.Direction != log.Direction_DIRECTION_IN || id == "" {
		return false, nil
	}
	q, err := a.all(s.host, s.owner)
	if err != nil {
		return false, err
	}
	q.With, q.Backward, q.Max, q.Uncounted = bareOf(s.peer), true, bounceHorizon, true
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
