package c2s

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mamlog/xep0313"
)

// TestConnections: who has no password can't keep others out for long, and who is
// not let in is told why.
func TestConnections(t *testing.T) {
	f := start(t, func(c *Config) {
		c.WebSocketListen, c.Limits.Connections, c.Limits.Strangers = "127.0.0.1:0", 3, 2
	})
	f.account("juliet")
	turnedAway := func() {
		t.Helper()
		c := f.dial()
		c.opened() // no need to say a word
		c.streamError("resource-constraint")
	}
	first, second := f.dial(), f.dial()
	eventually(t, "two to be in", func() bool { n, _ := f.s.door.count(); return n == 2 })
	turnedAway()
	if n := testutil.ToFloat64(f.s.metrics.refused.WithLabelValues("logins")); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, "ws://"+f.s.WebSocketAddr().String()+webSocketPath, nil); err == nil {
		t.Error("a WebSocket is let in beyond the limit")
	}

	first.login("juliet", "1")
	eventually(t, "her to be known", func() bool { _, strangers := f.s.door.count(); return strangers == 1 })
	third := f.dial()
	third.login("juliet", "2")
	turnedAway()
	if n := testutil.ToFloat64(f.s.metrics.refused.WithLabelValues("connections")); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	first.nothing("who is in stays in")

	second.conn.Close()
	eventually(t, "one to be gone", func() bool { n, strangers := f.s.door.count(); return n == 2 && strangers == 0 })
	web := dialWeb(t, "ws://"+f.s.WebSocketAddr().String()+webSocketPath)
	web.login("juliet")
	eventually(t, "the web client to be known", func() bool { n, strangers := f.s.door.count(); return n == 3 && strangers == 0 })
	first.conn.Close()
	third.conn.Close()
	web.c.CloseNow()
	eventually(t, "all to be gone", func() bool { n, strangers := f.s.door.count(); return n == 0 && strangers == 0 })
}

// TestFailedLoginsByAddress: many connections give no more tries than the limit,
// and while it holds the right password is refused like any other.
func TestFailedLoginsByAddress(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.FailedLogins = 4 })
	f.account("juliet")
	for range 2 {
		c := f.dial()
		c.open()
		for range 2 {
			c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "wrong"))
			if e := c.next(); e.Child(nsSASL, "not-authorized") == nil {
				t.Fatalf("%s", e.Bytes())
			}
		}
	}
	c := f.dial()
	c.open()
	c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData("juliet", "secret-juliet"))
	c.streamError("policy-violation")
}

// TestQueriesOfOneUser: they are counted over all of a user's connections, nobody
// else's are, and a connection that ends gives its places back.
func TestQueriesOfOneUser(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Queries = 2 })
	f.account("juliet", "romeo")
	const ask = "<iq type='get' id='%s'><metadata xmlns='" + xep0313.NS + "'/></iq>"
	juliet, romeo := f.dial().login("juliet", "1"), f.dial().login("romeo", "r")
	other := f.dial().login("juliet", "2")
	// As if two were at work.
	f.s.queries.Enter(f.bare("juliet"))
	f.s.queries.Enter(f.bare("juliet"))
	for _, c := range []*client{juliet, other} {
		wantCondition(t, c.iq("get", "", "<metadata xmlns='"+xep0313.NS+"'/>"), "wait/resource-constraint")
	}
	wantCondition(t, romeo.iq("get", "", "<metadata xmlns='"+xep0313.NS+"'/>"), "result")
	f.s.queries.Leave(f.bare("juliet"), 2)
	wantCondition(t, juliet.iq("get", "", "<metadata xmlns='"+xep0313.NS+"'/>"), "result")

	// Whoever leaves in the middle of it leaves nothing behind.
	for range 50 {
		juliet.send(ask, "x")
	}
	juliet.conn.Close()
	other.conn.Close()
	eventually(t, "juliet to be gone", func() bool { return !f.s.users.online(f.bare("juliet")) })
	eventually(t, "her places to be free", func() bool {
		free := 0
		for f.s.queries.Enter(f.bare("juliet")) {
			free++
		}
		f.s.queries.Leave(f.bare("juliet"), free)
		return free == 2
	})
}

func (f *fixture) bare(user string) string { return user + "@" + testHost }

// TestLargeWebSocketMessage: it ends with a stream error as on TCP, in one frame or
// in many, logged in or not.
func TestLargeWebSocketMessage(t *testing.T) {
	f := start(t, func(c *Config) {
		c.WebSocketListen = "127.0.0.1:0"
		c.Limits.Stanza.Bytes = 20000
		c.Limits.Stanza.Depth = 20
		c.Limits.Stanza.Attrs = 20
	})
	f.account("juliet")
	url := "ws://" + f.s.WebSocketAddr().String() + webSocketPath
	large := "<message xmlns='jabber:client'><body>" + strings.Repeat("x", 1<<20) + "</body></message>"
	for _, loggedIn := range []bool{false, true} {
		for _, frames := range []int{1, 100} {
			w := dialWeb(t, url)
			if loggedIn {
				w.login("juliet")
			} else {
				w.open()
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() { // it may be cut off in the middle
				b, err := w.c.Writer(ctx, websocket.MessageText)
				for i := 0; i < frames && err == nil; i++ {
					_, err = b.Write([]byte(large[i*len(large)/frames : (i+1)*len(large)/frames]))
				}
				if err == nil {
					b.Close()
				}
			}()
			if e := w.next(); !e.Is(nsStream, "error") || e.Child(nsStreams, "policy-violation") == nil {
				t.Errorf("logged in %v, %d frames: %s", loggedIn, frames, e.Bytes())
			}
			if e := w.next(); !e.Is(nsFraming, "close") {
				t.Errorf("close: %s", e.Bytes())
			}
			if _, _, err := w.c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("after the stream's end: %v", err)
			}
		}
	}
}

func TestReloadCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func() {
		t.Helper()
		b, err := makeCertificate([]string{testHost})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{cert, key} { // each holds both
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	f := start(t, func(c *Config) {
		c.AllowPlaintext, c.WebSocketListen, c.Certificate, c.Key = false, "127.0.0.1:0", cert, key
	})
	serial := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", f.s.WebSocketAddr().String(), clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := c.ConnectionState()
		if s.Version < tls.VersionTLS12 {
			t.Errorf("version %x", s.Version)
		}
		return s.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	write()
	if serial() != first {
		t.Error("another certificate without being told to")
	}
	if err := f.s.ReloadCertificate(); err != nil {
		t.Fatal(err)
	}
	second := serial()
	if second == first {
		t.Error("still the old certificate")
	}
	if err := os.WriteFile(cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.s.ReloadCertificate(); err == nil {
		t.Error("nonsense is taken for a certificate")
	}
	if serial() != second {
		t.Error("a bad certificate has driven out the good one")
	}
	old := clientTLS()
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	if c, err := tls.Dial("tcp", f.s.WebSocketAddr().String(), old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
