package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// pageSize is what the peers' clients ask for, and what their servers allow.
const pageSize = 50

// pageKind is one of the ways in which clients read an archive.
type pageKind struct {
	ID, Name string
	with     string // only messages with this contact
	walk     walk
}

// walk is where the next page is.
type walk int

const (
	newest  walk = iota // always the last page
	forward             // from the oldest message on, page by page
	deep                // from the middle back, page by page
)

var pageKinds = []pageKind{
	{"newest", "newest page", "", newest},
	{"forward", "forward walk", "", forward},
	{"deep", "back from the middle", "", deep},
	{"frequent", "newest page, with= 1 in 20", frequentContact, newest},
	{"rare", "newest page, with= 1 in 10,000", rareContact, newest},
}

// deepPages is how far a walk goes back from the middle before it starts there
// again.
const deepPages = 100

// pager is a client that reads one archive, and compares every body.
type pager struct {
	*conn
	contents *contents

	kind   pageKind
	set    sequence
	at     int    // in set: where the next page begins, or for deep ends
	cursor string // archive id that stands there
	middle string // archive id of the message in the middle
	pages  int    // of a deep walk
}

func newPager(ctx context.Context, s *system, c *contents, resource string) (*pager, error) {
	conn, err := dial(ctx, s.server, c.User, resource)
	if err != nil {
		return nil, err
	}
	return &pager{conn: conn, contents: c}, nil
}

// begin starts with pages of a kind.
func (p *pager) begin(k pageKind) error {
	p.kind, p.set, p.at, p.cursor, p.pages = k, p.contents.having(k.with), 0, "", 0
	if k.walk != deep || p.middle != "" {
		return nil
	}
	middle := p.contents.N / 2
	r, err := p.request(field("start", p.contents.at(middle).UTC().Format(time.RFC3339)), "<max>1</max>", sequence{middle, 1, 1})
	p.middle = r.first
	return err
}

func field(name, value string) string {
	return "<field var='" + name + "'><value>" + value + "</value></field>"
}

// next reads one page.
func (p *pager) next() error {
	fields := ""
	if p.kind.with != "" {
		fields = field("with", p.kind.with)
	}
	switch p.kind.walk {
	case newest:
		n := min(pageSize, p.set.n)
		_, err := p.request(fields, "<max>50</max><before/>", sequence{p.set.at(p.set.n - n), p.set.every, n})
		return err
	case forward:
		after := ""
		if p.at > 0 {
			after = "<after>" + p.cursor + "</after>"
		}
		n := min(pageSize, p.set.n-p.at)
		r, err := p.request(fields, "<max>50</max>"+after, sequence{p.set.at(p.at), p.set.every, n})
		p.cursor = r.last
		if p.at += n; p.at >= p.set.n {
			p.at = 0
		}
		return err
	case deep:
		if p.pages == 0 || p.at == 0 {
			p.at, p.cursor, p.pages = p.set.n/2, p.middle, deepPages
		}
		p.pages--
		n := min(pageSize, p.at)
		p.at -= n
		r, err := p.request(fields, "<max>50</max><before>"+p.cursor+"</before>", sequence{p.set.at(p.at), p.set.every, n})
		p.cursor = r.first
		return err
	}
	panic("bench: no such walk")
}

// ends are the archive ids of a page's first and last message.
type ends struct{ first, last string }

// request asks for a page, which must have exactly the messages want, in order.
func (p *pager) request(fields, set string, want sequence) (e ends, err error) {
	if fields != "" {
		fields = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>" + fields + "</x>"
	}
	got := 0
	_, err = p.ask("set", "", "<query xmlns='urn:xmpp:mam:2' queryid='q'>"+fields+"<set xmlns='http://jabber.org/protocol/rsm'>"+set+"</set></query>", func(m []byte) error {
		result := bytes.Index(m, []byte("<result"))
		if result < 0 {
			return nil // not of this page
		}
		if got == want.n {
			return &pageError{fmt.Errorf("the page has more than %d messages", want.n)}
		}
		id := string(attr(m[result:], "id"))
		if got == 0 {
			e.first = id
		}
		e.last = id
		err := p.check(m[result:], want.at(got))
		got++
		return err
	})
	if err == nil && got != want.n {
		err = &pageError{fmt.Errorf("the page has %d messages, want %d", got, want.n)}
	}
	if err != nil {
		err = fmt.Errorf("%s of %d: %w", p.kind.Name, p.contents.N, err)
	}
	return e, err
}

// check compares a result with what the archive was filled with.
func (p *pager) check(result []byte, index int) error {
	i := bytes.Index(result, []byte(idPrefix))
	if i < 0 || len(result) < i+36 {
		return &pageError{fmt.Errorf("a result without a message: %s", result)}
	}
	if n, ok := sequenceNumber(result[i : i+36]); !ok || n != uint64(index) {
		return &pageError{fmt.Errorf("message %d came where message %d belongs", n, index)}
	}
	if sum(between(result, "<body>", "</body>")) != p.contents.sums[index] {
		return &pageError{fmt.Errorf("message %d has another body", index)}
	}
	return nil
}

// reading is what readPages found.
type reading struct {
	rate    float64                 // right pages a second
	latency *hdrhistogram.Histogram // of the right pages; microseconds
	wrong   int                     // pages that were not what they should be
	first   error                   // says how the first of them was
}

// readPages lets the clients read pages for so long, each at least one. A page
// that is wrong doesn't count, and its client begins anew.
func readPages(ctx context.Context, clients []*pager, k pageKind, d time.Duration) (r reading, err error) {
	for _, p := range clients {
		if err := p.begin(k); err != nil {
			return r, err
		}
	}
	r.latency = newHistogram()
	var mu sync.Mutex // over what follows
	right := 0
	var wg sync.WaitGroup
	started := time.Now()
	for _, p := range clients {
		wg.Go(func() {
			for first := true; ctx.Err() == nil && (first || time.Since(started) < d); first = false {
				at := time.Now()
				bad := p.next()
				took := time.Since(at)
				var answered *pageError
				if errors.As(bad, &answered) {
					bad = errors.Join(bad, p.begin(k))
				}
				mu.Lock()
				switch {
				case answered != nil:
					if r.wrong++; r.first == nil {
						r.first = bad
					}
				case bad != nil:
					err = errors.Join(err, bad)
				default:
					right++
					err = errors.Join(err, r.latency.RecordValue(max(took.Microseconds(), 1)))
				}
				mu.Unlock()
				if bad != nil && answered == nil {
					return
				}
			}
		})
	}
	wg.Wait()
	r.rate = float64(right) / time.Since(started).Seconds()
	return r, errors.Join(err, ctx.Err())
}

// pageError says that a server answered, and wrongly.
type pageError struct{ error }

func (e *pageError) Unwrap() error { return e.error }
