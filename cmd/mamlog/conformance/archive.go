package conformance

import (
	"fmt"
	"strconv"
)

// Archived is one message of an archive, as a result page shows it.
type Archived struct {
	ID      string
	Stamp   string
	Message *Element
}

// Body is the message's text.
func (a Archived) Body() string { return a.Message.Child("body").Content() }

// Page is the answer to one query.
type Page struct {
	Messages []Archived
	Fin      *Element
}

// Complete reports whether nothing is left in the paging direction.
func (p Page) Complete() bool { return p.Fin.Attr("complete") == "true" }

// Count is RSM's count, or -1 without one.
func (p Page) Count() int {
	n, err := strconv.Atoi(p.Fin.Child("set", "count").Content())
	if err != nil {
		return -1
	}
	return n
}

// Ask sends a query in the words of a transcript's "asks:" and reads the page.
// Anything else that arrives meanwhile is an error.
func (c *Client) Ask(words string) (Page, error) {
	var p Page
	q, err := buildQuery(words, Vars{})
	if err != nil {
		return p, err
	}
	if err := c.Send(q.xml); err != nil {
		return p, err
	}
	for {
		e, err := c.Next()
		if err != nil {
			return p, err
		}
		if e.Name.Local == "iq" && e.Attr("id") == q.id {
			if p.Fin = e.Child("{" + nsMAM + "}fin"); p.Fin == nil {
				return p, fmt.Errorf("asked %q: %s", words, e)
			}
			return p, nil
		}
		result := e.Child("{" + nsMAM + "}result")
		if result == nil || result.Attr("queryid") != q.id {
			return p, fmt.Errorf("asked %q, and got:\n%s", words, e)
		}
		p.Messages = append(p.Messages, Archived{
			ID:      result.Attr("id"),
			Stamp:   result.Child("forwarded", "delay").Attr("stamp"),
			Message: result.Child("forwarded", "{"+nsClient+"}message"),
		})
	}
}

// Walk pages forwards through everything that matches.
func (c *Client) Walk(words string, max int) ([]Archived, error) {
	var all []Archived
	after := ""
	for {
		p, err := c.Ask(words + " max=" + strconv.Itoa(max) + after)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Messages...)
		if p.Complete() {
			return all, nil
		}
		if len(p.Messages) == 0 {
			return nil, fmt.Errorf("an empty page that is not complete, after %d messages", len(all))
		}
		after = " after=" + p.Messages[len(p.Messages)-1].ID
	}
}

// StanzaID is the id by the archive of owner that a live message carries, and
// how many there are.
func StanzaID(message *Element, owner string) (id string, n int) {
	for _, c := range message.Children {
		if c.Name.Space == nsSID && c.Name.Local == "stanza-id" && c.Attr("by") == owner {
			id = c.Attr("id")
			n++
		}
	}
	return id, n
}
