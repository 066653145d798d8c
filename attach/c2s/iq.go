package c2s

import (
	"runtime/debug"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

const (
	nsPing      = "urn:xmpp:ping"
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
	nsDiscoItem = "http://jabber.org/protocol/disco#items"
	nsVersion   = "jabber:iq:version"
)

// iq takes an iq from the client (RFC 6120 section 8.2.3, RFC 6121 section 8.5).
func (x *session) iq(e *stanza.Element) {
	typ := e.Attr("type")
	to := &address{jid: x.jid.Bare(), text: "", bare: x.bare, local: true, user: true}
	if text := e.Attr("to"); text != "" {
		to = x.address(text)
	}
	if typ == "result" || typ == "error" { // never answered
		if to != nil && to.local && to.resource != "" {
			x.routeIQ(e, to)
		}
		return
	}
	payload := e.First()
	var refusal *stanza.Error
	switch {
	case typ != "get" && typ != "set":
		refusal = stanza.BadRequest("the type of an iq is get, set, result or error")
	case e.Attr("id") == "":
		refusal = stanza.BadRequest("an iq has an id")
	case payload == nil || len(e.Elements()) != 1:
		refusal = stanza.BadRequest("an iq of type %s has exactly one child element", typ)
	case to == nil:
		refusal = stanza.JIDMalformed("%q is not an address", e.Attr("to"))
	case !to.local:
		refusal = remoteServerNotFound(to)
	case to.user && to.resource != "":
		x.routeIQ(e, to)
		return
	case !to.user && to.resource != "":
		refusal = unavailable(payload)
	case !to.user:
		x.serverIQ(e, payload)
		return
	case to.bare != x.bare:
		x.othersIQ(e, payload)
		return
	default:
		x.accountIQ(e, payload)
		return
	}
	x.replyBehind(e.ReplyError(refusal))
}

func unavailable(payload *stanza.Element) *stanza.Error {
	return stanza.ServiceUnavailable("<%s xmlns='%s'/> is not known here", payload.Local, payload.Space)
}

// replyBehind answers when what the client sent before is done.
func (x *session) replyBehind(e *stanza.Element) {
	b := e.Bytes()
	x.flights.behind(func() bool {
		x.out.put(b)
		return false
	})
}

// routeIQ passes an iq to another resource.
func (x *session) routeIQ(e *stanza.Element, to *address) {
	e.SetAttr("to", to.text)
	b := e.Bytes()
	x.flights.behind(func() bool {
		request := e.Attr("type") == "get" || e.Attr("type") == "set"
		if !x.s.users.toFull(to.bare, to.resource, b) && request {
			x.answer(e.ReplyError(stanza.ServiceUnavailable("that resource is not connected")))
		}
		return false
	})
}

// accountIQ answers what is for the client's own account.
func (x *session) accountIQ(e, payload *stanza.Element) {
	get := e.Attr("type") == "get"
	switch {
	case xep0313.Answers(payload.Space):
		x.archiveIQ(e, payload)
	case payload.Is(nsRoster, "query"):
		x.rosterIQ(e, payload)
	case payload.Is(nsCarbons, "enable") && !get, payload.Is(nsCarbons, "disable") && !get:
		x.setCarbons(e, payload.Local == "enable")
	case payload.Is(nsSession, "session") && !get:
		x.replyBehind(e.Reply("result"))
	case payload.Is(nsPing, "ping") && get:
		x.replyBehind(e.Reply("result"))
	case payload.Is(nsDiscoInfo, "query") && get:
		x.disco(e, payload, "account", "registered", "", accountFeatures())
	case payload.Is(nsDiscoItem, "query") && get:
		x.replyBehind(e.Reply("result").Add(stanza.New(nsDiscoItem, "query")))
	default:
		x.replyBehind(e.ReplyError(unavailable(payload)))
	}
}

// serverIQ answers what is for one of the hosts.
func (x *session) serverIQ(e, payload *stanza.Element) {
	get := e.Attr("type") == "get"
	switch {
	case payload.Is(nsPing, "ping") && get, payload.Is(nsSession, "session") && !get:
		x.replyBehind(e.Reply("result"))
	case payload.Is(nsDiscoInfo, "query") && get:
		x.disco(e, payload, "server", "im", "mamlog", serverFeatures())
	case payload.Is(nsDiscoItem, "query") && get:
		x.replyBehind(e.Reply("result").Add(stanza.New(nsDiscoItem, "query")))
	case payload.Is(nsVersion, "query") && get:
		x.replyBehind(e.Reply("result").Add(stanza.New(nsVersion, "query").Add(
			stanza.New(nsVersion, "name").AddText("mamlog"),
			stanza.New(nsVersion, "version").AddText(version()))))
	default:
		x.replyBehind(e.ReplyError(unavailable(payload)))
	}
}

// othersIQ answers what is for the account of somebody else: nothing of theirs
// is for anybody to see, and whether they exist neither.
func (x *session) othersIQ(e, payload *stanza.Element) {
	if xep0313.Answers(payload.Space) {
		x.archiveIQ(e, payload) // it says forbidden
		return
	}
	x.replyBehind(e.ReplyError(stanza.ServiceUnavailable("that account doesn't answer you")))
}

// archiveIQ hands a request to the archive, from the worker. A page waits until
// the client has read most of what came before it.
func (x *session) archiveIQ(e, payload *stanza.Element) {
	if !x.s.queries.Enter(x.bare) {
		x.replyBehind(e.ReplyError(stanza.ResourceConstraint("%d requests of yours are waiting; send more when they are answered", x.s.limits.Queries)))
		return
	}
	x.asking.Add(1)
	x.later(func() {
		defer func() {
			x.asking.Add(-1)
			x.s.queries.Leave(x.bare, 1)
		}()
		if !x.out.room() {
			return
		}
		a := newAnswer()
		if !x.s.c.Archive.HandleIQ(x.ctx, e, x.jid, a.add) {
			a.add(e.ReplyError(unavailable(payload)).Bytes())
		}
		x.out.putAnswer(a)
	})
}

// disco answers a disco#info query (XEP-0030 section 3).
func (x *session) disco(e, payload *stanza.Element, category, typ, name string, features []string) {
	if payload.Attr("node") != "" {
		x.replyBehind(e.ReplyError(stanza.ItemNotFound("there is no such node")))
		return
	}
	q := stanza.New(nsDiscoInfo, "query")
	id := stanza.New(nsDiscoInfo, "identity", "category", category, "type", typ)
	id.SetAttr("name", name)
	q.Add(id)
	for _, f := range features {
		q.Add(stanza.New(nsDiscoInfo, "feature", "var", f))
	}
	x.replyBehind(e.Reply("result").Add(q))
}

func accountFeatures() []string {
	return append([]string{nsDiscoInfo, nsDiscoItem, nsPing, nsCarbons, nsRoster}, xep0313.Features()...)
}

func serverFeatures() []string {
	return append([]string{nsDiscoInfo, nsDiscoItem, nsPing, nsVersion, nsCarbons, nsRoster}, xep0313.Features()...)
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
