package c2s

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

const (
	testHost = "test.example"
	patience = 20 * time.Second
)

// fixture is a host on loopback over real stores.
type fixture struct {
	t      testing.TB
	s      *Server
	logs   *observer.ObservedLogs
	reg    *prometheus.Registry
	stop   context.CancelFunc
	served chan error
}

func start(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := log.Open(dir+"/log", log.Options{})
	must(err)
	p, err := projections.Open(dir+"/projections", l, projections.Options{})
	must(err)
	options := xep0313.DefaultOptions()
	a, err := xep0313.New(context.Background(), xep0313.Config{
		Log: l, Projections: p, Contacts: p,
		Hosts: []xep0313.Host{{Name: testHost, Options: options, Log: l, Archives: p}},
	})
	must(err)
	core, logs := observer.New(zapcore.DebugLevel)
	f := &fixture{t: t, logs: logs, reg: prometheus.NewRegistry(), served: make(chan error, 1)}
	c := Config{
		Listen: "127.0.0.1:0", AllowPlaintext: true, DataDir: dir, Hosts: []string{testHost},
		Accounts: &Accounts{Log: l, Projections: p, Hosts: []string{testHost}},
		Archive:  a, Log: l, Projections: p, Logger: zap.New(core), Metrics: f.reg,
	}
	if change != nil {
		change(&c)
	}
	f.s, err = New(c)
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.served <- f.s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-f.served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) account(names ...string) {
	f.t.Helper()
	for _, n := range names {
		if err := f.s.c.Accounts.Add(context.Background(), jid.MustParse(n+"@"+testHost), "secret-"+n, "test"); err != nil {
			f.t.Fatal(err)
		}
	}
}

// client is a raw client: it sends what the test says and reads elements.
type client struct {
	f    *fixture
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	r    *stanza.Reader
	full string
	n    int
}

func (f *fixture) dial() *client {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.s.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return f.client(conn)
}

func (f *fixture) client(conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(patience))
	return &client{f: f, t: f.t, conn: conn, in: bufio.NewReader(conn)}
}

const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='test.example'>"

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(c.conn, format); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// opened reads the server's stream header.
func (c *client) opened() {
	c.t.Helper()
	for {
		tag, err := c.in.ReadString('>')
		if err != nil {
			c.t.Fatalf("stream header: %v", err)
		}
		if strings.Contains(tag, "<stream:stream") {
			break
		}
	}
	c.r = stanza.NewReader(c.in, map[string]string{"": stanza.NSClient, "stream": nsStream}, stanza.DefaultLimits)
}

// open opens a stream and returns the features.
func (c *client) open() *stanza.Element {
	c.t.Helper()
	c.send(header)
	c.opened()
	f := c.next()
	if !f.Is(nsStream, "features") {
		c.t.Fatalf("instead of features: %s", f.Bytes())
	}
	return f
}

func (c *client) next() *stanza.Element {
	c.t.Helper()
	e, err := c.r.Next()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return e
}

// until skips what want is false for.
func (c *client) until(what string, want func(*stanza.Element) bool) *stanza.Element {
	c.t.Helper()
	for {
		e, err := c.r.Next()
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", what, err)
		}
		if want(e) {
			return e
		}
	}
}

// streamError expects the stream to end with that condition.
func (c *client) streamError(condition string) {
	c.t.Helper()
	e := c.until("the stream error "+condition, func(e *stanza.Element) bool { return e.Is(nsStream, "error") })
	if e.Child(nsStreams, condition) == nil {
		c.t.Fatalf("stream error %s, want %s", e.Bytes(), condition)
	}
	if e, err := c.r.Next(); err != io.EOF {
		c.t.Fatalf("after the stream error: %v, %v", e, err)
	}
}

func plainData(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// login authenticates and binds; resource "" leaves it to the server.
func (c *client) login(user, resource string) *client {
	c.t.Helper()
	c.open()
	c.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL, plainData(user, "secret-"+user))
	if e := c.next(); !e.Is(nsSASL, "success") {
		c.t.Fatalf("login of %s: %s", user, e.Bytes())
	}
	c.open()
	c.bind(resource)
	return c
}

func (c *client) bind(resource string) {
	c.t.Helper()
	c.send("<iq type='set' id='bind'><bind xmlns='%s'><resource>%s</resource></bind></iq>", nsBind, resource)
	e := c.next()
	if c.full = e.Child(nsBind, "bind").ChildText(nsBind, "jid"); c.full == "" {
		c.t.Fatalf("bind: %s", e.Bytes())
	}
}

// online logs in and sends presence.
func (f *fixture) online(user, resource string) *client {
	f.t.Helper()
	c := f.dial().login(user, resource)
	c.send("<presence/>")
	c.until("own presence", func(e *stanza.Element) bool { return e.Local == "presence" && e.Attr("from") == c.full })
	return c
}

// settled returns all that arrived up to now: it pings and reads to the answer.
func (c *client) settled() []*stanza.Element {
	c.t.Helper()
	c.n++
	id := fmt.Sprintf("settled-%d", c.n)
	c.send("<iq type='get' id='%s'><ping xmlns='urn:xmpp:ping'/></iq>", id)
	var es []*stanza.Element
	for {
		e := c.next()
		if e.Local == "iq" && e.Attr("id") == id {
			return es
		}
		es = append(es, e)
	}
}

// nothing expects that nothing has arrived.
func (c *client) nothing(why string) {
	c.t.Helper()
	for _, e := range c.settled() {
		c.t.Fatalf("%s: %s", why, e.Bytes())
	}
}

func (c *client) iq(typ, to, payload string) *stanza.Element {
	c.t.Helper()
	c.n++
	id := fmt.Sprintf("iq-%d", c.n)
	if to != "" {
		to = " to='" + to + "'"
	}
	c.send("<iq type='%s' id='%s'%s>%s</iq>", typ, id, to, payload)
	return c.until("the answer "+id, func(e *stanza.Element) bool { return e.Local == "iq" && e.Attr("id") == id })
}

func (c *client) message(id string) *stanza.Element {
	c.t.Helper()
	return c.until("message "+id, func(e *stanza.Element) bool { return e.Local == "message" && e.Attr("id") == id })
}

func condition(e *stanza.Element) string {
	if x := e.Child(stanza.NSClient, "error"); x != nil {
		return x.Attr("type") + "/" + x.First().Local
	}
	return e.Attr("type")
}

// stanzaIDs are the ids that a message carries, by whose archive.
func stanzaIDs(e *stanza.Element) map[string]string {
	m := make(map[string]string)
	for _, c := range e.Elements() {
		if c.Is(xep0313.NSStanzaID, "stanza-id") {
			m[c.Attr("by")] = c.Attr("id")
		}
	}
	return m
}

func wantCondition(t testing.TB, e *stanza.Element, want string) {
	t.Helper()
	if got := condition(e); got != want {
		t.Fatalf("got %s, want %s: %s", got, want, e.Bytes())
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true, ServerName: testHost} }
