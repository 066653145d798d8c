//go:build servers

package peers

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mamlog/cmd/mamlog/conformance"
)

func needPackages(t *testing.T) {
	t.Helper()
	if missing := Missing(); len(missing) > 0 {
		conformance.Skip(t, "missing Debian packages: %v", missing)
	}
}

// client is the least that can log in and talk.
type client struct {
	t    *testing.T
	conn net.Conn
	in   strings.Builder
}

func login(t *testing.T, addr, host, user string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: t, conn: conn}
	stream := "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='" + host + "'>"
	c.send(stream)
	c.expect("</stream:features>")
	c.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" +
		base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+Password)) + "</auth>")
	c.expect("<success")
	c.send(stream)
	c.expect("</stream:features>")
	c.send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>")
	c.expect("</jid>")
	c.send("<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq><presence/>")
	c.expect("<presence")
	return c
}

func (c *client) send(xml string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(xml)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads until what has come, and returns everything up to its end.
func (c *client) expect(what string) string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 4096)
	for !strings.Contains(c.in.String(), what) {
		n, err := c.conn.Read(b)
		c.in.Write(b[:n])
		if err != nil {
			c.t.Fatalf("waiting for %s: %v; got %s", what, err, c.in.String())
		}
	}
	all := c.in.String()
	end := strings.Index(all, what) + len(what)
	c.in.Reset()
	c.in.WriteString(all[end:])
	return all[:end]
}

func TestServers(t *testing.T) {
	needPackages(t)
	type starter func(context.Context, Options) (*Server, error)
	ours := func(ctx context.Context, o Options) (*Server, error) {
		binary, err := BuildMamlog(ctx, t.TempDir())
		if err != nil {
			return nil, err
		}
		return StartMamlog(ctx, MamlogOptions{Binary: binary, Dir: o.Dir})
	}
	for _, test := range []struct {
		name    string
		start   starter
		archive Archive
	}{
		{"prosody", StartProsody, None},
		{"prosody", StartProsody, Internal},
		{"prosody", StartProsody, SQLite},
		{"ejabberd", StartEjabberd, None},
		{"ejabberd", StartEjabberd, SQLite},
		{"ejabberd", StartEjabberd, Mnesia},
		{"ejabberd", StartEjabberd, PostgreSQL},
		{"embedded host", ours, Mamlog},
	} {
		t.Run(test.name+" "+string(test.archive), func(t *testing.T) {
			// A directory of this name has misled Erlang's code server.
			dir := filepath.Join(t.TempDir(), test.name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s, err := test.start(t.Context(), Options{Archive: test.archive, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Log(s.Log())
				}
			}()
			if err := s.Register(t.Context(), "alice", "bob.with-signs_"); err != nil {
				t.Fatal(err)
			}
			say := func(n int) {
				t.Helper()
				bob := login(t, s.C2SAddr, s.Host, "bob.with-signs_")
				alice := login(t, s.C2SAddr, s.Host, "alice")
				alice.send(fmt.Sprintf("<message type='chat' id='m%d' to='bob.with-signs_@%s/r'><body>hello %d</body></message>", n, s.Host, n))
				got := bob.expect("</message>")
				if stamped := strings.Contains(got, "urn:xmpp:sid:0"); !strings.Contains(got, fmt.Sprintf("hello %d", n)) || stamped != (test.archive != None) {
					t.Fatalf("bob got %s", got)
				}
				if test.archive == None {
					return
				}
				bob.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
				if page := bob.expect("<fin"); strings.Count(page, "<body>") != n {
					t.Fatalf("want %d messages archived, got %s", n, page)
				}
			}
			say(1)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			say(2)
			if test.archive == Mnesia {
				return // it may lose what a killed server had, and repairs its tables
			}
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			say(3)
		})
	}
}

func TestServersTalkToEachOther(t *testing.T) {
	needPackages(t)
	var addrs [2]string
	for i := range addrs {
		var err error
		if addrs[i], err = FreeAddr(); err != nil {
			t.Fatal(err)
		}
	}
	hosts := [2]string{"one.example", "two.example"}
	var servers [2]*Server
	var wg sync.WaitGroup
	for i, start := range []func(context.Context, Options) (*Server, error){StartProsody, StartEjabberd} {
		wg.Go(func() {
			s, err := start(t.Context(), Options{Host: hosts[i], S2SAddr: addrs[i], Remote: map[string]string{hosts[1-i]: addrs[1-i]}})
			if err != nil {
				t.Error(err)
				return
			}
			servers[i] = s
			if err := s.Register(t.Context(), "user"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, s := range servers {
			if s != nil {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Log(s.Log())
				}
			}
		}
	})
	if t.Failed() {
		return
	}
	var clients [2]*client
	for i, s := range servers {
		clients[i] = login(t, s.C2SAddr, s.Host, "user")
	}
	for i := range clients {
		clients[i].send("<message type='chat' to='user@" + hosts[1-i] + "/r'><body>from " + hosts[i] + "</body></message>")
		if got := clients[1-i].expect("</message>"); !strings.Contains(got, "from "+hosts[i]) {
			t.Fatalf("%s got %s", hosts[1-i], got)
		}
	}
}

func TestComponentsMayConnect(t *testing.T) {
	needPackages(t)
	for name, start := range map[string]func(context.Context, Options) (*Server, error){"prosody": StartProsody, "ejabberd": StartEjabberd} {
		t.Run(name, func(t *testing.T) {
			s, err := start(t.Context(), Options{Components: map[string]string{"other.peer.example": "its secret"}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, domain := range []string{s.ArchiveHost, "other.peer.example"} {
				conn, err := net.Dial("tcp", s.ComponentAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				c := &client{t: t, conn: conn}
				c.send("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "'>")
				if header := c.expect(">"); strings.Contains(header, "<?xml") {
					c.expect(">")
				}
				c.send("<handshake>wrong</handshake>")
				c.expect("not-authorized")
			}
			out, err := s.Ctl(t.Context(), "status")
			if err != nil || !strings.Contains(out, "running") {
				t.Errorf("status: %v: %s", err, out)
			}
		})
	}
}
