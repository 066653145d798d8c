package component

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// maxKey is how long the key of an append may be, in bytes.
const maxKey = 256

// maxMessage is how many bytes a message may have as it is archived: more would
// not fit into a page, and whoever sent it to somebody would have closed a part of
// their archive to them. Written anew a message may be several times as large as it
// came, but that of a small iq isn't too large.
const (
	maxMessage   = maxPage - 32<<10
	harmlessSize = 64 << 10
)

// outcome is what is answered for one append that the archive isn't asked about:
// the condition of an error. Empty: it is asked.
type outcome string

// batch hands the appends of <batch/> to the archive.
func (c *call) batch() *stanza.Error {
	var appends []*stanza.Element
	for _, n := range c.payload.Nodes {
		if n.Element != nil && n.Element.Is(NS, "append") {
			appends = append(appends, n.Element)
		}
	}
	l := c.s.l
	switch n := len(appends); {
	case n == 0:
		return stanza.BadRequest("the batch is empty")
	case n > l.limits.MaxBatch:
		return stanza.PolicyViolation("a batch holds at most %d appends", l.limits.MaxBatch)
	}
	sides, outcomes := c.sides(appends)
	started := time.Now()
	n := len(appends)
	if !c.s.flying.enter(n) {
		return nil // the stream ends
	}
	l.metrics.inFlight.Add(float64(n))
	settle := func() {
		l.metrics.inFlight.Sub(float64(n))
		c.s.flying.leave(n)
	}
	answer := func(done []xep0313.Outcome) {
		c.archived(outcomes, done)
		l.meter.appended(n, time.Now(), time.Since(started))
		l.metrics.latency.Observe(time.Since(started).Seconds())
		settle()
	}
	if len(sides) == 0 {
		answer(nil)
		return nil
	}
	if err := l.archive.Append(sides, answer); err != nil {
		settle()
		return asError(err)
	}
	return nil
}

// sides makes what the archive is asked of the appends, and says which of them it
// isn't asked.
func (c *call) sides(appends []*stanza.Element) ([]xep0313.Side, []outcome) {
	rooms := c.serves()
	outcomes := make([]outcome, len(appends))
	sides := make([]xep0313.Side, 0, len(appends))
	for i, a := range appends {
		side, bad := c.side(a, appends, rooms)
		if bad == "" && c.size > harmlessSize && len(side.Stanza.Bytes()) > maxMessage {
			bad = "policy-violation"
		}
		if outcomes[i] = bad; bad == "" {
			sides = append(sides, side)
		}
	}
	return sides, outcomes
}

func (c *call) side(a *stanza.Element, appends []*stanza.Element, rooms bool) (side xep0313.Side, bad outcome) {
	var err error
	var sender string
	for _, attr := range a.Attrs {
		if attr.Space != "" {
			continue
		}
		v := attr.Value
		switch attr.Local {
		case "dir":
			side.Direction = directions[v]
		case "owner":
			side.Owner, err = c.s.address(v)
		case "peer":
			side.Peer, err = c.s.address(v)
		case "key":
			side.Key = v
		case "contact":
			side.Contact = v == "true" || v == "1"
		case "stamp":
			if side.Stamp, err = time.Parse(time.RFC3339, v); err != nil {
				return side, "bad-request"
			}
		case "sender":
			sender = v
		case "whois":
			side.Whois = v == "anyone"
		case "import":
			side.Import = v == "true" || v == "1"
		case "ref":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > len(appends) {
				return side, "bad-request"
			}
			side.Stanza = appends[n-1].Child(stanza.NSClient, "message")
		}
		if err != nil {
			return side, "jid-malformed"
		}
	}
	if sender != "" {
		if side.Sender, err = c.s.address(sender); err != nil {
			return side, "jid-malformed"
		}
	}
	if side.Stanza == nil {
		side.Stanza = a.Child(stanza.NSClient, "message")
	}
	switch {
	case side.Stanza == nil, side.Key == "", len(side.Key) > maxKey, side.Peer.Domainpart() == "",
		side.Owner.Localpart() == "", side.Owner.Resourcepart() != "",
		side.Direction == log.Direction_DIRECTION_UNSPECIFIED,
		(side.Direction == log.Direction_DIRECTION_ROOM) != rooms,
		side.Import && side.Stamp.IsZero():
		return side, "bad-request"
	case side.Owner.Domainpart() != c.h.name:
		return side, "forbidden"
	}
	return side, ""
}

var directions = map[string]log.Direction{
	"in":   log.Direction_DIRECTION_IN,
	"out":  log.Direction_DIRECTION_OUT,
	"room": log.Direction_DIRECTION_ROOM,
}

// archived answers a batch: with what was known before, and with what the archive
// says of the rest.
func (c *call) archived(outcomes []outcome, done []xep0313.Outcome) {
	m := &c.s.l.metrics
	b := appendReply(make([]byte, 0, 200+len(outcomes)*(ulid.EncodedSize+1)), "iq", "result", c.iq)
	b = append(b, `<archived xmlns='`+NS+`'>`...)
	for i, bad := range outcomes {
		if i > 0 {
			b = append(b, ' ')
		}
		var o xep0313.Outcome
		if bad == "" {
			o, done = done[0], done[1:]
			if o.Err != nil {
				bad = outcome(asError(o.Err).Condition)
			}
		}
		switch {
		case bad != "":
			m.failed.Inc()
			b = append(append(b, '!'), bad...)
		case o.ID == ulid.ULID{}:
			m.skipped.Inc()
			b = append(b, '-')
		default:
			m.archived.Inc()
			b = slices.Grow(b, ulid.EncodedSize)[:len(b)+ulid.EncodedSize] // an iq's id may be of any length
			if err := o.ID.MarshalTextTo(b[len(b)-ulid.EncodedSize:]); err != nil {
				panic("component: " + err.Error()) // only a buffer of the wrong size fails
			}
		}
	}
	c.write(append(b, `</archived></iq>`...))
}

// asError is what the server is told of an error of the archive.
func asError(err error) *stanza.Error {
	return xep0313.Refusal(err)
}

// salvage reads a batch that can't be parsed by parsing its appends one by one; an
// empty one stands for each that is refused. It returns nil if b is something else.
func (s *stream) salvage(b []byte) *stanza.Element {
	outer, inner := startTags(b)
	if inner == 0 || inner > maxStartTags || b[inner-2] == '/' {
		return nil
	}
	before := b[:inner:inner]
	after := "</" + tagName(bytes.TrimLeft(b[outer:], " \t\r\n")) + "></" + tagName(b) + ">"
	iq, err := s.parse(append(before, after...))
	if err != nil || !iq.First().Is(NS, "batch") {
		return nil
	}
	batch := iq.First()
	appends := &frames{in: bufio.NewReader(bytes.NewReader(b[inner:])), limit: len(b)}
	for {
		f, err := appends.next()
		if err == io.EOF { // the end tag of the batch
			return iq
		}
		if err != nil || len(batch.Nodes) > s.l.limits.MaxBatch {
			return nil
		}
		one, err := s.parse(append(append(before, f.bytes...), after...))
		if err != nil {
			batch.Add(stanza.New(NS, "append"))
		} else if child := one.First().First(); child != nil {
			batch.Add(child)
		}
	}
}

// maxStartTags is how long the start tags of a batch may be that is salvaged: they
// are read once for every append.
const maxStartTags = 4 << 10

// tagName is the name of the start tag that b begins with, as it is written.
func tagName(b []byte) string {
	name := b[1:]
	if i := bytes.IndexAny(name, " \t\r\n/>"); i >= 0 {
		name = name[:i]
	}
	return string(name)
}
