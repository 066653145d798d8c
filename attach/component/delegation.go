package component

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// A server without a module can still let its clients ask: it delegates the
// namespace of archives to the component (XEP-0355), and the results come back as
// messages that the component may send in the account's name (XEP-0356). Nothing
// can be captured that way. The server checks nothing for the component: that an
// archive is asked by its owner is found out here.

const (
	delegationNS = "urn:xmpp:delegation:" // and a version, 1 or 2
	privilegeNS  = "urn:xmpp:privilege:"  // likewise
)

// grants are the namespaces in which the server granted things on the stream that
// is open; empty where it didn't. They are guarded by link.mu.
type grants struct{ delegation, privilege string }

// complete tells whether clients can ask.
func (g grants) complete() bool { return g.delegation != "" && g.privilege != "" }

// granted takes a message in which a host tells what it delegates (XEP-0355 section
// 4.2) or permits (XEP-0356 section 4.2), and tells whether it was one.
func (s *stream) granted(message *stanza.Element) bool {
	h := s.l.spoken[message.Attr("from")]
	if h == nil || !s.l.config.Delegation {
		return false
	}
	var got grants
	for _, e := range message.Elements() {
		switch {
		case e.Local == "delegation" && versioned(e.Space, delegationNS):
			for _, d := range e.Elements() {
				if d.Is(e.Space, "delegated") && d.Attr("namespace") == xep0313.NS {
					got.delegation = strings.Clone(e.Space)
				}
			}
		case e.Local == "privilege" && versioned(e.Space, privilegeNS):
			for _, p := range e.Elements() {
				if p.Is(e.Space, "perm") && p.Attr("access") == "message" && p.Attr("type") == "outgoing" {
					got.privilege = strings.Clone(e.Space)
				}
			}
		}
	}
	if got == (grants{}) {
		return false
	}
	s.l.mu.Lock()
	before := h.grants
	h.grants = grants{cmp.Or(got.delegation, before.delegation), cmp.Or(got.privilege, before.privilege)}
	news := h.grants.complete() && !before.complete()
	s.l.mu.Unlock()
	if news {
		s.l.logger.Info("link: a host lets its clients ask, without a module: its messages are not archived", zap.String("host", h.name))
	}
	return true
}

func versioned(space, prefix string) bool {
	v, ok := strings.CutPrefix(space, prefix)
	return ok && (v == "1" || v == "2")
}

func (c *call) grants() grants {
	c.s.l.mu.Lock()
	defer c.s.l.mu.Unlock()
	return c.h.grants
}

// delegated has a worker ask the archive what the server passed on (XEP-0355
// section 4.3). Whoever asks is answered inside of the result: of an error for the
// request itself ejabberd makes an answer that has lost its id.
func (c *call) delegated() *stanza.Error {
	if !c.s.l.config.Delegation {
		return stanza.ServiceUnavailable("delegation is off for this link")
	}
	var iq *stanza.Element
	if f := c.payload.Child(xep0313.NSForward, "forwarded"); f != nil {
		iq = f.Child(stanza.NSClient, "iq")
	}
	if iq == nil {
		return stanza.BadRequest("there is no <iq/> of jabber:client in the delegation")
	}
	asker, err := jid.Parse(iq.Attr("from"))
	if err != nil {
		return stanza.JIDMalformed("the delegated iq has no from")
	}
	refuse := func(se *stanza.Error) *stanza.Error {
		c.write(c.delegationOf(iq.ReplyError(se).Bytes(), nil))
		return nil
	}
	if asker.Localpart() == "" || asker.Resourcepart() == "" || asker.Domainpart() != c.h.name {
		return refuse(stanza.Forbidden("only accounts of %s have archives here", c.h.name))
	}
	asked := time.Now()
	se := c.ask(asker.Bare(), asker, func() {
		var answer [][]byte
		if !c.s.l.archive.HandleIQ(c.s.ctx, iq, asker, func(b []byte) { answer = append(answer, bytes.Clone(b)) }) {
			answer = [][]byte{iq.ReplyError(stanza.ServiceUnavailable("")).Bytes()}
		}
		g := c.grants()
		results, end := answer[:len(answer)-1], answer[len(answer)-1]
		if len(results) > 0 && g.privilege == "" {
			results, end = nil, iq.ReplyError(stanza.ServiceUnavailable("the server does not let the archive send results (XEP-0356)")).Bytes()
		}
		var out []byte
		for _, r := range results {
			out = append(out, `<message from='`...)
			out = stanza.AppendEscaped(out, c.s.l.domain)
			out = append(out, `' to='`...)
			out = stanza.AppendEscaped(out, c.iq.Attr("from"))
			out = append(append(append(out, `'><privilege xmlns='`...), g.privilege...), `'><forwarded xmlns='`+xep0313.NSForward+`'>`...)
			out = append(append(out, r...), `</forwarded></privilege></message>`...)
		}
		c.s.out.page(c.delegationOf(end, out))
		c.s.l.metrics.queries.Observe(time.Since(asked).Seconds())
	})
	if se != nil {
		return refuse(se)
	}
	return nil
}

// delegationOf appends to out the reply with the answer to what was delegated.
func (c *call) delegationOf(iq, out []byte) []byte {
	out = appendReply(out, "iq", "result", c.iq)
	out = append(append(append(out, `<delegation xmlns='`...), c.payload.Space...), `'><forwarded xmlns='`+xep0313.NSForward+`'>`...)
	return append(append(out, iq...), `</forwarded></delegation></iq>`...)
}

// nestedInfo answers what a server asks before it delegates (XEP-0355 section 7.2):
// which features the namespace brings to accounts. For the server's own address it
// brings nothing, and an error says so best: with any other answer ejabberd announces
// an archive there. Neither trims nor retractions are delegated.
func (c *call) nestedInfo(node string) *stanza.Error {
	if c.h == nil || !c.s.l.config.Delegation || node != delegationNS+"1:bare:"+xep0313.NS && node != delegationNS+"2:bare:"+xep0313.NS {
		return stanza.ItemNotFound("")
	}
	q := stanza.New(nsInfo, "query", "node", node)
	for _, f := range xep0313.ReadFeatures() {
		q.Add(stanza.New(nsInfo, "feature", "var", f))
	}
	c.reply(q.Append(nil, nsAccept))
	return nil
}
