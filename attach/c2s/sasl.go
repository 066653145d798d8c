package c2s

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/scram"
	"go.uber.org/zap"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"

	"mamlog/xep0313/stanza"
)

// saslFailure is a condition of RFC 6120 section 6.5.
type saslFailure string

func (f saslFailure) Error() string { return "SASL: " + string(f) }

const (
	saslAborted           saslFailure = "aborted"
	saslIncorrectEncoding saslFailure = "incorrect-encoding"
	saslInvalidAuthzid    saslFailure = "invalid-authzid"
	saslInvalidMechanism  saslFailure = "invalid-mechanism"
	saslMalformedRequest  saslFailure = "malformed-request"
	saslNotAuthorized     saslFailure = "not-authorized"
	saslTemporary         saslFailure = "temporary-auth-failure"
)

func mechanisms() []string {
	var names []string
	for _, h := range hashes {
		names = append(names, h.mechanism)
	}
	return append(names, "PLAIN")
}

// sasl is the stream feature of RFC 6120 section 6. mellium's own knows no
// stored SCRAM keys and lets a client try only once.
func (n *negotiation) sasl() xmpp.StreamFeature {
	f := xmpp.StreamFeature{
		Name:       xml.Name{Space: nsSASL, Local: "mechanisms"},
		Necessary:  xmpp.Secure,
		Prohibited: xmpp.Authn,
		List: func(_ context.Context, w xmlstream.TokenWriter, start xml.StartElement) (bool, error) {
			err := w.EncodeToken(start)
			for _, m := range mechanisms() {
				name := xml.StartElement{Name: xml.Name{Local: "mechanism"}}
				err = errors.Join(err, w.EncodeToken(name), w.EncodeToken(xml.CharData(m)), w.EncodeToken(name.End()))
			}
			return true, errors.Join(err, w.EncodeToken(start.End()))
		},
		Negotiate: func(_ context.Context, x *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, error) {
			r := x.TokenReader()
			defer r.Close()
			// The decoder matters: mellium's reader returns text at this depth
			// together with an error, which a decoder lets pass.
			c := &saslClient{n: n, d: xml.NewTokenDecoder(r)}
			if err := c.authenticate(); err != nil {
				return 0, nil, err
			}
			n.wire.Restart()
			return xmpp.Authn, n.wire, nil
		},
	}
	if n.s.c.AllowPlaintext {
		f.Necessary = 0 // New has seen to it that the listener is on loopback
	}
	return f
}

// saslClient is the other side of the exchange.
type saslClient struct {
	n *negotiation
	d *xml.Decoder
}

// saslElement is what a client sends: <auth/>, <response/> or <abort/>.
type saslElement struct {
	XMLName   xml.Name
	Mechanism string `xml:"mechanism,attr"`
	Data      string `xml:",chardata"`
}

// authenticate lets the client try until it succeeds or has failed too often.
func (c *saslClient) authenticate() error {
	s := c.n.s
	peer := c.n.conn.RemoteAddr().String()
	for failures := 0; failures < s.limits.Logins; {
		e, err := c.read()
		if err != nil {
			return err
		}
		if s.failures.Exceeded(peer) {
			// Whoever guesses must not learn whether this one was right.
			s.metrics.logins.WithLabelValues("other", "policy-violation").Inc()
			return &stanza.StreamError{Condition: "policy-violation", Text: "too many failed attempts to authenticate from your address; try again in a minute"}
		}
		account, mechanism, err := c.attempt(e)
		var failure saslFailure
		switch {
		case err == nil:
			c.n.account = account
			s.metrics.logins.WithLabelValues(mechanism, "success").Inc()
			return nil
		case !errors.As(err, &failure):
			return err
		}
		failures++
		s.failures.Note(peer)
		s.metrics.logins.WithLabelValues(mechanism, string(failure)).Inc()
		s.logger.Info("c2s: authentication failed", zap.Stringer("peer", c.n.conn.RemoteAddr()),
			zap.String("mechanism", mechanism), zap.String("condition", string(failure)))
		if err := c.send("<failure xmlns='%s'><%s/></failure>", nsSASL, string(failure)); err != nil {
			return err
		}
	}
	return &stanza.StreamError{Condition: "policy-violation", Text: "too many failed attempts to authenticate"}
}

// attempt is one exchange. mechanism is one of ours or "other", to be a label.
func (c *saslClient) attempt(e saslElement) (account jid.JID, mechanism string, err error) {
	mechanism = "other"
	switch e.XMLName.Local {
	case "auth":
	case "abort":
		return account, mechanism, saslAborted
	default:
		return account, mechanism, saslMalformedRequest
	}
	var run func([]byte) (jid.JID, []byte, error)
	for i, h := range hashes {
		if h.mechanism == e.Mechanism {
			mechanism = h.mechanism
			run = func(initial []byte) (jid.JID, []byte, error) { return c.scram(i, initial) }
		}
	}
	if e.Mechanism == "PLAIN" {
		mechanism, run = "PLAIN", c.plain
	}
	if run == nil {
		return account, mechanism, saslInvalidMechanism
	}
	var initial []byte
	if e.Data = strings.TrimSpace(e.Data); e.Data == "" {
		// No initial response: all our mechanisms start with the client.
		initial, err = c.challenge(nil)
	} else {
		initial, err = decode(e.Data)
	}
	if err != nil {
		return account, mechanism, err
	}
	account, last, err := run(initial)
	if err != nil {
		return account, mechanism, err
	}
	return account, mechanism, c.send("<success xmlns='%s'>%s</success>", nsSASL, encode(last))
}

