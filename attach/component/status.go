package component

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// State of a link.
type State uint8

// The states of a link. It is Connecting only until its first attempt is over.
const (
	Connecting State = iota
	Up
	Down
)

func (s State) String() string { return [...]string{"connecting", "up", "down"}[s] }

// Status is how a link is doing.
type Status struct {
	Server, Domain string
	State          State
	Since          time.Time // when it came into the state
	Hosts          []HostStatus

	InFlight int           // appends that are unanswered
	Appends  uint64        // answered since the process started
	Rate     float64       // of them, a second, over the last minute
	P50, P99 time.Duration // from an append's arrival to its answer, of the last batches of the last minute
	Waiting  int           // queries that are unanswered
	Queries  uint64        // answered since the process started
	Fault    string        // why the link was down the last time; empty: it never was
	FaultAt  time.Time     // when that was found last
}

// HostStatus is what a module said of itself in its last hello. Without one it has
// only the name.
type HostStatus struct {
	Name       string
	Served     bool      // there was a hello on the stream that is open
	Delegated  bool      // the server lets clients ask without a module
	LastHello  time.Time // zero: there was none
	Version    int       // of the attach protocol
	Rooms      bool      // false: accounts
	Software   string
	Spool      int64 // messages that wait there
	SpoolBytes int64
	Fault      string // the last one, in its words
}

// Status returns how each link is doing, in the order of Config.Links.
func (ls *Links) Status() []Status {
	all := make([]Status, len(ls.links))
	for i, l := range ls.links {
		all[i] = l.status(time.Now())
	}
	return all
}

func (l *link) status(now time.Time) Status {
	st := Status{Server: l.config.Server, Domain: l.domain}
	st.Appends, st.Rate, st.P50, st.P99 = l.meter.read(now)
	st.Waiting, st.Queries = int(l.queries.waiting.Load()), uint64(l.queries.answered.Load())
	l.mu.Lock()
	defer l.mu.Unlock()
	st.State, st.Since, st.Fault, st.FaultAt = l.state, l.since, l.fault, l.faultAt
	for _, h := range l.hosts {
		g := h.greeting
		st.Hosts = append(st.Hosts, HostStatus{
			Name: h.name, Served: h.greeted, LastHello: h.at, Version: g.version, Rooms: g.rooms,
			Delegated: h.grants.complete(),
			Software:  g.software, Spool: g.spool, SpoolBytes: g.spoolBytes, Fault: g.fault,
		})
	}
	if l.stream != nil {
		st.InFlight = l.stream.flying.inFlight()
	}
	return st
}

func hostFields(name string, g greeting) []zap.Field {
	serves := "accounts"
	if g.rooms {
		serves = "rooms"
	}
	fields := []zap.Field{zap.String("host", name), zap.String("serves", serves), zap.String("software", g.software)}
	if g.spool > 0 {
		fields = append(fields, zap.Int64("spool", g.spool))
	}
	return fields
}

const (
	rateSeconds = 60
	samples     = 4096 // latencies that are kept, one a batch
)

// meter knows how fast appends were answered lately.
type meter struct {
	mu        sync.Mutex
	total     uint64
	seconds   [rateSeconds]struct{ second, n int64 }
	latencies [samples]sample
	next      int
}

type sample struct {
	at   time.Time
	took time.Duration
}

func (m *meter) appended(n int, now time.Time, took time.Duration) {
	second := now.Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += uint64(n)
	s := &m.seconds[second%rateSeconds]
	if s.second != second {
		s.second, s.n = second, 0
	}
	s.n += int64(n)
	m.latencies[m.next%samples] = sample{now, took}
	m.next++
}

// read returns how many there were, and of the last minute their rate and median
// and 99th percentile.
func (m *meter) read(now time.Time) (total uint64, rate float64, p50, p99 time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(0)
	for _, s := range m.seconds {
		if now.Unix()-s.second < rateSeconds {
			n += s.n
		}
	}
	var took []time.Duration
	for _, s := range m.latencies[:min(m.next, samples)] {
		if now.Sub(s.at) < rateSeconds*time.Second {
			took = append(took, s.took)
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		p50, p99 = took[(len(took)-1)/2], took[(len(took)-1)*99/100]
	}
	return m.total, float64(n) / rateSeconds, p50, p99
}
