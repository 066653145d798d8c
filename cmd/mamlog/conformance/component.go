package conformance

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net"
	"time"
)

// DialComponent connects as an external component (XEP-0114). What the Client
// reads is shown in the namespace of client streams.
func DialComponent(ctx context.Context, addr, domain, secret string) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, patience: patience, signal: make(chan struct{}, 1), Bare: domain, JID: domain, space: nsComponent, from: " from='" + escape(domain) + "'"}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	dec, err := c.handshake(domain, secret)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting as %s: %w", domain, err)
	}
	_ = conn.SetDeadline(time.Time{})
	go c.read(dec)
	return c, nil
}

func (c *Client) handshake(domain, secret string) (*xml.Decoder, error) {
	err := c.Send("<?xml version='1.0'?><stream:stream xmlns='" + nsComponent + "' xmlns:stream='" + nsStream + "' to='" + domain + "'>")
	if err != nil {
		return nil, err
	}
	dec := xml.NewDecoder(c.conn)
	start, err := streamHeader(dec)
	if err != nil {
		return nil, err
	}
	id := ""
	for _, a := range start.Attr {
		if a.Name.Local == "id" {
			id = a.Value
		}
	}
	sum := sha1.Sum([]byte(id + secret))
	if err := c.Send("<handshake>" + hex.EncodeToString(sum[:]) + "</handshake>"); err != nil {
		return nil, err
	}
	answer, err := nextElement(dec)
	if err != nil {
		return nil, err
	}
	if answer.Name.Local != "handshake" {
		return nil, fmt.Errorf("refused: %s", answer)
	}
	return dec, nil
}

// rename moves elements from one namespace into another.
func (e *Element) rename(from, to string) {
	if e.Name.Space == from {
		e.Name.Space = to
	}
	for _, c := range e.Children {
		c.rename(from, to)
	}
}

// AcceptComponent plays the server to a component that has connected: whatever
// secret it has will do.
func AcceptComponent(conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, patience: patience, signal: make(chan struct{}, 1), space: nsComponent}
	dec := xml.NewDecoder(conn)
	start, err := streamHeader(dec)
	if err != nil {
		return nil, err
	}
	for _, a := range start.Attr {
		if a.Name.Local == "to" {
			c.Bare, c.JID = a.Value, a.Value
		}
	}
	err = c.Send("<?xml version='1.0'?><stream:stream xmlns='" + nsComponent + "' xmlns:stream='" + nsStream + "' id='" + newID() + "' from='" + escape(c.JID) + "'>")
	if err != nil {
		return nil, err
	}
	if e, err := nextElement(dec); err != nil || e.Name.Local != "handshake" {
		return nil, fmt.Errorf("want a handshake, got %v, %v", e, err)
	}
	if err := c.Send("<handshake/>"); err != nil {
		return nil, err
	}
	go c.read(dec)
	return c, nil
}
