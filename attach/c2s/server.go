package c2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/attach/admit"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// Config for New. Hosts, Accounts, Archive, Log and Projections are needed, and
// at least one of Listen and WebSocketListen.
type Config struct {
	Listen          string // host:port for XMPP over TCP (RFC 6120); "": off
	WebSocketListen string // host:port for XMPP over WebSocket (RFC 7395); "": off

	// AllowPlaintext lets clients log in without TLS, and makes the WebSocket
	// listener speak ws instead of wss. New refuses it for a listener that is
	// not on loopback.
	AllowPlaintext bool

	Certificate, Key string   // PEM files; both empty: a self-signed one, kept in DataDir
	DataDir          string   // where that is kept
	Hosts            []string // the domains whose users log in here

	Accounts    *Accounts
	Archive     *xep0313.Archive
	Log         *log.Log           // the main store: accounts and rosters
	Projections *projections.Store // of Log

	Logger  *zap.Logger           // nil: silent
	Metrics prometheus.Registerer // nil: none
	Limits  Limits
}

// Limits bound what one client can use up. A zero field means its default.
type Limits struct {
	Stanza       stanza.Limits // default: stanza.DefaultLimits
	LoginTimeout time.Duration // from accept to the bound resource; default 30 s
	Logins       int           // failed SASL attempts on one connection; default 3
	FailedLogins int           // failed SASL attempts from one address in a minute; default 60
	Connections  int           // at once; default 10000
	Strangers    int           // of these, not logged in; default 1000
	Queries      int           // requests of one user to an archive that are not answered; default 128
	QueueBytes   int           // waiting to be written to one client; default 16 MiB
	InFlight     int           // stanzas of one client that are being handled; default 256
	WriteTimeout time.Duration // without progress while the client owes reading; default 5 min
	CloseTimeout time.Duration // for the last words of a session; default 5 s
}

func (l Limits) withDefaults() Limits {
	if l.Stanza == (stanza.Limits{}) {
		l.Stanza = stanza.DefaultLimits
	}
	if l.LoginTimeout == 0 {
		l.LoginTimeout = 30 * time.Second
	}
	for _, n := range []struct {
		field *int
		value int
	}{
		{&l.Logins, 3}, {&l.FailedLogins, 60}, {&l.Connections, 10000}, {&l.Strangers, 1000}, {&l.Queries, 128},
		{&l.QueueBytes, 16 << 20}, {&l.InFlight, 256},
	} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	if l.WriteTimeout == 0 {
		l.WriteTimeout = 5 * time.Minute
	}
	if l.CloseTimeout == 0 {
		l.CloseTimeout = 5 * time.Second
	}
	return l
}

// Server is the host. It is made by New.
type Server struct {
	c         Config
	limits    Limits
	logger    *zap.Logger
	metrics   *metrics
	hosts     map[string]bool
	tls       *tls.Config
	tcp, ws   net.Listener // nil: off
	http      *http.Server
	fakeSalts []byte // key that makes the salts of accounts that don't exist

	certificate atomic.Pointer[tls.Certificate] // of tls

	users    registry
	door     *door
	refusals chan struct{} // held by those who are told why they can't come in
	queries  *admit.Bound  // by bare JID
	failures *admit.Rate   // of logins, by address

	// Connections of all stages, so that they can be ended.
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	open   sync.WaitGroup
}

