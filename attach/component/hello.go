package component

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// version is the one that is spoken here.
const version = 1

// greeting is what a module says of itself in a hello.
type greeting struct {
	version    int
	rooms      bool
	software   string
	spool      int64 // messages
	spoolBytes int64
	fault      string
}

// greeted tells whether the host said hello on this stream.
func (c *call) greeted() bool {
	c.s.l.mu.Lock()
	defer c.s.l.mu.Unlock()
	return c.h.greeted
}

func (c *call) serves() (rooms bool) {
	c.s.l.mu.Lock()
	defer c.s.l.mu.Unlock()
	return c.h.greeting.rooms
}

func (c *call) hello() *stanza.Error {
	p := c.payload
	if !slices.Contains(strings.Fields(p.Attr("versions")), strconv.Itoa(version)) {
		c.note(greeting{software: bounded(p.Attr("software"), 100), fault: "it speaks none of the versions of the attach protocol that mamlog does"}, false)
		return stanza.FeatureNotImplemented("mamlog speaks version %d of %s", version, "the attach protocol")
	}
	g := greeting{
		version: version, software: bounded(p.Attr("software"), 100), fault: bounded(p.Attr("error"), 500),
	}
	switch p.Attr("serves") {
	case "accounts":
	case "rooms":
		g.rooms = true
	default:
		return stanza.BadRequest("serves is accounts or rooms")
	}
	for _, n := range []struct {
		name string
		to   *int64
	}{{"spool", &g.spool}, {"spool-bytes", &g.spoolBytes}} {
		v, given := p.LookupAttr(n.name)
		if !given {
			continue
		}
		var err error
		if *n.to, err = strconv.ParseInt(v, 10, 64); err != nil || *n.to < 0 {
			return stanza.BadRequest("%s is a number of at least 0", n.name)
		}
	}
	c.note(g, true)
	c.reply(c.welcome(g.rooms))
	return nil
}

// note keeps what the host said.
func (c *call) note(g greeting, ok bool) {
	l := c.s.l
	l.mu.Lock()
	news := !c.h.greeted && ok
	c.h.greeting, c.h.greeted, c.h.at = g, ok, time.Now()
	l.mu.Unlock()
	l.metrics.spool(c.h.name, g)
	if news {
		l.logger.Info("link: a host is served", hostFields(c.h.name, g)...)
	}
}

func (c *call) welcome(rooms bool) []byte {
	limits := c.s.l.limits
	w := stanza.New(NS, "welcome", "version", strconv.Itoa(version), "software", "mamlog",
		"max-batch", strconv.Itoa(limits.MaxBatch), "max-bytes", strconv.Itoa(limits.MaxBytes), "window", strconv.Itoa(limits.Window))
	features := xep0313.Features()
	if rooms {
		features = xep0313.RoomFeatures()
	}
	for _, f := range features {
		w.Add(stanza.New(NS, "feature", "var", f))
	}
	return w.Append(nil, nsAccept)
}

// bounded cuts what a module says of itself, which is shown to people, and copies
// it, since it is kept.
func bounded(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.Clone(s)
}
