package component

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func TestReconnects(t *testing.T) {
	f := start(t, nil)
	for range 5 {
		p := f.up()
		p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "again"))
		if st := f.status(); st.State != Up || !st.Hosts[0].Served || st.Hosts[0].Software != "Test 1.0" || !st.Hosts[1].Rooms {
			t.Errorf("the status is %+v", st)
		}
		p.Close()
	}
	f.eventually("the link does not go down", func() bool { return f.status().State == Down })
	st := f.status()
	if st.Fault == "" || st.Hosts[0].Served || st.Hosts[0].Software != "Test 1.0" {
		t.Errorf("the status is %+v", st)
	}
	// The repeated appends are one message.
	p := f.up()
	if got := bodies(p.page(testHost, "alice@example.org", "alice@example.org/x", everything)); len(got) != 1 {
		t.Errorf("archived are %q", got)
	}
}

// TestFaultsAreExplained plays what can be wrong with a server. Each is logged
// once, however often it is met.
func TestFaultsAreExplained(t *testing.T) {
	refuse := func(condition string) func(*server) {
		return func(s *server) {
			p := s.raw()
			p.handshake()
			p.send(`<stream:error><` + condition + ` xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>no</text></stream:error></stream:stream>`)
			p.Close()
		}
	}
	for _, c := range []struct {
		name, reason, advice string
		play                 func(*server)
	}{
		{"wrong secret", "does not accept the secret", "component_secret", refuse("not-authorized")},
		{"conflict", "another connection", "kick_old", refuse("conflict")},
		{"unknown domain", "does not know the component", "Component", refuse("host-unknown")},
		{"unknown domain told at once", "does not know the component", "Component", func(s *server) {
			p := s.raw()
			p.header()
			p.send(`<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`)
			p.next() // its handshake: to close with that unread would take back what was sent
			p.Close()
		}},
		{"another stream error", "internal-server-error: no", "log of the server", refuse("internal-server-error")},
		{"closed at once", "closed the connection", "TLS", func(s *server) { s.raw().Close() }},
		{"closed before the answer", "closed the connection", "TLS", func(s *server) {
			p := s.raw()
			p.handshake()
			p.Close()
		}},
		{"something else", "handshake failed", "component port", func(s *server) {
			p := s.raw()
			p.send("SSH-2.0-OpenSSH\r\n")
			io.Copy(io.Discard, p)
		}},
		{"a stream of clients", "handshake failed", "component port", func(s *server) {
			p := s.raw()
			p.send(`<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client' id='1' version='1.0'><stream:features/>`)
			io.Copy(io.Discard, p)
		}},
		{"silence", "does not answer", "hangs", func(s *server) { io.Copy(io.Discard, s.raw()) }},
		{"too much", "not allowed on a stream", "", func(s *server) {
			p := s.raw()
			p.header()
			io.WriteString(p, "<handshake>"+strings.Repeat("x", 70<<10))
			io.Copy(io.Discard, p)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, func(config *Config) {
				if c.name == "silence" {
					config.Limits.ConnectTimeout = 200 * time.Millisecond
				}
			})
			for range 3 {
				c.play(f.server)
			}
			f.server.accept()
			f.eventually("the link does not come up", func() bool { return f.status().State == Up })
			downs := f.logs.FilterMessage("link: down; it is tried again until it is up").All()
			if len(downs) != 1 {
				t.Fatalf("it was logged %d times: %v", len(downs), downs)
			}
			fields := downs[0].ContextMap()
			if reason, _ := fields["reason"].(string); !strings.Contains(reason, c.reason) {
				t.Errorf("the reason is %q", reason)
			}
			if advice, _ := fields["advice"].(string); !strings.Contains(advice, c.advice) {
				t.Errorf("the advice is %q", advice)
			}
			if st := f.status(); !strings.Contains(st.Fault, c.reason) {
				t.Errorf("the status says %q", st.Fault)
			}
		})
	}
}

func TestNothingListens(t *testing.T) {
	f := start(t, func(c *Config) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Links[0].Server = l.Addr().String()
		l.Close()
	})
	f.logged("link: down; it is tried again until it is up")
	f.eventually("it is not tried again", func() bool { return f.failures("refused") > 3 })
	if st := f.status(); st.State != Down || !strings.Contains(st.Fault, "nothing listens at") {
		t.Errorf("the status is %+v", st)
	}
	if n := f.logs.FilterMessage("link: down; it is tried again until it is up").Len(); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// failures is how often an attempt failed or a stream broke for that reason.
func (f *fixture) failures(kind string) float64 {
	return f.metric("mamlog_link_faults_total", "fault", kind)
}

