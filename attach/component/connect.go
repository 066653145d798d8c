package component

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	xep0114 "mellium.im/xmpp/component"

	"mamlog/attach/wire"
)

const (
	nsAccept  = xep0114.NSAccept
	nsStream  = "http://etherx.jabber.org/streams"
	nsStreams = "urn:ietf:params:xml:ns:xmpp-streams"
)

// connect opens the stream (XEP-0114 section 3).
func (l *link) connect(ctx context.Context) (*wire.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limits.ConnectTimeout)
	defer cancel()
	// Dead peers are found by probes: 15 s of silence, then three 5 s apart; and
	// what was sent and isn't acknowledged, by the timeout in deadPeer.
	d := net.Dialer{Control: deadPeer, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	conn, err := d.DialContext(ctx, "tcp", l.config.Server)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	w, err := l.open(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return w, nil
}

func (l *link) open(ctx context.Context, conn net.Conn) (*wire.Conn, error) {
	if l.config.TLS != nil {
		c := tls.Client(conn, l.config.TLS)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, handshakeError{err}
		}
		conn = c
	} else if !l.config.AllowPlaintext && !loopback(conn.RemoteAddr()) {
		return nil, errPlaintext
	}
	w := wire.New(conn, nsAccept)
	// Its own context: mellium would take the deadline back when that ends.
	if _, err := xep0114.NewSession(context.Background(), l.address, l.config.Secret, w); err != nil {
		return nil, handshakeError{err}
	}
	return w, nil
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
