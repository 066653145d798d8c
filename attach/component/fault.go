package component

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	xstream "mellium.im/xmpp/stream"

	"mamlog/xep0313/stanza"
)

// fault is why a link is down, in words. Its kind comes from a small set.
type fault struct{ kind, text, advice string }

// errPlaintext: the address turned out to be one of another machine.
var errPlaintext = errors.New("the server is not on loopback, and without TLS the secret and all messages could be read on the way")

// handshakeError is what went wrong between the connection and the accepted
// handshake.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// remoteError is a stream error that the server sent on an open stream.
type remoteError struct{ condition, text string }

func (e *remoteError) Error() string {
	if e.text == "" {
		return e.condition
	}
	return e.condition + ": " + e.text
}

// errEnded: the server ended the stream in an orderly way.
var errEnded = errors.New("the server ended the stream")

// explain finds words for why a connection failed or ended, and for what to do.
func explain(l *link, err error) fault {
	var (
		refused   xstream.Error
		remote    *remoteError
		ours      *stanza.StreamError
		handshake handshakeError
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	server, domain := l.config.Server, l.domain
	if errors.As(err, &refused) { // in place of the handshake's answer
		remote = &remoteError{condition: refused.Err}
		if len(refused.Text) > 0 {
			remote.text = refused.Text[0].Value
		}
	}
	switch {
	case remote != nil || errors.As(err, &remote):
		return remote.explain(domain)
	case errors.Is(err, errEnded):
		return fault{"ended", err.Error(), "it is stopping, or the component or its module was reloaded; if this goes on, see its log"}
	case errors.Is(err, errPlaintext):
		return fault{"plaintext", err.Error(), "use tls or a tunnel, or set allow_plaintext if the network between is trusted"}
	case errors.As(err, &ours):
		return fault{"refused-input", "the server sent what is not allowed on a stream: " + ours.Error(), "see the log of the server; this should not happen"}
	case errors.As(err, &dns):
		return fault{"name", fmt.Sprintf("the name of %s can't be resolved: %s", server, dns.Err), "check the link's server, and the name service"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault{"refused", "nothing listens at " + server, "start the server, and see that its component port is open (Prosody: component_ports and component_interfaces; ejabberd: a listener with the module ejabberd_service)"}
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid):
		return fault{"certificate", "the server's certificate is not accepted: " + err.Error(), "set the link's ca to the certificate, or to the one that signed it, and server_name to a name that is in it"}
	case errors.As(err, &record):
		return fault{"tls", server + " does not speak TLS", "remove tls from the link, or turn it on at the server's listener"}
	case errors.As(err, &handshake) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || unexpectedEOF(err)):
		return fault{"closed", "the server closed the connection before it accepted the component", "see that this is its component port, that both ends agree on TLS, and that it knows the component " + domain}
	case timedOut(err):
		return fault{"timeout", server + " does not answer", "see whether the server hangs, or a firewall drops what is sent to it"}
	case errors.As(err, &handshake):
		return fault{"protocol", "the handshake failed: " + handshake.Error(), "see that this is the server's component port, and not the one for clients"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fault{"cut", "the connection was cut", ""}
	}
	return fault{"other", err.Error(), ""}
}

func (e *remoteError) explain(domain string) fault {
	switch e.condition {
	case "not-authorized":
		return fault{"secret", "the server does not accept the secret of the component " + domain, "give the link and the server the same one (Prosody: component_secret; ejabberd: password in the listener, where the component may be missing altogether)"}
	case "conflict":
		return fault{"conflict", "the server has another connection of the component " + domain, `if another mamlog is running, stop one of them; if the server holds a dead connection, let it replace that (Prosody: component_conflict_resolve = "kick_old")`}
	case "host-unknown", "host-gone":
		return fault{"domain", "the server does not know the component " + domain, "declare it at the server, or correct the link's domain (Prosody: Component \"" + domain + "\"; ejabberd: hosts of the listener)"}
	case "system-shutdown":
		return fault{"ended", "the server is stopping", ""}
	}
	return fault{"stream-error", "the server ended the stream: " + e.Error(), "see the log of the server"}
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// unexpectedEOF recognises what encoding/xml makes of a closed connection.
func unexpectedEOF(err error) bool { return strings.HasSuffix(err.Error(), "unexpected EOF") }