// New checks c and binds the sockets, so that a port in use is an error here.
func New(c Config) (*Server, error) {
	if len(c.Hosts) == 0 {
		return nil, errors.New("c2s: no host is configured: name at least one domain")
	}
	if c.Listen == "" && c.WebSocketListen == "" {
		return nil, errors.New("c2s: nothing to listen on: set listen, websocket_listen or both")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	s := &Server{
		c: c, limits: c.Limits.withDefaults(), logger: c.Logger,
		hosts: make(map[string]bool), conns: make(map[net.Conn]struct{}),
		fakeSalts: make([]byte, 32), refusals: make(chan struct{}, maxRefusals),
	}
	s.door = &door{connections: s.limits.Connections, strangers: s.limits.Strangers}
	s.queries, s.failures = admit.NewBound(s.limits.Queries), admit.NewRate(s.limits.FailedLogins, nil)
	rand.Read(s.fakeSalts)
	s.users.byBare = make(map[string]map[string]*session)
	for _, h := range c.Hosts {
		j, err := jid.New("", h, "")
		if err != nil {
			return nil, fmt.Errorf("c2s: the host %q is not a domain: %w", h, err)
		}
		s.hosts[j.Domainpart()] = true
	}
	var err error
	if err = s.ReloadCertificate(); err != nil {
		return nil, err
	}
	s.tls = s.newTLS()
	if s.metrics, err = newMetrics(c.Metrics, s); err != nil {
		return nil, fmt.Errorf("c2s: register metrics: %w", err)
	}
	if s.tcp, err = s.listen(c.Listen, s.turnAway); err != nil {
		return nil, err
	}
	// What is wrong can't be told before TLS and the request are there.
	if s.ws, err = s.listen(c.WebSocketListen, func(c net.Conn, _ string) { c.Close() }); err != nil {
		if s.tcp != nil {
			s.tcp.Close()
		}
		return nil, err
	}
	if s.ws != nil {
		s.http = s.newHTTP()
	}
	return s, nil
}

func (s *Server) listen(address string, turnAway func(net.Conn, string)) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	// Dead peers are found by probes: 60 s of silence, then four 15 s apart.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4,
	}}
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("c2s: listen on %s: %w", address, err)
	}
	if s.c.AllowPlaintext && !loopback(l.Addr()) {
		l.Close()
		return nil, fmt.Errorf("c2s: allow_plaintext is only for listeners on loopback, and %s is not: "+
			"listen on 127.0.0.1 or [::1], or remove allow_plaintext", address)
	}
	return &guarded{l, s, turnAway}, nil
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// Addr is where the TCP listener is bound, nil if there is none.
func (s *Server) Addr() net.Addr { return addressOf(s.tcp) }

// WebSocketAddr is where the WebSocket listener is bound, nil if there is none.
func (s *Server) WebSocketAddr() net.Addr { return addressOf(s.ws) }

func addressOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

// Serve accepts clients until ctx ends. Then it stops accepting, ends every
// stream with <system-shutdown/> (RFC 6120 section 4.9.3.19), waits for them at
// most Limits.CloseTimeout and a second, and returns nil. It is called once.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 2)
	if s.tcp != nil {
		go func() { failed <- s.accept(s.tcp) }()
	}
	if s.ws != nil {
		go func() { failed <- s.http.Serve(s.ws) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.shutdown()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("c2s: accept: %w", err)
}

func (s *Server) shutdown() {
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.ws != nil {
		s.http.Close() // and what hasn't become a WebSocket
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, x := range s.users.all() {
		x.fail(&stanza.StreamError{Condition: "system-shutdown", Text: "the server is stopping"})
	}
	done := make(chan struct{})
	go func() { s.open.Wait(); close(done) }()
	// Whoever is still logging in has nothing to lose.
	bound := make(map[net.Conn]bool)
	for _, x := range s.users.all() {
		bound[x.conn] = true
	}
	s.closeConns(func(c net.Conn) bool { return !bound[c] })
	select {
	case <-done:
	case <-time.After(s.limits.CloseTimeout + time.Second):
		s.closeConns(func(net.Conn) bool { return true })
	}
}

func (s *Server) closeConns(which func(net.Conn) bool) {
	s.mu.Lock()
	conns := make([]net.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if which(c) {
			c.Close()
		}
	}
}

func (s *Server) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of file descriptors, most likely: it passes.
			s.logger.Warn("c2s: accept a connection", zap.Error(err))
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !s.track(c) {
			c.Close()
			continue
		}
		go func() {
			defer s.untrack(c)
			s.serveTCP(c, c.(*admitted).loggedIn)
		}()
	}
}

// track remembers c; false means that the server is stopping.
func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.open.Add(1)
	return true
}

func (s *Server) untrack(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.open.Done()
}

// Kick ends the sessions of an account with <not-authorized/>; for an account
// that was deleted, or whose password was changed because it leaked.
func (s *Server) Kick(j jid.JID) {
	for _, x := range s.users.of(j.Bare().String()) {
		x.fail(&stanza.StreamError{Condition: "not-authorized", Text: "the account was deleted or locked"})
	}
}
