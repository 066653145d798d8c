package siege

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"mamlog/cmd/mamlog/conformance"
)

// serveWeb is serve for those hosts with a WebSocket listener, whose URL it returns.
func serveWeb(t *testing.T, hosts, extra string) (*server, string) {
	t.Helper()
	client, web := freeAddr(t), freeAddr(t)
	s, err := conformance.NewArchive(t.TempDir(), fmt.Sprintf(
		"hosts: [%s]\nc2s: {listen: %q, websocket_listen: %q, allow_plaintext: true}\n%s", hosts, client, web, extra))
	if err != nil {
		t.Fatal(err)
	}
	running := begin(t, s)
	s.Addr = client
	return running, "ws://" + web + "/xmpp-websocket"
}

// pipe is a stream of whatever bytes, over TCP or WebSocket.
type pipe interface {
	send(string) error
	read(each func([]byte)) // to the end of the stream
	close()
}

type tcpPipe struct{ net.Conn }

func (p tcpPipe) send(s string) error {
	_, err := io.WriteString(p.Conn, s)
	return err
}
func (p tcpPipe) close() { p.Conn.Close() }
func (p tcpPipe) read(each func([]byte)) {
	for b := make([]byte, 16<<10); ; {
		n, err := p.Conn.Read(b)
		each(b[:n])
		if err != nil {
			return
		}
	}
}

type webPipe struct {
	c   *websocket.Conn
	ctx context.Context
	end context.CancelFunc
}

// send makes one message of s.
func (p webPipe) send(s string) error { return p.c.Write(p.ctx, websocket.MessageText, []byte(s)) }

func (p webPipe) read(each func([]byte)) {
	for {
		_, b, err := p.c.Read(p.ctx)
		if err != nil {
			return
		}
		each(b)
	}
}

func (p webPipe) close() {
	p.c.CloseNow()
	p.end()
}

const streamHeader = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='test.example'>"
const framedHeader = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='test.example' version='1.0'/>"

func auth(user string) string {
	return "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" +
		base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+conformance.Password)) + "</auth>"
}

const bind = "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"

// tcp connects, and logs user in unless that is "". Nothing is read: a stream may be
// pipelined.
func (s *server) tcp(user string) (pipe, error) {
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	p := tcpPipe{c}
	if user != "" {
		err = p.send(streamHeader + auth(user) + streamHeader + bind)
	}
	return p, err
}

func dialWeb(url, user string) (pipe, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"xmpp"}})
	if err != nil {
		cancel()
		return nil, err
	}
	c.SetReadLimit(4 << 20)
	p := webPipe{c, ctx, cancel}
	if user != "" {
		for _, m := range []string{framedHeader, auth(user), framedHeader, bind} {
			if err := p.send(m); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// rest reads to the end of the stream, and returns the condition of its error.
func rest(p pipe) string {
	var all strings.Builder
	p.read(func(b []byte) { all.Write(b) })
	return streamEnd(all.String())
}
