package c2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"mamlog/xep0313/stanza"
)

// door counts the connections, from accept to close, and those of them that are
// not logged in yet: who has no password must not use up what those need who do.
type door struct {
	connections, strangers int // limits

	mu         sync.Mutex
	in, logins int // all, and those that are not logged in
}

// admit takes c in; refused tells why it can't be.
func (d *door) admit(c *net.TCPConn) (a *admitted, refused string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.in >= d.connections:
		return nil, "connections"
	case d.logins >= d.strangers:
		return nil, "logins"
	}
	d.in++
	d.logins++
	return &admitted{TCPConn: c, door: d}, ""
}

func (d *door) count() (in, logins int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.in, d.logins
}

// admitted is a connection that was counted.
type admitted struct {
	*net.TCPConn
	door *door

	// Guarded by door.mu.
	known, gone bool
}

// loggedIn makes room for another stranger.
func (a *admitted) loggedIn() {
	a.door.mu.Lock()
	defer a.door.mu.Unlock()
	if !a.known && !a.gone {
		a.known = true
		a.door.logins--
	}
}

// Close makes room for another connection.
func (a *admitted) Close() error {
	a.door.mu.Lock()
	if !a.gone {
		a.gone = true
		a.door.in--
		if !a.known {
			a.door.logins--
		}
	}
	a.door.mu.Unlock()
	return a.TCPConn.Close()
}

// guarded is a listener that lets in whom the door lets in.
type guarded struct {
	net.Listener
	s        *Server
	turnAway func(net.Conn, string) // closes it
}

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, reason := g.s.door.admit(c.(*net.TCPConn))
		if a != nil {
			return a, nil
		}
		g.s.metrics.refused.WithLabelValues(reason).Inc()
		g.turnAway(c, reason)
	}
}

// maxRefusals is how many are told at once why they can't come in; the others are
// not told.
const maxRefusals = 64

// turnAway tells a client on TCP why it is closed (RFC 6120 section 4.9.3.17).
// It does not block.
func (s *Server) turnAway(c net.Conn, reason string) {
	select {
	case s.refusals <- struct{}{}:
	default:
		c.Close()
		return
	}
	go func() {
		defer func() { <-s.refusals }()
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		text := "the server has as many connections as it may"
		if reason == "logins" {
			text = "too many connections are logging in; try again later"
		}
		b := openStream()
		for _, w := range lastWords(&stanza.StreamError{Condition: "resource-constraint", Text: text}, false) {
			b = append(b, w...)
		}
		if _, err := c.Write(b); err != nil {
			return
		}
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // to close with unread bytes would take the words back
	}()
}

// openStream is a stream header of ours, for who must be told something before
// there is a stream.
func openStream() []byte {
	return fmt.Appendf(nil, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s' version='1.0' id='%s'>",
		stanza.NSClient, nsStream, rand.Text())
}

type admittedKey struct{}

// withAdmitted lets an HTTP handler find the connection.
func withAdmitted(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, admittedKey{}, c)
}
