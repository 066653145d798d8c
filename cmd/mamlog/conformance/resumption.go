package conformance

import (
	"encoding/xml"
	"fmt"
	"strconv"
)

// Manage turns stream management on (XEP-0198) and returns the id by which the
// stream can be resumed.
func (c *Client) Manage() (id string, err error) {
	if err := c.Send("<enable xmlns='" + nsSM + "' resume='true'/>"); err != nil {
		return "", err
	}
	e, err := c.Next()
	if err != nil {
		return "", err
	}
	if e.Name.Local != "enabled" || e.Attr("id") == "" {
		return "", fmt.Errorf("want a stream that can be resumed, got %s", e)
	}
	return e.Attr("id"), nil
}

// Handled is how many stanzas have arrived since Manage.
func (c *Client) Handled() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handled
}

// manage reads an element of stream management; c.mu is held.
func (c *Client) manage(e *Element) {
	switch e.Name.Local {
	case "enabled":
		c.handled = 0
		c.queue = append(c.queue, e)
	case "r":
		if c.NoAcks {
			return
		}
		_ = c.Send("<a xmlns='" + nsSM + "' h='" + strconv.FormatUint(uint64(c.handled), 10) + "'/>")
	case "a": // what the server has handled, which no case asks for
	default:
		c.queue = append(c.queue, e)
	}
}

// resume takes up another connection's stream instead of binding a resource.
func (c *Client) resume(dec *xml.Decoder, o DialOptions) error {
	err := c.Send("<resume xmlns='" + nsSM + "' previd='" + escape(o.Resume) + "' h='" + strconv.FormatUint(uint64(o.Handled), 10) + "'/>")
	if err != nil {
		return err
	}
	answer, err := nextElement(dec)
	if err != nil {
		return err
	}
	if answer.Name.Local != "resumed" {
		return fmt.Errorf("resuming failed: %s", answer)
	}
	taken, err := strconv.ParseUint(answer.Attr("h"), 10, 32)
	if err != nil {
		return fmt.Errorf("resumed without a count: %s", answer)
	}
	c.Taken = uint32(taken)
	c.Bare = o.User + "@" + o.Domain
	c.JID = c.Bare + "/" + o.Resource
	c.handled = o.Handled
	return nil
}
