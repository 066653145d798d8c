package c2s

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stream"
	"mellium.im/xmpp/websocket"

	"mamlog/attach/wire"
	"mamlog/xep0313/stanza"
)

const (
	nsTLS     = "urn:ietf:params:xml:ns:xmpp-tls"
	nsSASL    = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSession = "urn:ietf:params:xml:ns:xmpp-session"
	nsStream  = "http://etherx.jabber.org/streams"
	nsStreams = "urn:ietf:params:xml:ns:xmpp-streams"
)

// negotiation is one client's way to a bound resource (RFC 6120 sections 5 to 7),
// up to where mellium knows it. It belongs to one goroutine.
type negotiation struct {
	s       *Server
	conn    net.Conn   // as it was accepted
	wire    *wire.Conn // now: over TLS after STARTTLS
	framed  bool       // WebSocket
	host    string     // of the stream that is open
	account jid.JID    // bare, after authentication
	session *session   // after binding

	loggedIn func() // called when it is
}

// negotiate logs the client on n.wire in. It returns nil after telling it why
// that failed.
func (n *negotiation) negotiate(ctx context.Context, secure bool) *session {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// mellium would set the deadline only when ctx ends, and take it back at
	// once; so it is set here.
	n.conn.SetDeadline(time.Now().Add(n.s.limits.LoginTimeout))
	var state xmpp.SessionState
	if secure {
		state |= xmpp.Secure
	}
	_, err := xmpp.ReceiveSession(ctx, n.wire, state, n.negotiator())
	if err == nil && n.session == nil {
		err = errors.New("the negotiation ended without a resource")
	}
	if err != nil {
		n.refuse(err)
		if n.session != nil {
			n.session.gone()
		}
		return nil
	}
	n.conn.SetDeadline(time.Time{})
	n.loggedIn()
	return n.session
}

func (n *negotiation) negotiator() xmpp.Negotiator {
	var inner xmpp.Negotiator
	if n.framed {
		inner = websocket.Negotiator(n.config)
	} else {
		inner = xmpp.NewNegotiator(n.config)
	}
	return func(ctx context.Context, in, out *stream.Info, s *xmpp.Session, data any) (xmpp.SessionState, io.ReadWriter, any, error) {
		// mellium compares the addresses of a stream header with those of the
		// header before, and refuses clients that name themselves only in some of
		// them. Who the client is, SASL tells; the host is checked in config.
		in.From, in.To = jid.JID{}, jid.JID{}
		return inner(ctx, in, out, s, data)
	}
}

// config is called by mellium when a stream header was read and answered.
func (n *negotiation) config(x *xmpp.Session, _ *xmpp.StreamConfig) xmpp.StreamConfig {
	if x != nil {
		to := x.LocalAddr()
		n.host = to.Domainpart()
		switch {
		case !n.s.hosts[n.host]:
			n.wire.Refuse(&stanza.StreamError{Condition: "host-unknown", Text: fmt.Sprintf("%q is not served here", n.host)})
		case !n.account.Equal(jid.JID{}) && n.account.Domainpart() != n.host:
			n.wire.Refuse(&stanza.StreamError{Condition: "host-unknown", Text: "the host changed after authentication"})
		}
	}
	features := []xmpp.StreamFeature{n.sasl(), xmpp.BindCustom(n.bind), sessionFeature()}
	if !n.framed {
		features = append([]xmpp.StreamFeature{n.startTLS()}, features...)
	}
	return xmpp.StreamConfig{Lang: "en", Features: features}
}

// startTLS is mellium's, with the encrypted connection wrapped again. Where a
// login in plain text is allowed it is offered and not required.
func (n *negotiation) startTLS() xmpp.StreamFeature {
	f := xmpp.StartTLS(n.s.tls)
	negotiate := f.Negotiate
	f.Negotiate = func(ctx context.Context, x *xmpp.Session, data any) (xmpp.SessionState, io.ReadWriter, error) {
		state, rw, err := negotiate(ctx, x, data)
		if c, ok := rw.(net.Conn); ok {
			n.wire = n.wire.Over(c)
			rw = n.wire
		}
		return state, rw, err
	}
	if n.s.c.AllowPlaintext {
		f.Prohibited |= xmpp.Authn
		f.List = func(_ context.Context, w xmlstream.TokenWriter, start xml.StartElement) (bool, error) {
			return false, errors.Join(w.EncodeToken(start), w.EncodeToken(start.End()))
		}
	}
	return f
}

