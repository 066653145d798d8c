package component

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"
)

// link is one configured link over all of its connections.
type link struct {
	*Links
	config  Link
	address jid.JID // of the component
	domain  string  // the same
	hosts   []*host
	spoken  map[string]*host // by each form that the server may write it in
	logger  *zap.Logger
	metrics linkMetrics
	meter   meter
	queries struct{ waiting, answered atomic.Int64 }

	mu      sync.Mutex
	state   State
	since   time.Time
	kind    string // of the fault, while the link is down
	fault   string // the last one
	faultAt time.Time
	stream  *stream // while the link is up
}

// host is one of the domains that a link speaks for.
type host struct {
	name string

	// Of the last hello; guarded by link.mu.
	greeting greeting
	greeted  bool // on the stream that is open
	at       time.Time
	grants   grants // on the stream that is open
}

// run keeps the link open until ctx ends.
func (l *link) run(ctx context.Context) {
	wait := backoff{min: l.limits.MinBackoff, max: l.limits.MaxBackoff}
	for {
		good, err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		f := explain(l, err)
		if good && f.kind != "conflict" { // whom another connection throws out must not throw that out at once
			wait.reset()
		}
		l.down(f)
		t := time.NewTimer(wait.next())
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// once connects, serves the stream until it ends, and returns why it did. good
// tells whether there was a module at the other end.
func (l *link) once(ctx context.Context) (good bool, err error) {
	w, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	s := newStream(l, w)
	l.up(s)
	err = s.run(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream = nil
	good = slices.ContainsFunc(l.hosts, func(h *host) bool { return h.greeted })
	for _, h := range l.hosts {
		h.greeted, h.grants = false, grants{}
	}
	return good, err
}

func (l *link) up(s *stream) {
	l.mu.Lock()
	before, since := l.state, l.since
	l.state, l.since, l.kind, l.stream = Up, time.Now(), "", s
	l.mu.Unlock()
	l.metrics.up.Set(1)
	l.metrics.connections.Inc()
	fields := []zap.Field{zap.Stringer("address", s.conn.RemoteAddr())}
	if before == Down {
		fields = append(fields, zap.Duration("after", time.Since(since).Round(time.Millisecond)))
	}
	l.logger.Info("link: up", fields...)
}

// down tells why the link is down, once for as long as that stays the reason.
func (l *link) down(f fault) {
	now := time.Now()
	l.mu.Lock()
	news := l.state != Down || l.kind != f.kind
	if l.state != Down {
		l.since = now
	}
	l.state, l.kind, l.fault, l.faultAt = Down, f.kind, f.text, now
	l.mu.Unlock()
	l.metrics.up.Set(0)
	l.metrics.faults(f.kind).Inc()
	if !news {
		return
	}
	fields := []zap.Field{zap.String("reason", f.text)}
	if f.advice != "" {
		fields = append(fields, zap.String("advice", f.advice))
	}
	l.logger.Warn("link: down; it is tried again until it is up", fields...)
}

// missHello tells which hosts neither said hello on the stream that is open nor let
// their clients ask without.
func (l *link) missHello() {
	var missing []string
	l.mu.Lock()
	for _, h := range l.hosts {
		if l.stream != nil && !h.greeted && !h.grants.complete() {
			missing = append(missing, h.name)
		}
	}
	l.mu.Unlock()
	if len(missing) > 0 {
		l.logger.Warn("link: these hosts are not served, since their module says no hello", zap.Strings("hosts", missing),
			zap.String("advice", "load the module on them at the server, with the domain of this component"))
	}
}

// waiting counts the queries that are not answered yet.
func (l *link) waiting(n int) {
	l.queries.waiting.Add(int64(n))
	l.metrics.waiting.Add(float64(n))
}

// backoff doubles from min to max, and takes off up to a half of each so that
// several links don't come back all at once.
type backoff struct{ min, max, now time.Duration }

func (b *backoff) reset() { b.now = 0 }

func (b *backoff) next() time.Duration {
	b.now = min(max(b.min, 2*b.now), b.max)
	return b.now - rand.N(b.now/2+1)
}
