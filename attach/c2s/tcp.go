package c2s

import (
	"context"
	"io"
	"net"
	"time"

	"mamlog/attach/wire"
	"mamlog/xep0313/stanza"
)

// serveTCP serves one client from accept to close.
func (s *Server) serveTCP(c net.Conn, loggedIn func()) {
	defer c.Close()
	n := &negotiation{s: s, conn: c, loggedIn: loggedIn, wire: wire.New(c, stanza.NSClient)}
	x := n.negotiate(context.Background(), false)
	if x == nil {
		l := &tcpLink{wire: n.wire, s: s}
		l.finish()
		l.hangUp()
		return
	}
	x.run(&tcpLink{
		wire: n.wire, s: s,
		stanzas: stanza.NewReader(n.wire.Rest(), n.wire.Prefixes(), s.limits.Stanza),
	})
}

// tcpLink is a stream as RFC 6120 has it, over TCP or TLS.
type tcpLink struct {
	s       *Server
	wire    *wire.Conn
	stanzas *stanza.Reader
	buf     []byte // the writer's
}

func (l *tcpLink) next() (*stanza.Element, error) {
	e, err := l.stanzas.Next()
	if err != nil && deadlineReached(err) {
		err = io.EOF
	}
	return e, err
}

// writeChunk is about how much goes out in one system call, and one TLS record
// or a few of them.
const writeChunk = 64 << 10

func (l *tcpLink) write(batch [][]byte) error {
	buf := l.buf[:0]
	flush := func() error {
		l.wire.Conn.SetWriteDeadline(time.Now().Add(l.s.limits.WriteTimeout))
		_, err := l.wire.Conn.Write(buf)
		buf = buf[:0]
		return err
	}
	for _, b := range batch {
		if len(buf) > 0 && len(buf)+len(b) > writeChunk {
			if err := flush(); err != nil {
				return err
			}
		}
		buf = append(buf, b...)
	}
	var err error
	if len(buf) > 0 {
		err = flush()
	}
	if cap(buf) <= writeChunk {
		l.buf = buf
	} else {
		l.buf = nil
	}
	return err
}

func (l *tcpLink) interrupt() { l.wire.Conn.SetReadDeadline(time.Unix(1, 0)) }

func (l *tcpLink) finish() {
	if c, ok := l.wire.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

func (l *tcpLink) hangUp() {
	l.wire.Conn.SetReadDeadline(time.Now().Add(time.Second))
	l.wire.Discard()
}
