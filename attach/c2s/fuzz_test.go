package c2s

import (
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// patient lets the fuzzer's address fail to log in as often as it likes.
func patient(c *Config) { c.Limits.FailedLogins = 1 << 40 }

// talk gives the server a connection with these bytes and waits until it has
// done with it.
func (f *fixture) talk(t *testing.T, parts ...[]byte) {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.s.serveTCP(theirs, func() {})
	}()
	go io.Copy(io.Discard, ours)
	ours.SetWriteDeadline(time.Now().Add(patience))
	for _, p := range parts {
		if _, err := ours.Write(p); err != nil {
			break // it may hang up at any byte
		}
	}
	ours.Close()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the server does not let go of the connection")
	}
}

// FuzzLogin feeds a connection that is not logged in.
func FuzzLogin(f *testing.F) {
	x := start(f, patient)
	x.account("juliet")
	for _, s := range []string{
		"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
		"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1hYmM=</auth><response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>Yz1iaXdz</response>",
		"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>=</auth><abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
		"<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
	} {
		f.Add([]byte(header + s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { x.talk(t, b) })
}

// FuzzSession feeds a connection that is logged in and bound.
func FuzzSession(f *testing.F) {
	x := start(f, patient)
	x.account("juliet", "romeo")
	login := []byte(header + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" +
		base64.StdEncoding.EncodeToString([]byte("\x00juliet\x00secret-juliet")) + "</auth>" + header +
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>")
	for _, s := range []string{
		"<message to='romeo@test.example' type='chat'><body>x</body></message>",
		"<message to='juliet@test.example/x' type='error' id='1'/>",
		"<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='romeo@test.example' name='R'><group>g</group></item></query></iq>",
		"<presence type='subscribe' to='romeo@test.example'/><presence><priority>-1</priority></presence>",
		"<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query></iq>",
		"<iq type='get' id='1' to='test.example'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
		"<iq type='set' id='1'><enable xmlns='urn:xmpp:carbons:2'/></iq></stream:stream>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { x.talk(t, login, b) })
}

// FuzzWebSocket feeds a WebSocket: with messages, or with bytes that may be no
// frames at all; logged in or not.
func FuzzWebSocket(f *testing.F) {
	x := start(f, func(c *Config) { patient(c); c.WebSocketListen = "127.0.0.1:0" })
	x.account("juliet")
	upgrade := "GET " + webSocketPath + " HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
	login := []string{
		wsOpen, "<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>" + plainData("juliet", "secret-juliet") + "</auth>", wsOpen,
		"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='" + nsBind + "'/></iq>",
	}
	for _, s := range []string{
		"<message xmlns='jabber:client' to='juliet@test.example' type='chat'><body>x</body></message>",
		"<iq xmlns='jabber:client' type='set' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>",
		wsOpen, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "\x81\x80\x00\x00\x00\x00", "\x89\x80\x01\x02\x03\x04\x88\x80\x01\x02\x03\x04",
		"\x01\xfe\xff\xff\x00\x00\x00\x00", "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
	} {
		for n := range 4 {
			f.Add([]byte(s), n&1 != 0, n&2 != 0)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, loggedIn, raw bool) {
		conn, err := net.Dial("tcp", x.s.WebSocketAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		var sent strings.Builder
		sent.WriteString(upgrade)
		if loggedIn {
			for _, m := range login {
				sent.Write(textFrame([]byte(m)))
			}
		}
		if !raw {
			b = textFrame(b)
		}
		sent.Write(b)
		if _, err := io.WriteString(conn, sent.String()); err != nil {
			return // it may hang up at any byte
		}
		conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatal("the server does not let go of the connection")
		}
	})
}

// textFrame is one message in one frame, masked with zeroes.
func textFrame(b []byte) []byte {
	n := len(b)
	frame := []byte{0x81, 0xff, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 0, 0, 0, 0}
	return append(frame, b...)
}
