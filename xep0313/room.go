package xep0313

import (
	"context"
	"strings"

	"mellium.im/xmpp/jid"

	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// RoomFeatures are what a room advertises in disco#info for its archive.
func RoomFeatures() []string {
	return []string{NS, NSExtended, NSStanzaID, NSRSM, NSRetract, NSTombstone}
}

// RealJIDs is whose real JIDs an asker may see in the archive of a room.
type RealJIDs int

const (
	RealJIDsOwn RealJIDs = iota // their own, and those that the room showed to all
	RealJIDsAll                 // all senders'
)

// HandleRoomIQ is HandleIQ for the archive of a room (XEP-0313 section 6.1.2).
// That asker may read it, and whose real JIDs they may see, is for the caller to
// find out at the time of the query: mamlog knows nothing of affiliations. Answers
// come from the room's bare JID.
//
// In a query, with= is an occupant JID, which finds what was sent under that
// nickname, or the room's own bare JID, which finds everything. Real JIDs find
// nothing, whoever asks: an answer that depends on them could tell who is who.
func (a *Archive) HandleRoomIQ(ctx context.Context, room, asker jid.JID, realJIDs RealJIDs, iq *stanza.Element, emit func([]byte)) (handled bool) {
	r, ok := a.request(iq, room, asker, emit)
	if !ok {
		return false
	}
	r.iq = iq.Copy()
	r.iq.SetAttr("from", asker.String())
	r.iq.SetAttr("to", r.owner)
	r.room, r.realJIDs = true, realJIDs
	a.handle(ctx, r)
	return true
}

// sender is the real JID that the answer to r shows with row, "" for none.
func (r *request) sender(row *projections.Row) string {
	if !r.room || row.Sender == "" {
		return ""
	}
	if row.Whois || r.realJIDs == RealJIDsAll {
		return row.Sender
	}
	if bare, _, _ := strings.Cut(row.Sender, "/"); bare == r.asker.Bare().String() {
		return row.Sender
	}
	return ""
}

// appendWithSender appends a room's message with its sender's real JID, as
// presence in a non-anonymous room has it (XEP-0045 section 7.2.3).
func appendWithSender(b, message []byte, sender string) []byte {
	b = appendOpen(b, message)
	b = append(b, senderHead...)
	b = stanza.AppendEscaped(b, sender)
	return append(b, senderTail...)
}

const (
	senderHead = `<x xmlns='` + nsMUCUser + `'><item jid='`
	senderTail = `'/></x>` + endMessage
)
