package component

import (
	"bytes"
	"strconv"
	"time"

	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// maxPage is how many bytes of stanzas an answer may hold. The archive ends its
// pages long before; what is larger holds a message that is, and Prosody would end
// the stream over a stanza of 512 KiB.
const maxPage = 500 << 10

// query has a worker ask the archive what a client asks of it.
func (c *call) query() *stanza.Error {
	p := c.payload
	owner, se := c.owner()
	if se != nil {
		return se
	}
	asker, err := jid.Parse(p.Attr("asker"))
	if err != nil || asker.Localpart() == "" && asker.Resourcepart() == "" {
		return stanza.JIDMalformed("asker is the full JID that asks")
	}
	iq := p.Child(stanza.NSClient, "iq")
	if iq == nil {
		return stanza.BadRequest("there is no <iq/> of jabber:client in the query")
	}
	iq.SetAttr("from", asker.String())
	iq.SetAttr("to", owner.String()) // what it was sent to, the server has found out
	real := xep0313.RealJIDsOwn
	if p.Attr("real-jids") == "all" {
		real = xep0313.RealJIDsAll
	}
	rooms, asked := c.serves(), time.Now()
	return c.ask(owner, asker, func() {
		var page []byte
		stanzas := 0
		emit := func(b []byte) {
			page = append(page, b...)
			stanzas++
		}
		var handled bool
		if a := c.s.l.archive; rooms {
			handled = a.HandleRoomIQ(c.s.ctx, owner, asker, real, iq, emit)
		} else {
			handled = a.HandleIQ(c.s.ctx, iq, asker, emit)
		}
		if !handled {
			c.fail("query", stanza.BadRequest("this iq is none that is for an archive: its payload has to be in %s or %s, and its type get or set", xep0313.NS, xep0313.NSTrim))
			return
		}
		if len(page) > maxPage {
			stanzas, page = 1, iq.ReplyError(stanza.PolicyViolation("the page holds a message that is too large to be sent")).Bytes()
		}
		c.s.out.page(c.page(stanzas, page))
		c.s.l.metrics.queries.Observe(time.Since(asked).Seconds())
	})
}

// page is the answer with the stanzas in b.
func (c *call) page(stanzas int, b []byte) []byte {
	out := appendReply(make([]byte, 0, len(b)+256), "iq", "result", c.iq)
	out = append(out, `<page xmlns='`+NS+`' stanzas='`...)
	out = strconv.AppendInt(out, int64(stanzas), 10)
	out = append(out, `'><![CDATA[`...)
	for {
		i := bytes.Index(b, []byte("]]>"))
		if i < 0 {
			break
		}
		out = append(append(out, b[:i+2]...), `]]><![CDATA[`...)
		b = b[i+2:]
	}
	return append(append(out, b...), `]]></page></iq>`...)
}

// delete has a worker end what an owner has.
func (c *call) delete() *stanza.Error {
	owner, se := c.owner()
	if se != nil {
		return se
	}
	return c.later(owner, func() {
		if err := c.s.l.archive.DeleteArchive(c.s.ctx, owner, c.h.name); err != nil {
			c.fail("delete", asError(err))
			return
		}
		c.reply(nil)
	})
}

// ask is later for what a user asks, who may not take the place of others.
func (c *call) ask(owner, asker jid.JID, job func()) *stanza.Error {
	user := asker.Bare().String()
	if !c.s.asking.Enter(user) {
		return stanza.ResourceConstraint("%d requests of %s are waiting", c.s.l.limits.PerUser, user)
	}
	se := c.later(owner, func() {
		defer c.s.asking.Leave(user, 1)
		job()
	})
	if se != nil {
		c.s.asking.Leave(user, 1)
	}
	return se
}

// later gives the workers something to do, after all that was given to them for the
// same owner before.
func (c *call) later(owner jid.JID, job func()) *stanza.Error {
	c.s.l.waiting(1)
	if c.s.lanes.add(owner.String(), job) {
		return nil
	}
	c.s.l.waiting(-1)
	return stanza.ResourceConstraint("too many queries are waiting")
}

// owner is whose archive the request is about, which is one of the host's.
func (c *call) owner() (jid.JID, *stanza.Error) {
	owner, err := c.s.address(c.payload.Attr("owner"))
	switch {
	case err != nil, owner.Localpart() == "", owner.Resourcepart() != "":
		return owner, stanza.JIDMalformed("owner is the bare JID of an account or room")
	case owner.Domainpart() != c.h.name:
		return owner, stanza.Forbidden("that is not an address of %s", c.h.name)
	}
	return owner, nil
}
