package component

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

const (
	testDomain = "archive.example.org"
	testHost   = "example.org"
	testRooms  = "rooms.example.org"
	otherHost  = "other.example"
	testSecret = "s3cret&'"
	patience   = 20 * time.Second
)

// fixture is one link over a real archive, to a server that the test plays.
type fixture struct {
	t       testing.TB
	server  *server
	links   *Links
	archive *gate
	logs    *observer.ObservedLogs
	metrics *prometheus.Registry
	stop    context.CancelFunc
	served  chan struct{}
}

func start(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{
		t: t, server: listen(t), archive: &gate{Archive: newArchive(t, nil)},
		metrics: prometheus.NewRegistry(), served: make(chan struct{}),
	}
	core, logs := observer.New(zapcore.DebugLevel)
	f.logs = logs
	c := Config{
		Links: []Link{{
			Server: f.server.address(), Domain: testDomain, Secret: []byte(testSecret), Hosts: []string{testHost, testRooms},
		}},
		Archive: f.archive, Logger: zap.New(core), Metrics: f.metrics,
		Limits: Limits{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if f.links, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() {
		defer close(f.served)
		f.links.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-f.served:
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
	})
	return f
}

// newArchive is a real one for the hosts of the tests. fs is where, nil: in memory.
func newArchive(t testing.TB, fs vfs.FS) *xep0313.Archive {
	t.Helper()
	dir := t.TempDir()
	if fs == nil {
		fs, dir = vfs.NewMem(), "/mem"
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cache := pebble.NewCache(192 << 20) // as a server has
	l, err := log.Open(dir+"/log", log.Options{FS: fs, Cache: cache})
	must(err)
	p, err := projections.Open(dir+"/projections", l, projections.Options{FS: fs, Cache: cache})
	must(err)
	t.Cleanup(func() {
		defer cache.Unref()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	c := xep0313.Config{Log: l, Projections: p, Contacts: p}
	for _, name := range []string{testHost, testRooms, otherHost} {
		c.Hosts = append(c.Hosts, xep0313.Host{Name: name, Options: xep0313.DefaultOptions(), Log: l, Archives: p})
	}
	a, err := xep0313.New(context.Background(), c)
	must(err)
	return a
}

// gate is an archive whose answers can be held back.
type gate struct {
	Archive

	mu      sync.Mutex
	held    bool
	waiting []func()
	appends int
	refuse  error // of Append
}

func (g *gate) Append(sides []xep0313.Side, done func([]xep0313.Outcome)) error {
	g.mu.Lock()
	refuse := g.refuse
	g.appends += len(sides)
	g.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	return g.Archive.Append(sides, func(o []xep0313.Outcome) {
		g.mu.Lock()
		if g.held {
			g.waiting = append(g.waiting, func() { done(o) })
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		done(o)
	})
}

func (g *gate) hold() {
	g.mu.Lock()
	g.held = true
	g.mu.Unlock()
}

func (g *gate) release() {
	g.mu.Lock()
	g.held = false
	waiting := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

func (g *gate) refuseWith(err error) {
	g.mu.Lock()
	g.refuse = err
	g.mu.Unlock()
}

func (g *gate) seen() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.appends
}

// server is the accepting side of XEP-0114, as far as the test plays it.
type server struct {
	t   testing.TB
	l   net.Listener
	tls *tls.Config
}

func listen(t testing.TB) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &server{t: t, l: l}
}

func (s *server) address() string { return s.l.Addr().String() }

// peer is one connection at the server.
type peer struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
	r  *stanza.Reader
	n  int
}

// raw accepts a connection and does nothing on it.
func (s *server) raw() *peer {
	s.t.Helper()
	s.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := s.l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.tls != nil {
		c = tls.Server(c, s.tls)
	}
	c.SetDeadline(time.Now().Add(patience))
	s.t.Cleanup(func() { c.Close() })
	in := bufio.NewReader(c)
	return &peer{
		Conn: c, t: s.t, in: in,
		r: stanza.NewReader(in, map[string]string{"": nsAccept, "stream": nsStream}, stanza.Limits{Bytes: 8 << 20, Depth: 100, Attrs: 100}),
	}
}

const streamHeader = `<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' id='a&apos;b' from='` + testDomain + `'>`

// header reads the component's stream header and answers it.
func (p *peer) header() {
	p.t.Helper()
	tag, err := p.in.ReadString('>')
	if err != nil {
		p.t.Fatal(err)
	}
	for _, want := range []string{"<stream:stream ", "to='" + testDomain + "'", "xmlns='jabber:component:accept'"} {
		if !strings.Contains(tag, want) {
			p.t.Fatalf("the stream header is %s, without %s", tag, want)
		}
	}
	p.send(streamHeader)
}

// handshake reads what proves that the component knows the secret.
func (p *peer) handshake() {
	p.t.Helper()
	p.header()
	sum := sha1.Sum([]byte("a'b" + testSecret))
	if e := p.next(); e.Local != "handshake" || e.Text() != hex.EncodeToString(sum[:]) {
		p.t.Fatalf("the handshake is %s", e.Bytes())
	}
}

// accept accepts a connection and lets the component in.
func (s *server) accept() *peer {
	s.t.Helper()
	p := s.raw()
	p.handshake()
	p.send(`<handshake/>`)
	return p
}

// up accepts a link whose hosts are served.
func (f *fixture) up() *peer {
	f.t.Helper()
	p := f.server.accept()
	p.hello(testHost, "accounts")
	p.hello(testRooms, "rooms")
	return p
}

func (p *peer) send(xml string) {
	p.t.Helper()
	if _, err := io.WriteString(p, xml); err != nil {
		p.t.Fatal(err)
	}
}

// next is the next element that mamlog sends.
func (p *peer) next() *stanza.Element {
	p.t.Helper()
	e, err := p.r.Next()
	if err != nil {
		p.t.Fatalf("nothing more comes: %v", err)
	}
	return e
}

// ask sends an iq and returns its answer, which is the next that comes.
func (p *peer) ask(typ, from, to, payload string) *stanza.Element {
	p.t.Helper()
	id := p.request(typ, from, to, payload)
	e := p.next()
	if e.Attr("id") != id || e.Local != "iq" || e.Space != nsAccept || e.Attr("from") != to || e.Attr("to") != from {
		p.t.Fatalf("the answer to %s is %s", id, e.Bytes())
	}
	return e
}

// request sends an iq and returns its id.
func (p *peer) request(typ, from, to, payload string) string {
	p.t.Helper()
	p.n++
	id := fmt.Sprintf("i%d", p.n)
	p.send(fmt.Sprintf("<iq type='%s' id='%s' from='%s' to='%s'>%s</iq>", typ, id, from, to, payload))
	return id
}

func (p *peer) hello(host, serves string) *stanza.Element {
	p.t.Helper()
	e := p.ask("get", host, testDomain, `<hello xmlns='`+NS+`' versions='1' serves='`+serves+`' software='Test 1.0' spool='0' spool-bytes='0' error=''/>`)
	if e.Child(NS, "welcome") == nil {
		p.t.Fatalf("no welcome: %s", e.Bytes())
	}
	return e
}

// batch is a batch of appends.
func batch(appends ...string) string {
	return `<batch xmlns='` + NS + `'>` + strings.Join(appends, "") + `</batch>`
}

// appendOf is an append of a message with a body.
func appendOf(dir, owner, peer, key, body string, more ...string) string {
	from, to := owner+"/here", peer
	if dir != "out" {
		from, to = peer, owner
	}
	typ := "chat"
	if dir == "room" {
		typ = "groupchat"
	}
	return fmt.Sprintf(`<append dir='%s' owner='%s' peer='%s' key='%s' %s><message xmlns='jabber:client' type='%s' from='%s' to='%s'><body>%s</body></message></append>`,
		dir, owner, peer, key, strings.Join(more, " "), typ, from, to, body)
}

// archived appends, and returns the words of the answer.
func (p *peer) archived(host string, appends ...string) []string {
	p.t.Helper()
	return words(p.t, p.ask("set", host, testDomain, batch(appends...)), len(appends))
}

func words(t testing.TB, e *stanza.Element, n int) []string {
	t.Helper()
	if e.Attr("type") != "result" || e.Child(NS, "archived") == nil {
		t.Fatalf("it was not archived: %s", e.Bytes())
	}
	words := strings.Fields(e.ChildText(NS, "archived"))
	if len(words) != n {
		t.Fatalf("%d appends were answered with %q", n, words)
	}
	return words
}

// condition is that of the error that e is, "" if it is none.
func condition(e *stanza.Element) string {
	err := e.Child(e.Space, "error")
	if e.Attr("type") != "error" || err == nil || err.First() == nil {
		return ""
	}
	return err.Attr("type") + "/" + err.First().Local
}

// page asks for a page and returns its stanzas.
func (p *peer) page(host, owner, asker, iq string, more ...string) []*stanza.Element {
	p.t.Helper()
	return unpack(p.t, p.ask("get", host, testDomain, query(owner, asker, iq, more...)))
}

func query(owner, asker, iq string, more ...string) string {
	return fmt.Sprintf(`<query xmlns='%s' owner='%s' asker='%s' %s>%s</query>`, NS, owner, asker, strings.Join(more, " "), iq)
}

const everything = `<iq xmlns='jabber:client' type='set' id='c1'><query xmlns='urn:xmpp:mam:2'/></iq>`

func unpack(t testing.TB, e *stanza.Element) []*stanza.Element {
	t.Helper()
	page := e.Child(NS, "page")
	if page == nil {
		t.Fatalf("no page: %s", e.Bytes())
	}
	r := stanza.NewReader(bufio.NewReader(strings.NewReader(page.Text())), nil, stanza.Limits{Bytes: 8 << 20, Depth: 1000, Attrs: 100})
	var all []*stanza.Element
	for {
		s, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in the page %s", err, page.Text())
		}
		if s.Space != stanza.NSClient {
			t.Errorf("a stanza of the page is in %q", s.Space)
		}
		all = append(all, s)
	}
	if page.Attr("stanzas") != fmt.Sprint(len(all)) {
		t.Errorf("the page says that it has %s stanzas, and has %d", page.Attr("stanzas"), len(all))
	}
	return all
}

// bodies are those of a page's messages; its last stanza is the iq.
func bodies(page []*stanza.Element) (all []string) {
	for _, m := range page[:len(page)-1] {
		forwarded := m.Child(xep0313.NS, "result").Child(xep0313.NSForward, "forwarded")
		all = append(all, forwarded.Child(stanza.NSClient, "message").ChildText(stanza.NSClient, "body"))
	}
	return all
}

// logged waits for a line of the log.
func (f *fixture) logged(message string) observer.LoggedEntry {
	f.t.Helper()
	var found observer.LoggedEntry
	f.eventually("the log has no line "+message, func() bool {
		lines := f.logs.FilterMessage(message).All()
		if len(lines) > 0 {
			found = lines[len(lines)-1]
		}
		return len(lines) > 0
	})
	return found
}

// eventually waits until a condition holds.
func (f *fixture) eventually(otherwise string, holds func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatal(otherwise)
		}
	}
}

func (f *fixture) status() Status { return f.links.Status()[0] }