func TestNewReasonIsLogged(t *testing.T) {
	f := start(t, nil)
	f.server.raw().Close()
	p := f.server.raw()
	p.handshake()
	p.send(`<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`)
	p.Close()
	f.eventually("the new reason is not logged", func() bool {
		return f.logs.FilterMessage("link: down; it is tried again until it is up").Len() == 2
	})
}

// TestThrownOut: the server ends the stream of a link that is up.
func TestThrownOut(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	p.send(`<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>replaced</text></stream:error></stream:stream>`)
	f.up()
	if st := f.status(); !strings.Contains(st.Fault, "another connection") {
		t.Errorf("the fault is %q", st.Fault)
	}
}

func TestServerEndsStream(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	f.archive.hold()
	id := p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "last")))
	p.send("</stream:stream>")
	f.eventually("the append does not arrive", func() bool { return f.archive.seen() == 1 })
	f.archive.release()
	if e := p.next(); e.Attr("id") != id {
		t.Errorf("what was in flight is answered with %s", e.Bytes())
	}
	if _, err := p.r.Next(); err != io.EOF {
		t.Errorf("the stream is not ended: %v", err)
	}
	p.Close()
	f.up()
}

func TestStopAnswersWhatIsInFlight(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	f.archive.hold()
	var ids []string
	for range 3 {
		ids = append(ids, p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "last"))))
	}
	f.eventually("the appends do not arrive", func() bool { return f.archive.seen() == 3 })
	f.stop()
	f.archive.release()
	for _, id := range ids {
		if e := p.next(); e.Attr("id") != id {
			t.Errorf("%s is answered with %s", id, e.Bytes())
		}
	}
	if _, err := p.r.Next(); err != io.EOF {
		t.Errorf("the stream is not ended: %v", err)
	}
}

// TestStopDoesNotWaitForEver: an archive that hangs, and a server that neither
// reads nor closes, are given up.
func TestStopDoesNotWaitForEver(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.CloseTimeout = 50 * time.Millisecond })
	p := f.up()
	f.archive.hold()
	defer f.archive.release()
	p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k", "last")))
	f.eventually("the append does not arrive", func() bool { return f.archive.seen() == 1 })
	f.stop()
	<-f.served
}

// TestCutMidBatch: half a batch is none.
func TestCutMidBatch(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	whole := batch(
		appendOf("out", "alice@example.org", "bob@example.org", "k1", "one"),
		appendOf("out", "alice@example.org", "bob@example.org", "k2", "two"))
	p.send("<iq type='set' id='x' from='example.org' to='" + testDomain + "'>" + whole[:len(whole)-20])
	p.Close()
	p = f.up()
	if n := f.archive.seen(); n != 0 {
		t.Errorf("%d appends of half a batch", n)
	}
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k1", "one"))
}

// TestAnswersOfADeadStream: what the archive answers after its stream is gone is
// for nobody, and the next stream isn't given it.
func TestAnswersOfADeadStream(t *testing.T) {
	f := start(t, nil)
	p := f.up()
	f.archive.hold()
	p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k1", "one")))
	f.eventually("the append does not arrive", func() bool { return f.archive.seen() == 1 })
	p.Close()
	p = f.up()
	f.archive.release()
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k1", "one"))
	f.eventually("something is in flight for ever", func() bool {
		return f.status().InFlight == 0 && f.metric("mamlog_link_appends_in_flight", "", "") == 0
	})
}

func TestGarbageEndsTheStream(t *testing.T) {
	for garbage, condition := range map[string]string{
		"text":                         "bad-format",
		"<!-- x --><iq/>":              "restricted-xml",
		"<iq type='get'><!-- --></iq>": "restricted-xml",
		"<?xml version='1.0'?>":        "restricted-xml",
		"<iq <type='get'/>":            "not-well-formed",
	} {
		f := start(t, nil)
		p := f.up()
		p.send(garbage)
		e := p.next()
		if !e.Is(nsStream, "error") || e.First() == nil || e.First().Local != condition {
			t.Errorf("%s is answered with %s", garbage, e.Bytes())
		}
		if _, err := p.r.Next(); err != io.EOF {
			t.Errorf("%s: the stream is not ended: %v", garbage, err)
		}
		p.Close()
		f.up()
		f.stop()
	}
}

func TestKeepAlive(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.KeepAlive = time.Millisecond })
	p := f.server.accept()
	for range 3 {
		if c, err := p.in.ReadByte(); err != nil || c != ' ' {
			t.Fatalf("got %q, %v", c, err)
		}
	}
}

// TestServerThatDoesNotRead is given up.
func TestServerThatDoesNotRead(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.WriteTimeout = 50 * time.Millisecond })
	p := f.up()
	go func() {
		for { // until the connection is closed
			if _, err := io.WriteString(p, "<iq type='get' id='"+strings.Repeat("x", 1000)+"' from='example.org' to='"+testDomain+"'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
				return
			}
		}
	}()
	f.eventually("the server is not given up", func() bool { return strings.Contains(f.status().Fault, "does not read") })
	f.up()
}

