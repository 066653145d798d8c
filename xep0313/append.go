package xep0313

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Outcome is what became of a Side.
type Outcome struct {
	ID  ulid.ULID // the archive id, durable; zero without Err: not archived, as the rules or preferences say
	Err error     // a *stanza.Error: it could not be archived; of type "wait": it may be tried again
}

// Append decides on each side as Record does, and queues what is archived, in
// the order of sides. done is called once, when all of it is durable and can be
// queried, with the outcomes in that order; calls whose sides are in one store
// are done in the order of the calls, and one with sides in several when the last
// of them is done. done comes from a log's goroutine and must neither block nor
// call Append.
//
// A side with the Key of an earlier one of the same owner, which may be durable
// or not, gets its id and is not archived again; that is remembered for seven
// days at least, or until the archive is deleted. Sides with an unknown host, bad
// addresses or a conflict fail alone. An error of Append means that done will not
// be called and that nothing was archived.
//
// Imports of one owner come oldest first. They get archive ids of the time of
// their stamps, or, where that is not after the owner's last import, an id just
// behind it. An import that is older than a message of the archive that was not
// imported is a conflict. While imports are in flight, that may be said too of
// messages that have not become durable.
func (a *Archive) Append(sides []Side, done func([]Outcome)) error {
	b := &batch{archive: a, outcomes: make([]Outcome, len(sides)), done: done}
	known := make([]side, 0, len(sides))
	at := make([]int, 0, len(sides)) // in sides, by index in known
	var held locks
	for i, from := range sides {
		s, err := a.side(from)
		if err != nil {
			b.outcomes[i].Err = err
			continue
		}
		if n := len(known); n > 0 && sides[at[n-1]].Stanza == from.Stanza && known[n-1].host == s.host {
			s.Stanza = known[n-1].Stanza // so that they share their form in the archive
		} else {
			s.Stanza = withoutStanzaIDs(s.Stanza, func(by jid.JID) bool { return by.Domainpart() == s.host.Name })
		}
		held.add(s.owner, s.Import)
		known, at = append(known, s), append(at, i)
	}
	retractions, err := a.retractions(known)
	if err != nil {
		return err
	}
	a.lock(&held)
	defer a.unlock(&held)
	if b.imports, err = a.beginImports(known); err != nil {
		return err
	}
	var form stored
	for n := range known {
		s, o := &known[n], &b.outcomes[at[n]]
		p := b.part(s.host.Log)
		if e := a.shed(s.host.Log); e != nil {
			o.Err = e
			continue
		}
		var event *log.Event
		if event, o.ID, err = a.consider(s, &form); err != nil {
			o.Err = a.stanzaError(err)
		} else if event != nil {
			if r := retractions[s.Stanza]; r != nil {
				e, err := a.retract(s, r, p.entries)
				if err != nil {
					o.Err = a.stanzaError(err)
					continue
				}
				if e != nil {
					p.more = append(p.more, *e)
				}
			}
			e := a.entry(s, event)
			if e.OnceKey = s.Key; s.Key != "" {
				if e.OnceOwner, err = a.onceOwner(s); err != nil {
					o.Err = a.stanzaError(err)
					continue
				}
			}
			p.entries, p.at = append(p.entries, e), append(p.at, at[n])
		}
	}
	if len(b.imports) > 0 {
		if err := b.accountImports(); err != nil {
			a.imports.release(b.imports)
			return err
		}
	}
	return b.queue()
}

// retractions are what sides retract, by their stanzas; what was appended before can
// be queried then. Imports retract nothing: their archive did that.
func (a *Archive) retractions(sides []side) (found map[*stanza.Element]*retraction, err error) {
	var logs []*log.Log
	for _, s := range sides {
		if s.Import {
			continue
		}
		if r := retractionOf(s.Stanza); r != nil {
			if found == nil {
				found = make(map[*stanza.Element]*retraction)
			}
			if found[s.Stanza] == nil {
				found[s.Stanza] = r
			}
			logs = append(logs, s.host.Log)
		}
	}
	return found, settle(logs...)
}