// sessionFeature tells clients from before RFC 6121 that they need no session;
// some of them establish one all the same, and get an answer (iq.go).
func sessionFeature() xmpp.StreamFeature {
	return xmpp.StreamFeature{
		Name:      xml.Name{Space: nsSession, Local: "session"},
		Necessary: xmpp.Authn,
		List: func(_ context.Context, w xmlstream.TokenWriter, start xml.StartElement) (bool, error) {
			optional := xml.StartElement{Name: xml.Name{Local: "optional"}}
			return false, errors.Join(w.EncodeToken(start), w.EncodeToken(optional),
				w.EncodeToken(optional.End()), w.EncodeToken(start.End()))
		},
	}
}

// bind gives the client the resource that it asks for, or a random one where it
// asks for none or for one that can't be. Who has it already is sent away with
// <conflict/> (RFC 6120 section 7.7.2.2), and gone before this returns.
func (n *negotiation) bind(_ jid.JID, resource string) (jid.JID, error) {
	full, err := n.account.WithResource(resource)
	if resource == "" || err != nil {
		if full, err = n.account.WithResource(rand.Text()[:12]); err != nil {
			return jid.JID{}, err
		}
	}
	x := newSession(n.s, full, n.conn)
	for {
		old := n.s.users.add(x)
		if old == nil {
			break
		}
		old.fail(&stanza.StreamError{Condition: "conflict", Text: "the resource was bound by another connection"})
		select {
		case <-old.left:
		case <-time.After(n.s.limits.CloseTimeout):
			return jid.JID{}, &stanza.StreamError{Condition: "resource-constraint", Text: "the resource is still in use"}
		}
	}
	n.session = x
	// The account may have been deleted since it was authenticated, and Kick
	// have missed this session.
	if ok, err := n.s.c.Accounts.Exists(n.account); err != nil {
		return jid.JID{}, err
	} else if !ok {
		return jid.JID{}, &stanza.StreamError{Condition: "not-authorized", Text: "the account was deleted"}
	}
	return full, nil
}

// refuse tells the client why its stream ends, if it is there to be told.
func (n *negotiation) refuse(err error) {
	se := n.streamError(err)
	if se == nil {
		return // it left
	}
	n.s.logger.Info("c2s: login failed", zap.Stringer("peer", n.conn.RemoteAddr()),
		zap.String("host", n.host), zap.String("condition", se.Condition), zap.String("reason", se.Text))
	n.conn.SetDeadline(time.Now().Add(n.s.limits.CloseTimeout))
	w := n.wire
	w.Refuse(nil)
	if !w.Spoken() && !n.framed {
		w.Write(openStream())
	}
	for _, b := range lastWords(se, n.framed) {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// streamError finds the condition for what went wrong; nil if the client left.
func (n *negotiation) streamError(err error) *stanza.StreamError {
	var ours *stanza.StreamError
	var theirs stream.Error
	var syntax *xml.SyntaxError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &theirs):
		if theirs.Err == "policy-violation" && n.session == nil {
			// mellium's word for anything but a feature that was offered.
			return &stanza.StreamError{Condition: "not-authorized", Text: "log in and bind a resource first"}
		}
		return &stanza.StreamError{Condition: theirs.Err}
	case errors.As(err, &syntax) && syntax.Msg == "unexpected EOF", errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	case errors.As(err, &syntax):
		return &stanza.StreamError{Condition: "not-well-formed", Text: syntax.Msg}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return &stanza.StreamError{Condition: "connection-timeout", Text: "the login took too long"}
	case errors.Is(err, net.ErrClosed):
		return nil
	}
	var network net.Error
	if errors.As(err, &network) {
		return nil
	}
	return &stanza.StreamError{Condition: "bad-format", Text: err.Error()}
}

// lastWords are a stream error, if there is one, and the end of the stream, each
// in an element of its own for WebSocket (RFC 7395 section 3.4).
func lastWords(se *stanza.StreamError, framed bool) [][]byte {
	var words [][]byte
	if se != nil {
		e := stanza.New(nsStream, "error").Add(stanza.New(nsStreams, se.Condition))
		if se.Text != "" {
			e.Add(stanza.New(nsStreams, "text").AddText(se.Text))
		}
		b := []byte("<stream:error xmlns:stream='" + nsStream + "'>")
		for _, c := range e.Elements() {
			b = append(b, c.Bytes()...)
		}
		words = append(words, append(b, "</stream:error>"...))
	}
	if framed {
		return append(words, []byte("<close xmlns='"+websocket.NS+"'/>"))
	}
	return append(words, []byte("</stream:stream>"))
}
