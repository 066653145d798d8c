package component

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/idna"
	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// Archive is what the links are for; *xep0313.Archive is one.
type Archive interface {
	// Append calls done, in the order of the calls of Append for a host, when all
	// that is archived of sides is durable, with one outcome a side; its caller
	// must not block. With an error nothing was archived and done isn't called.
	Append(sides []xep0313.Side, done func([]xep0313.Outcome)) error
	// HandleIQ and HandleRoomIQ emit the answer to iq, and tell whether iq is one
	// of those that an archive answers.
	HandleIQ(ctx context.Context, iq *stanza.Element, asker jid.JID, emit func([]byte)) bool
	HandleRoomIQ(ctx context.Context, room, asker jid.JID, real xep0313.RealJIDs, iq *stanza.Element, emit func([]byte)) bool
	// DeleteArchive returns when owner's archive is empty for whoever comes next.
	DeleteArchive(ctx context.Context, owner jid.JID, actor string) error
}

// Link says where one link goes and for whom.
type Link struct {
	Server string   // host:port of the server's component listener
	Domain string   // of the component, which the server knows
	Secret []byte   // shared with the server
	Hosts  []string // the server's domains that this link may speak for

	// TLS from the first byte on (there is no STARTTLS for components); nil:
	// none, and then the address must be on loopback unless AllowPlaintext is set.
	TLS            *tls.Config
	AllowPlaintext bool

	// Delegation lets the hosts' clients ask without a module in the server, as
	// far as the server grants it (XEP-0355, XEP-0356).
	Delegation bool
}

// Config for New. Links and Archive are needed.
type Config struct {
	Links   []Link
	Archive Archive
	Logger  *zap.Logger           // nil: silent
	Metrics prometheus.Registerer // nil: none
	Limits  Limits
}

// Limits bound what one link can use up, and how long things may take. A zero
// field means its default.
type Limits struct {
	MaxBatch int // appends in one batch; default 256
	MaxBytes int // bytes of one batch; twice as many are taken; default 256 KiB
	Window   int // appends that are unanswered on a link; default 4096
	Queries  int // answered at once; default 32
	Waiting  int // queries that wait behind these; default 512
	PerUser  int // queries of one user that are not answered; default 128

	ConnectTimeout time.Duration // from the dial to the accepted handshake; default 10 s
	MinBackoff     time.Duration // before the first attempt to reconnect; default 100 ms
	MaxBackoff     time.Duration // between later ones; default 30 s
	HelloTimeout   time.Duration // after which hosts that said no hello are told of; default 15 s
	KeepAlive      time.Duration // between the blanks that find a dead connection; default 30 s
	WriteTimeout   time.Duration // in which the server must read something; default 60 s
	CloseTimeout   time.Duration // for what is in flight at the end; default 5 s
}

func (l Limits) withDefaults() Limits {
	for _, n := range []struct {
		field *int
		value int
	}{{&l.MaxBatch, 256}, {&l.MaxBytes, 256 << 10}, {&l.Window, 4096}, {&l.Queries, 32}, {&l.Waiting, 512}, {&l.PerUser, 128}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.ConnectTimeout, 10 * time.Second}, {&l.MinBackoff, 100 * time.Millisecond}, {&l.MaxBackoff, 30 * time.Second},
		{&l.HelloTimeout, 15 * time.Second}, {&l.KeepAlive, 30 * time.Second}, {&l.WriteTimeout, time.Minute}, {&l.CloseTimeout, 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

// Links are all links of a process. It is made by New.
type Links struct {
	links   []*link
	archive Archive
	logger  *zap.Logger
	metrics *metrics
	limits  Limits
}

// New checks c. No connection is made before Serve.
func New(c Config) (*Links, error) {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	ls := &Links{archive: c.Archive, logger: c.Logger, limits: c.Limits.withDefaults()}
	if ls.limits.MaxBatch > ls.limits.Window {
		return nil, errors.New("component: a batch may hold more appends than the window, and could never be answered")
	}
	var err error
	if ls.metrics, err = newMetrics(c.Metrics); err != nil {
		return nil, fmt.Errorf("component: register metrics: %w", err)
	}
	linked := make(map[string]string)
	for _, lc := range c.Links {
		l, err := newLink(ls, lc)
		if err != nil {
			return nil, fmt.Errorf("component: link %s to %s: %w", lc.Domain, lc.Server, err)
		}
		for _, h := range l.hosts {
			if other, twice := linked[h.name]; twice {
				return nil, fmt.Errorf("component: the host %s is on two links, %s and %s", h.name, other, l.domain)
			}
			linked[h.name] = l.domain
		}
		ls.links = append(ls.links, l)
	}
	return ls, nil
}

// Serve keeps all links open until ctx ends. Then nothing more is read, what is in
// flight is answered, for at most Limits.CloseTimeout, and every stream is ended.
// It is called once. It always returns nil.
func (ls *Links) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range ls.links {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
	return nil
}

func newLink(ls *Links, c Link) (*link, error) {
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		return nil, fmt.Errorf("the server's address is not host:port: %w", err)
	}
	domain, err := parseDomain(c.Domain)
	if err != nil {
		return nil, fmt.Errorf("the component's domain: %w", err)
	}
	if len(c.Secret) == 0 {
		return nil, errors.New("the secret is missing")
	}
	if len(c.Hosts) == 0 {
		return nil, errors.New("no host is named that it may speak for")
	}
	l := &link{
		Links: ls, config: c, address: domain, domain: domain.String(), spoken: make(map[string]*host),
		logger: ls.logger.With(zap.String("server", c.Server), zap.String("component", domain.String())),
	}
	for _, name := range c.Hosts {
		j, err := parseDomain(name)
		if err != nil {
			return nil, fmt.Errorf("the host %q: %w", name, err)
		}
		h := &host{name: j.String()}
		if l.spoken[h.name] != nil {
			return nil, fmt.Errorf("the host %s is named twice", h.name)
		}
		l.hosts = append(l.hosts, h)
		// A server may write its own domain in either form. No others are taken:
		// what is compared loosely could be somebody else's domain.
		l.spoken[h.name] = h
		if ascii, err := idna.Lookup.ToASCII(h.name); err == nil {
			l.spoken[ascii] = h
		}
	}
	l.metrics = ls.metrics.of(l)
	l.since, l.state = time.Now(), Connecting
	return l, nil
}

func parseDomain(s string) (jid.JID, error) {
	j, err := jid.Parse(s)
	if err != nil {
		return j, err
	}
	if j.Localpart() != "" || j.Resourcepart() != "" {
		return j, errors.New("it is not a domain")
	}
	return j, nil
}