// side checks from and finds its archive. Any error is a *stanza.Error.
func (a *Archive) side(from Side) (s side, err error) {
	s.Side, s.peer = from, text(from.Peer)
	if s.host, s.owner, err = a.ownerOf(from.Owner); err != nil {
		return s, err
	}
	switch {
	case !from.Stanza.Is(stanza.NSClient, "message"):
		return s, stanza.BadRequest("only messages are archived")
	case from.Peer.Equal(jid.JID{}):
		return s, stanza.BadRequest("a message has another side")
	}
	switch from.Direction {
	case log.Direction_DIRECTION_IN:
	case log.Direction_DIRECTION_OUT:
		if from.Peer.Bare().Equal(from.Owner) {
			sender, err := jid.Parse(from.Stanza.Attr("from"))
			if err != nil || !sender.Bare().Equal(from.Owner) {
				sender = from.Owner
			}
			s.toSelf(sender, from.Peer)
		}
	case log.Direction_DIRECTION_ROOM:
		if !from.Peer.Bare().Equal(from.Owner) {
			return s, stanza.BadRequest("%s is not an occupant of %s", from.Peer, from.Owner)
		}
	default:
		return s, stanza.BadRequest("a message is sent, received, or broadcast by a room")
	}
	if from.Import && from.Stamp.IsZero() {
		return s, stanza.BadRequest("an import needs a stamp")
	}
	return s, nil
}

// ownerOf finds the host of an archive's owner. Any error is a *stanza.Error.
func (a *Archive) ownerOf(owner jid.JID) (*host, string, error) {
	h := a.hosts[owner.Domainpart()]
	switch {
	case h == nil:
		return nil, "", stanza.ItemNotFound("no archives are kept for %q", owner.Domainpart())
	case owner.Localpart() == "" || owner.Resourcepart() != "":
		return nil, "", stanza.BadRequest("%q is not the bare JID of an account or a room", owner)
	}
	return h, owner.String(), nil
}

// consider decides on s, and gives an import its place. If the event is nil, id
// is the one under which the message was appended before; zero if it wasn't.
func (a *Archive) consider(s *side, form *stored) (event *log.Event, id ulid.ULID, err error) {
	event, err = a.decide(s, form)
	switch {
	case err != nil:
	case event == nil:
		// The rules are asked anew each time, the answer stays what it was.
		id, err = a.appended(s)
	case s.Import:
		if id, err = a.place(s, event.GetMessage()); err != nil || id != (ulid.ULID{}) {
			event = nil
		}
	}
	return event, id, err
}

// appended is the id that an append with the key of s got before, zero if there
// was none.
func (a *Archive) appended(s *side) (id ulid.ULID, err error) {
	if s.Key == "" {
		return id, nil
	}
	owner, err := a.onceOwner(s)
	if err != nil {
		return id, err
	}
	id, _, err = s.host.Log.Appended(owner, s.Key)
	return id, err
}

// onceOwner is within what a key names an append: one life of an archive. What
// was deleted with it can be imported again.
func (a *Archive) onceOwner(s *side) (string, error) {
	deleted, err := a.projections.DeletedAt(s.owner)
	if err != nil || deleted == (ulid.ULID{}) {
		return s.owner, err
	}
	return s.owner + " " + deleted.String(), nil
}

// stanzaError is what the other side is told of err.
func (a *Archive) stanzaError(err error) error {
	var se *stanza.Error
	if errors.As(err, &se) {
		return se
	}
	if !errors.Is(err, log.ErrSuspended) { // the log has said so, once
		a.logger.Error("a message could not be archived", zap.Error(err))
	}
	return Refusal(err)
}

// Refusal is what somebody is told whose message could not be archived because of
// err.
func Refusal(err error) *stanza.Error {
	var se *stanza.Error
	switch {
	case errors.As(err, &se):
		return se
	case errors.Is(err, log.ErrSuspended):
		return &stanza.Error{Type: "wait", Condition: "resource-constraint", Text: log.ErrSuspended.Error()}
	}
	return stanza.InternalServerError()
}

// batch is what one call of Append queues.
type batch struct {
	archive  *Archive
	outcomes []Outcome
	done     func([]Outcome)
	imports  []*importing
	parts    []*part
	left     atomic.Int32 // parts that have not landed
}