// scram is RFC 5802 and RFC 7677.
func (c *saslClient) scram(which int, first []byte) (jid.JID, []byte, error) {
	h := hashes[which]
	var account jid.JID
	var lookUp error
	server, err := h.scram.NewServer(func(user string) (scram.StoredCredentials, error) {
		account, lookUp = c.user(user)
		if lookUp != nil {
			return scram.StoredCredentials{}, lookUp
		}
		k, err := c.n.s.lookUp(account.String(), h.mechanism)
		if lookUp = err; err != nil {
			return scram.StoredCredentials{}, err
		}
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(k.Salt), Iters: int(k.Iterations)},
			StoredKey:  k.StoredKey, ServerKey: k.ServerKey,
		}, nil
	})
	if err != nil {
		return jid.JID{}, nil, err
	}
	conversation := server.NewConversation()
	answer, err := conversation.Step(string(first))
	if err != nil {
		return jid.JID{}, nil, c.failure(lookUp, saslMalformedRequest)
	}
	final, err := c.challenge([]byte(answer))
	if err != nil {
		return jid.JID{}, nil, err
	}
	answer, err = conversation.Step(string(final))
	switch {
	case answer == "" && err != nil:
		return jid.JID{}, nil, saslMalformedRequest
	case err != nil, !conversation.Valid():
		return jid.JID{}, nil, saslNotAuthorized
	}
	return account, []byte(answer), c.authzid(conversation.AuthzID(), account)
}

// plain is RFC 4616.
func (c *saslClient) plain(b []byte) (jid.JID, []byte, error) {
	parts := strings.Split(string(b), "\x00")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" || !utf8.Valid(b) {
		return jid.JID{}, nil, saslMalformedRequest
	}
	account, err := c.user(parts[1])
	if err != nil {
		return jid.JID{}, nil, c.failure(err, saslMalformedRequest)
	}
	ok, err := c.n.s.verify(account.String(), parts[2])
	if err != nil {
		return jid.JID{}, nil, c.failure(err, saslTemporary)
	}
	if !ok {
		return jid.JID{}, nil, saslNotAuthorized
	}
	return account, nil, c.authzid(parts[0], account)
}

// user is the account that a user name means on this stream's host. Some clients
// send the bare JID instead of its localpart.
func (c *saslClient) user(name string) (jid.JID, error) {
	if local, ok := strings.CutSuffix(name, "@"+c.n.host); ok {
		name = local
	}
	account, err := jid.New(name, c.n.host, "")
	if err != nil || account.Localpart() == "" {
		return jid.JID{}, saslNotAuthorized
	}
	return account, nil
}

func (c *saslClient) authzid(asked string, account jid.JID) error {
	if asked == "" {
		return nil
	}
	if j, err := jid.Parse(asked); err != nil || !j.Equal(account) {
		return saslInvalidAuthzid
	}
	return nil
}

// failure is err if that is for the client, and otherwise what it is to be told:
// fallback, unless reading the accounts failed.
func (c *saslClient) failure(err error, fallback saslFailure) error {
	var f saslFailure
	switch {
	case errors.As(err, &f):
		return f
	case err != nil:
		c.n.s.logger.Error("c2s: authentication", zap.Error(err))
		return saslTemporary
	}
	return fallback
}

// challenge sends b and returns the client's response.
func (c *saslClient) challenge(b []byte) ([]byte, error) {
	if err := c.send("<challenge xmlns='%s'>%s</challenge>", nsSASL, encode(b)); err != nil {
		return nil, err
	}
	e, err := c.read()
	switch {
	case err != nil:
		return nil, err
	case e.XMLName.Local == "abort":
		return nil, saslAborted
	case e.XMLName.Local != "response":
		return nil, saslMalformedRequest
	}
	return decode(strings.TrimSpace(e.Data))
}

func (c *saslClient) read() (e saslElement, err error) {
	for {
		t, err := c.d.Token()
		if err != nil {
			return e, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if t.Name.Space != nsSASL {
				return e, &stanza.StreamError{Condition: "not-authorized", Text: "authenticate first"}
			}
			err = c.d.DecodeElement(&e, &t)
			return e, err
		case xml.EndElement:
			return e, io.EOF
		}
	}
}

// send writes one element past mellium's encoder, which has nothing waiting.
func (c *saslClient) send(format string, args ...any) error {
	_, err := fmt.Fprintf(c.n.wire, format, args...)
	return err
}

// decode takes "=" for empty data (RFC 6120 section 6.4.2).
func decode(s string) ([]byte, error) {
	if s == "=" {
		return nil, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, saslIncorrectEncoding
	}
	return b, nil
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
