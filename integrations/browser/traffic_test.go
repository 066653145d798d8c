package browser

import (
	"slices"
	"sync"

	"mamlog/cmd/mamlog/conformance"
)

const (
	mamQuery  = "{urn:xmpp:mam:2}query"
	mamResult = "{urn:xmpp:mam:2}result"
	mamFin    = "{urn:xmpp:mam:2}fin"
)

// page is a query that the client sent to an archive, and what came of it.
type page struct {
	iq, queryID string
	with        string
	before      string // the id in RSM, or ""
	ids, bodies []string
	answer      *conformance.Element // nil until it has come
}

func (p page) complete() bool { return p.answer.Child(mamFin).Attr("complete") == "true" }

// traffic is what went over the WebSocket and concerns archives. It is safe for
// concurrent use.
type traffic struct {
	mu    sync.Mutex
	pages []page
}

// sent notes a frame of the client.
func (tr *traffic) sent(frame string) {
	e, err := conformance.ParseElement(frame)
	if err != nil {
		return // the client's framing is not judged here
	}
	query := e.Child(mamQuery)
	if query == nil {
		return
	}
	p := page{iq: e.Attr("id"), queryID: query.Attr("queryid"), before: query.Child("set", "before").Content()}
	if form := query.Child("{jabber:x:data}x"); form != nil {
		for _, field := range form.Children {
			if field.Attr("var") == "with" {
				p.with = field.Child("value").Content()
			}
		}
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.pages = append(tr.pages, p)
}

// received notes a frame of the server.
func (tr *traffic) received(frame string) {
	e, err := conformance.ParseElement(frame)
	if err != nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	result := e.Child(mamResult)
	for i := range tr.pages {
		p := &tr.pages[i]
		switch {
		case e.Name.Local == "iq" && e.Attr("id") == p.iq:
			p.answer = e
		case result != nil && result.Attr("queryid") == p.queryID:
			p.ids = append(p.ids, result.Attr("id"))
			p.bodies = append(p.bodies, result.Child("forwarded", "message", "body").Content())
		}
	}
}

// seen returns the pages so far, in the order of the queries.
func (tr *traffic) seen() []page {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.pages)
}