// part is what goes into one store.
type part struct {
	log     *log.Log
	entries []log.Entry
	at      []int       // their places among the outcomes
	more    []log.Entry // that have no outcome
}

// part returns the part for l. There is one for each store that is concerned,
// also if it has nothing to append: done waits for what was queued before.
func (b *batch) part(l *log.Log) *part {
	n := slices.IndexFunc(b.parts, func(p *part) bool { return p.log == l })
	if n < 0 {
		n, b.parts = len(b.parts), append(b.parts, &part{log: l})
	}
	return b.parts[n]
}

// accountImports adds to each part how many messages it imports into whose
// archive. The owners' stripes are held for writing, so nobody else imports into
// these meanwhile.
func (b *batch) accountImports() error {
	for _, p := range b.parts {
		counts := make(map[string]uint32)
		counted := make(map[string]bool)
		for _, e := range p.entries {
			m := e.Event.GetMessage()
			if m.GetReason() != log.Reason_REASON_IMPORT {
				continue
			}
			if e.OnceKey != "" {
				_, known, err := p.log.Appended(e.OnceOwner, e.OnceKey)
				if err != nil {
					return err
				}
				key := e.OnceOwner + "\x00" + e.OnceKey
				if known || counted[key] {
					continue // it is in the archive already
				}
				counted[key] = true
			}
			counts[m.GetOwner()]++
		}
		for _, owner := range slices.Sorted(maps.Keys(counts)) {
			_, host, _ := strings.Cut(owner, "@") // nobody else may import into it
			p.more = append(p.more, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Imported{
				Imported: &log.Imported{Owner: owner, Actor: host, Messages: counts[owner]},
			}}})
		}
	}
	return nil
}

// queue appends the parts.
func (b *batch) queue() error {
	if len(b.parts) == 0 {
		b.part(b.archive.log)
	}
	b.left.Store(int32(len(b.parts)))
	for n, p := range b.parts {
		err := p.log.Append(append(p.entries, p.more...), func(ids []ulid.ULID, err error) { b.land(p, ids, err) })
		switch {
		case err != nil && n == 0:
			b.archive.imports.release(b.imports)
			return err
		case err != nil:
			b.land(p, nil, err) // what is queued already can't be taken back
		}
	}
	return nil
}

func (b *batch) land(p *part, ids []ulid.ULID, err error) {
	if err != nil {
		err = b.archive.stanzaError(err)
	}
	for n, at := range p.at {
		if err != nil {
			b.outcomes[at].Err = err
		} else {
			b.outcomes[at].ID = ids[n]
		}
	}
	if b.left.Add(-1) > 0 {
		return
	}
	b.archive.imports.release(b.imports)
	b.done(b.outcomes)
}

// DeleteArchive lets owner's archive, preferences and retention end, because the
// account was deleted or the room destroyed: on return whoever gets the name next
// finds nothing. It need not be known here that there was one. What is hidden is
// erased soon after, as by Erase. An unknown host or a bad address is a
// *stanza.Error. actor is who did it.
func (a *Archive) DeleteArchive(ctx context.Context, owner jid.JID, actor string) error {
	_, bare, err := a.ownerOf(owner)
	if err != nil {
		return err
	}
	err = a.Changing(bare, func() error {
		var entries []log.Entry
		before, _, err := a.projections.Preferences(bare)
		if err != nil {
			return err
		}
		if before != nil {
			entries = append(entries, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Preferences{
				Preferences: &log.PreferencesChanged{Owner: bare, Before: before, Actor: actor, Cause: log.Cause_CAUSE_ACCOUNT_DELETED},
			}}})
		}
		entries = append(entries, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Account{
			Account: &log.AccountChanged{Owner: bare, Actor: actor},
		}}})
		// Whoever gave up waiting must not let messages in that the deletion, which
		// is coming all the same, is then not ordered after.
		if _, err := a.log.AppendWait(context.WithoutCancel(ctx), entries...); err != nil {
			return err
		}
		a.imports.forget(bare)
		return nil
	})
	if err == nil {
		a.EraseDeleted()
	}
	return err
}