func TestHostWithoutHello(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Limits.HelloTimeout = 50 * time.Millisecond
		c.Links[0].Hosts = []string{testHost}
	})
	f.server.accept()
	line := f.logged("link: these hosts are not served, since their module says no hello")
	if hosts := fmt.Sprint(line.ContextMap()["hosts"]); hosts != "["+testHost+"]" {
		t.Errorf("it names %s", hosts)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: 100 * time.Millisecond, max: 30 * time.Second}
	want := b.min
	for range 20 {
		if d := b.next(); d > want || d < want/2 {
			t.Errorf("got %v, want between %v and %v", d, want/2, want)
		}
		want = min(2*want, b.max)
	}
	b.reset()
	if d := b.next(); d > b.min {
		t.Errorf("after a reset: %v", d)
	}
}

// certificate makes one for a name, and a pool that trusts it.
func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLS(t *testing.T) {
	server, pool := certificate(t, "xmpp.example.org")
	f := start(t, func(c *Config) {
		c.Links[0].TLS = &tls.Config{RootCAs: pool, ServerName: "xmpp.example.org"}
	})
	f.server.tls = server
	p := f.up()
	p.archived(testHost, appendOf("out", "alice@example.org", "bob@example.org", "k", "over TLS"))
	f.stop()
	if _, err := p.r.Next(); err != io.EOF {
		t.Errorf("the stream is not ended: %v", err)
	}
}

func TestTLSFaults(t *testing.T) {
	server, pool := certificate(t, "xmpp.example.org")
	for _, c := range []struct {
		name   string
		config *tls.Config
		server *tls.Config
		fault  string
	}{
		{"an unknown authority", &tls.Config{ServerName: "xmpp.example.org"}, server, "certificate is not accepted"},
		{"another name", &tls.Config{RootCAs: pool, ServerName: "other.example"}, server, "certificate is not accepted"},
		{"no TLS", &tls.Config{RootCAs: pool, ServerName: "xmpp.example.org"}, nil, "does not speak TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, func(conf *Config) { conf.Links[0].TLS = c.config })
			f.server.tls = c.server
			p := f.server.raw()
			if c.server == nil {
				p.send(streamHeader)
			}
			io.Copy(io.Discard, p)
			f.eventually("there is no fault", func() bool { return strings.Contains(f.status().Fault, c.fault) })
		})
	}
}

// farConn pretends to lead to another machine.
type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5347} }

func TestPlaintextOnlyOnLoopback(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := &link{Links: new(Links)}
	if _, err := l.open(context.Background(), farConn{here}); !errors.Is(err, errPlaintext) {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Link{Server: "127.0.0.1:5347", Domain: testDomain, Secret: []byte("s"), Hosts: []string{testHost}}
	for words, change := range map[string]func(*Config){
		"not host:port":     func(c *Config) { c.Links[0].Server = "localhost" },
		"not a domain":      func(c *Config) { c.Links[0].Domain = "a@b" },
		"secret is missing": func(c *Config) { c.Links[0].Secret = nil },
		"no host is named":  func(c *Config) { c.Links[0].Hosts = nil },
		"named twice":       func(c *Config) { c.Links[0].Hosts = []string{testHost, "EXAMPLE.org"} },
		"on two links":      func(c *Config) { c.Links = append(c.Links, good) },
		"window":            func(c *Config) { c.Limits = Limits{MaxBatch: 10, Window: 5} },
	} {
		c := Config{Links: []Link{good}}
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("want %q, got %v", words, err)
		}
	}
}

// TestSeveralLinks are independent of each other.
func TestSeveralLinks(t *testing.T) {
	second := listen(t)
	f := start(t, func(c *Config) {
		other := c.Links[0]
		other.Server, other.Hosts = second.address(), []string{otherHost}
		c.Links = append(c.Links, other)
	})
	one, two := f.up(), second.accept()
	two.hello(otherHost, "accounts")
	f.archive.hold()
	one.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "x@y.example", "k", "held")))
	f.eventually("the append does not arrive", func() bool { return f.archive.seen() == 1 })
	two.page(otherHost, "carol@other.example", "carol@other.example/x", everything)
	two.Close()
	two = second.accept()
	f.archive.release()
	if e := one.next(); e.Child(NS, "archived") == nil {
		t.Errorf("got %s", e.Bytes())
	}
	two.hello(otherHost, "accounts")
	if all := f.links.Status(); len(all) != 2 || all[1].Server != second.address() || all[1].State != Up || all[0].Appends != 1 || all[1].Appends != 0 {
		t.Errorf("the status is %+v", all)
	}
}
