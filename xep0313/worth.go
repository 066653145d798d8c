package xep0313

import (
	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// Why a message is not archived. These are labels of a metric, never content.
const (
	skipType        = "type"        // headline; groupchat, or in a room anything else
	skipError       = "error"       // an error that answers nothing its reader sent
	skipHint        = "hint"        // XEP-0334
	skipCopy        = "copy"        // an archive's result or a carbon: archived already
	skipEmpty       = "nothing"     // no content worth keeping
	skipPreferences = "preferences" // the owner's preferences or the host's policy
	skipSmart       = "smart"       // mam_smart_enable, and the archive was never used
	skipExpired     = "expired"     // an import that is older than the retention
	skipDeleted     = "deleted"     // it waited, and the account was deleted since
)

// rule says that a child element makes a message worth archiving. An empty
// local name stands for any.
type rule struct {
	space, local string
	reason       log.Reason
}

// The rules of XEP-0313 section 6.1 and of the extensions that ask for the
// archive, in the order in which the reason is named.
var rules = []rule{
	{stanza.NSClient, "body", log.Reason_REASON_BODY},
	{NSHints, "store", log.Reason_REASON_STORE_HINT},
	{stanza.NSClient, "subject", log.Reason_REASON_SUBJECT},
	{"urn:xmpp:eme:0", "encryption", log.Reason_REASON_ENCRYPTED},                // XEP-0380
	{"eu.siacs.conversations.axolotl", "encrypted", log.Reason_REASON_ENCRYPTED}, // XEP-0384 0.3
	{"urn:xmpp:omemo:2", "encrypted", log.Reason_REASON_ENCRYPTED},               // XEP-0384
	{"urn:xmpp:openpgp:0", "openpgp", log.Reason_REASON_ENCRYPTED},               // XEP-0373
	{"jabber:x:encrypted", "x", log.Reason_REASON_ENCRYPTED},                     // XEP-0027
	{"urn:xmpp:receipts", "received", log.Reason_REASON_RECEIPT},                 // XEP-0184
	{"urn:xmpp:chat-markers:0", "received", log.Reason_REASON_MARKER},            // XEP-0333
	{"urn:xmpp:chat-markers:0", "displayed", log.Reason_REASON_MARKER},           //
	{"urn:xmpp:chat-markers:0", "acknowledged", log.Reason_REASON_MARKER},        //
	{"jabber:x:conference", "x", log.Reason_REASON_INVITE},                       // XEP-0249
	{"urn:xmpp:jingle-message:0", "", log.Reason_REASON_CALL},                    // XEP-0353
	{"urn:xmpp:call-invites:0", "", log.Reason_REASON_CALL},                      // XEP-0482
	{"urn:xmpp:message-retract:1", "retract", log.Reason_REASON_RETRACTION},      // XEP-0424
	{"urn:xmpp:reactions:0", "reactions", log.Reason_REASON_REACTION},            // XEP-0444
}

// worth tells whether a message, apart from its owner's preferences, should be
// archived, in a room's archive or in an account's: by which rule, or else why
// not. Errors are not judged here.
func worth(m *stanza.Element, room bool) (log.Reason, string) {
	switch t := m.Attr("type"); {
	case t == "headline", t == "error", room != (t == "groupchat"):
		return 0, skipType
	}
	var delayed bool
	found := len(rules)
	invite := false
	for _, n := range m.Nodes {
		e := n.Element
		if e == nil {
			continue
		}
		switch e.Space {
		case NS, "urn:xmpp:carbons:2":
			if e.Local == "result" || e.Local == "received" || e.Local == "sent" {
				return 0, skipCopy
			}
		case NSHints:
			if e.Local == "no-store" || e.Local == "no-permanent-store" {
				return 0, skipHint
			}
		case NSDelay:
			delayed = true
		case nsMUCUser:
			invite = invite || e.Child(e.Space, "invite") != nil || e.Child(e.Space, "decline") != nil
		}
		for i, r := range rules[:found] {
			if r.reason == log.Reason_REASON_RETRACTION && e.Attr("id") == "" {
				continue // of nothing
			}
			if r.space == e.Space && (r.local == "" || r.local == e.Local) {
				found = i
				break
			}
		}
	}
	switch {
	case found == len(rules) && invite:
		return log.Reason_REASON_INVITE, ""
	case found == len(rules):
		return 0, skipEmpty
	}
	reason := rules[found].reason
	if delayed && (reason == log.Reason_REASON_MARKER || reason == log.Reason_REASON_RECEIPT) {
		return 0, skipCopy // delivered once more from somewhere's store
	}
	return reason, ""
}

// worthImporting is worth for what another archive has found worth it already.
// What only one of rooms and accounts may hold stays out of the other.
func worthImporting(m *stanza.Element, room bool) (log.Reason, string) {
	switch {
	case room != (m.Attr("type") == "groupchat"):
		return 0, skipType
	case m.First() == nil:
		return 0, skipEmpty
	}
	return log.Reason_REASON_IMPORT, ""
}
