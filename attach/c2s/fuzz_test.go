package c2s

import (
	"encoding/base64"
	"io"
	"net"
	"testing"
	"time"
)

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
	x := start(f, nil)
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
	x := start(f, nil)
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
