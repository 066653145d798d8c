package bench

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// contents are the messages of one archive: the same for everybody who is
// measured, and known to who verifies the pages.
type contents struct {
	User string // of the account that owns the archive
	N    int

	text     *text
	seed     uint64
	start    time.Time // of the first message
	step     time.Duration
	cumulate []float64
	sums     []uint64 // of the bodies
}

// span is what an archive covers, whatever its size: size alone is compared.
const span = 2 * 365 * 24 * time.Hour

// Every frequentEvery-th message is with the frequent contact, and so on; the
// others are spread over contacts as people's are.
const (
	frequentEvery, frequentAt = 20, 3
	rareEvery, rareAt         = 10000, 5000

	frequentContact = "frequent@far.example"
	rareContact     = "rare@far.example"
)

// newContents has n messages that end shortly before now.
func newContents(t *text, seed uint64, user string, n int, now time.Time) *contents {
	c := &contents{
		User: user, N: n, text: t, seed: seed, cumulate: zipf(contacts, contactZipf),
		step: max(span/time.Duration(n), time.Second).Truncate(time.Second), sums: make([]uint64, n),
	}
	c.start = now.Add(-time.Duration(n) * c.step).Truncate(time.Second)
	for m := range c.all() {
		c.sums[m.Index] = sum(m.Body)
	}
	return c
}

var sumSeed = maphash.MakeSeed()

func sum[T string | []byte](body T) uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	_, _ = h.WriteString(string(body))
	return h.Sum64()
}

// message is one message of an archive.
type message struct {
	Index   int
	At      time.Time // whole seconds
	Contact string    // bare JID
	Out     bool      // the owner sent it
	Body    string
}

// all yields the messages, oldest first. The same one is changed for each.
func (c *contents) all() iter.Seq[*message] {
	return func(yield func(*message) bool) {
		var pcg rand.PCG
		rng := rand.New(&pcg)
		var m message
		for i := range c.N {
			pcg.Seed(c.seed, uint64(i))
			m = message{Index: i, At: c.at(i), Out: rng.IntN(2) == 0, Contact: c.contact(i, rng), Body: c.text.body(rng)}
			if !yield(&m) {
				return
			}
		}
	}
}

// inOrder yields the messages of all archives in the order of their times, as a
// server would have got them.
func inOrder(all []*contents) iter.Seq2[*contents, *message] {
	return func(yield func(*contents, *message) bool) {
		type source struct {
			contents *contents
			next     func() (*message, bool)
			head     *message
		}
		var sources []*source
		for _, c := range all {
			next, stop := iter.Pull(c.all())
			defer stop()
			if m, ok := next(); ok {
				sources = append(sources, &source{c, next, m})
			}
		}
		for len(sources) > 0 {
			first := slices.MinFunc(sources, func(a, b *source) int { return a.head.At.Compare(b.head.At) })
			if !yield(first.contents, first.head) {
				return
			}
			var ok bool
			if first.head, ok = first.next(); !ok {
				sources = slices.DeleteFunc(sources, func(s *source) bool { return s == first })
			}
		}
	}
}

func (c *contents) at(i int) time.Time { return c.start.Add(time.Duration(i) * c.step) }

func (c *contents) contact(i int, rng *rand.Rand) string {
	rank := rankAt(c.cumulate, rng.Float64())
	switch {
	case i%rareEvery == rareAt:
		return rareContact
	case i%frequentEvery == frequentAt:
		return frequentContact
	}
	return fmt.Sprintf("contact%d@far.example", rank)
}

// having are the indices of the messages with a contact that comes regularly; ""
// is all of them.
func (c *contents) having(contact string) sequence {
	switch contact {
	case "":
		return sequence{0, 1, c.N}
	case frequentContact:
		return sequence{frequentAt, frequentEvery, (c.N - frequentAt + frequentEvery - 1) / frequentEvery}
	case rareContact:
		return sequence{rareAt, rareEvery, max(0, (c.N-rareAt+rareEvery-1)/rareEvery)}
	}
	panic("bench: " + contact + " is no regular contact")
}

// sequence are n indices.
type sequence struct{ first, every, n int }

func (s sequence) at(i int) int { return s.first + i*s.every }

// idPrefix makes the ids that clients give look as theirs do, and carry a number.
const idPrefix = "00000000-0000-4000-8000-"

func stanzaID(n uint64) string {
	s := strconv.FormatUint(n, 16)
	return idPrefix + "000000000000"[len(s):] + s
}

// addresses of the message in the archive of user@host.
func (m *message) addresses(user, host string) (from, to string) {
	if m.Out {
		return user + "@" + host + "/desk", m.Contact
	}
	return m.Contact + "/phone", user + "@" + host
}

// payload is what clients put into a message: a body, an origin-id (XEP-0359), a
// request for a receipt (XEP-0184) and for a chat marker (XEP-0333).
func payload(b *strings.Builder, id, body string) {
	b.WriteString("<body>")
	b.WriteString(body)
	b.WriteString("</body><origin-id xmlns='urn:xmpp:sid:0' id='")
	b.WriteString(id)
	b.WriteString("'/><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>")
}

// xml is the stanza as a server archives it, with its own namespace where xmlns
// is set.
func (m *message) xml(user, host string, xmlns bool) string {
	from, to := m.addresses(user, host)
	id := stanzaID(uint64(m.Index))
	var b strings.Builder
	b.Grow(400 + len(m.Body))
	b.WriteString("<message xml:lang='en' to='")
	b.WriteString(to)
	b.WriteString("' from='")
	b.WriteString(from)
	b.WriteString("' type='chat' id='")
	b.WriteString(id)
	if xmlns {
		b.WriteString("' xmlns='jabber:client")
	}
	b.WriteString("'>")
	payload(&b, id, m.Body)
	b.WriteString("</message>")
	return b.String()
}
