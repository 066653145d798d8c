package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"mamlog/integrations/peers"
)

// fleet are systems that run at the same time, so that they can be measured in
// turns. One that is not measured has nothing to do.
type fleet struct {
	systems []*system
	loads   []*load // of the same place, each with the same senders
}

// launch starts the contenders, one after the other.
func (b *Bench) launch(ctx context.Context, contenders []contender, o systemOptions) (_ *fleet, err error) {
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	f := new(fleet)
	for _, c := range contenders {
		b.say("start %s", c.Name)
		s, err := b.start(ctx, c, o)
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.systems = append(f.systems, s)
	}
	return f, nil
}

// connect logs the senders and recipients in at each system.
func (f *fleet) connect(ctx context.Context, t *text, o loadOptions) error {
	f.disconnect()
	for _, s := range f.systems {
		l, err := newLoad(ctx, t, s, o)
		if err != nil {
			return err
		}
		f.loads = append(f.loads, l)
	}
	return nil
}

func (f *fleet) disconnect() {
	for _, l := range f.loads {
		l.close()
	}
	f.loads = nil
}

// verify counts all archives that the loads wrote to.
func (f *fleet) verify(ctx context.Context) error {
	for i, l := range f.loads {
		if f.systems[i].archives() {
			if err := l.verify(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fleet) close() (err error) {
	f.disconnect()
	for _, s := range f.systems {
		err = errors.Join(err, s.close())
	}
	return err
}

// throughput measures all systems in turns.
func (f *fleet) throughput(ctx context.Context, rounds, senders, window int, warmUp, d time.Duration) ([][]float64, error) {
	sides := make([]func() (float64, error), len(f.loads))
	for i, l := range f.loads {
		sides[i] = func() (float64, error) { return l.throughput(ctx, senders, window, warmUp, d) }
	}
	return inTurns(rounds, sides)
}

// latency measures all systems in turns, but those that can't keep the rate up.
// It returns the medians of the rounds, in milliseconds, and all rounds' latencies
// together.
func (f *fleet) latency(ctx context.Context, rounds, senders int, rate float64, d time.Duration, able []bool, seed uint64) (p50 [][]float64, all []*hdrhistogram.Histogram, err error) {
	all = make([]*hdrhistogram.Histogram, len(f.loads))
	sides := make([]func() (float64, error), len(f.loads))
	for i, l := range f.loads {
		all[i] = newHistogram()
		sides[i] = func() (float64, error) {
			if !able[i] {
				return math.NaN(), nil
			}
			seed++
			h, err := l.openLoop(ctx, senders, rate, d, seed)
			if err != nil {
				return 0, err
			}
			all[i].Merge(h)
			return milliseconds(h, 50), nil
		}
	}
	p50, err = inTurns(rounds, sides)
	return p50, all, err
}

// milliseconds is a percentile of a histogram of microseconds; NaN of an empty one.
func milliseconds(h *hdrhistogram.Histogram, percentile float64) float64 {
	if h.TotalCount() == 0 {
		return math.NaN()
	}
	return float64(h.ValueAtPercentile(percentile)) / 1000
}

// able tells who can deliver so many messages a second, with room to spare.
func able(throughput [][]float64, rate float64) []bool {
	a := make([]bool, len(throughput))
	for i, t := range throughput {
		a[i] = rate <= 0.7*median(t)
	}
	return a
}

// everybody can.
func everybody(n int) []bool { return slices.Repeat([]bool{true}, n) }

// latencyRates are messages a second at which latency is told.
var latencyRates = []float64{100, 400, 1600, 6400}

// sweepRate is the rate at which latency is compared where something else varies:
// all contenders can deliver as much.
const sweepRate = 100

// The order of the contenders, in tables and plots.
var ingestContenders = []contender{
	embedded, prosodyNone, prosodyInternal, prosodySQLite, ejabberdNone, ejabberdMnesia, ejabberdSQLite, ejabberdPostgres,
}

// Ingest measures how fast messages between accounts are delivered and archived,
// over XMPP, by mamlog's embedded host and by the peers.
func (b *Bench) Ingest(ctx context.Context) (s Section, err error) {
	s = Section{ID: "ingest", Title: "Messages over XMPP", Text: fmt.Sprintf(`%d senders and as many recipients over loopback, in plain text, each sender with %d
messages under way. A message counts when its recipient has it: the right body, in the order of its sender,
with the stanza-id of the recipient's archive. In the end every archive is asked how many messages it
has, which must be all. mamlog, SQLite and PostgreSQL sync what they acknowledge; Prosody's internal files and mnesia do not.

Latency is from the moment at which a message was to be sent (open loop, exponential distances) to its
delivery. A rate is left out for who delivers less than 1.4 times as much at most.

Messages are as long as those of an ejabberd server's archive were (ProcessOne: log-normal, median 18
letters), with an origin-id, a request for a receipt and one for a marker; see bench/text.go.`, b.Pairs, b.Window)}
	f, err := b.launch(ctx, ingestContenders, systemOptions{count: true})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	most := 2 * b.Pairs
	if err := f.connect(ctx, b.text, loadOptions{pairs: most, spread: 1, name: "p", seed: b.Seed}); err != nil {
		return s, err
	}
	b.say("throughput, %d rounds", b.Rounds)
	rates, err := f.throughput(ctx, b.Rounds, b.Pairs, b.Window, b.Time/3, b.Time)
	if err != nil {
		return s, err
	}
	b.ingestGoals(&s, rates)
	for _, rate := range latencyRates {
		b.say("latency at %v messages/s", rate)
		_, all, err := f.latency(ctx, min(b.Rounds, 3), b.Pairs, rate, b.Time, able(rates, rate), b.Seed)
		if err != nil {
			return s, err
		}
		b.latencyRow(&s, rate, all)
	}
	// Against the number of clients.
	var pairs []float64
	for _, n := range []int{1, b.Pairs / 8, b.Pairs / 2, b.Pairs, most} {
		if n > 0 && !slices.Contains(pairs, float64(n)) {
			pairs = append(pairs, float64(n))
		}
	}
	clients := newSweep("clients", "senders, each with a recipient", pairs)
	for _, n := range pairs {
		b.say("%v senders", n)
		if err := b.sweep(ctx, f, clients, int(n)); err != nil {
			return s, err
		}
	}
	b.say("count the archives")
	if err := f.verify(ctx); err != nil {
		return s, err
	}
	s.Plots = append(s.Plots, clients.plots()...)
	// Against the number of archives.
	var counts []float64
	spreads := []int{1, 8, 32}
	for _, spread := range spreads {
		counts = append(counts, float64(b.Pairs*(1+spread)))
	}
	archives := newSweep("archives", "archives written to", counts)
	for _, spread := range spreads {
		b.say("%d archives", b.Pairs*(1+spread))
		if err := f.connect(ctx, b.text, loadOptions{pairs: b.Pairs, spread: spread, name: fmt.Sprintf("a%d", spread), seed: b.Seed}); err != nil {
			return s, err
		}
		if err := b.sweep(ctx, f, archives, b.Pairs); err != nil {
			return s, err
		}
		if err := f.verify(ctx); err != nil {
			return s, err
		}
	}
	s.Plots = append(s.Plots, archives.plots()...)
	sizes, err := b.ingestSizes(ctx)
	s.Plots = append(s.Plots, sizes.plots()...)
	return s, err
}

// ingestSizes measures against the size of the archives that are written to, one
// contender after the other.
func (b *Bench) ingestSizes(ctx context.Context) (*sweep, error) {
	sizes := []int{1, max(b.Large/1000, 2), max(b.Large/200, 3)}
	var x []float64
	for _, n := range sizes {
		x = append(x, float64(n))
	}
	w := newSweep("size", "messages in each archive beforehand", x)
	now := time.Now()
	for _, c := range ingestContenders {
		if !c.archives() {
			continue
		}
		for _, n := range sizes {
			if c.Archive == peers.Mnesia && n > sizes[1] {
				continue // filling it takes longer than all else
			}
			if err := b.ingestSize(ctx, w, c, n, now); err != nil {
				return w, err
			}
		}
	}
	return w, nil
}

func (b *Bench) ingestSize(ctx context.Context, w *sweep, c contender, n int, now time.Time) (err error) {
	b.say("%s, archives of %s", c.Name, grouped(int64(n)))
	var all []*contents
	for i := range b.Pairs {
		for _, user := range []string{fmt.Sprintf("zs%d", i), fmt.Sprintf("zr%d-0", i)} {
			all = append(all, newContents(b.text, b.Seed+uint64(len(all)), user, n, now))
		}
	}
	f, err := b.launch(ctx, []contender{c}, systemOptions{contents: all})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.connect(ctx, b.text, loadOptions{pairs: b.Pairs, spread: 1, name: "z", seed: b.Seed}); err != nil {
		return err
	}
	return b.sweep(ctx, f, w, b.Pairs)
}

func (b *Bench) ingestGoals(s *Section, rates [][]float64) {
	index := func(c contender) int { return slices.Index(ingestContenders, c) }
	var others [][]float64
	for i, c := range ingestContenders {
		if c == embedded || !c.archives() {
			others = append(others, nil)
		} else {
			others = append(others, rates[i])
		}
	}
	ours, none := rates[index(embedded)], rates[index(prosodyNone)]
	top := best(others)
	s.Goals = append(s.Goals,
		ratio("messages/s, durable, both archives ÷ the best peer's with its archive on", ours, others[top], ingestContenders[top].Name, 6, false),
		ratio("the same ÷ Prosody's with no archive", ours, none, prosodyNone.Name, 0.9, false))
	t := Table{Title: "Throughput", Header: []string{"", "messages/s", "least", "most"}}
	for i, c := range ingestContenders {
		t.Rows = append(t.Rows, []string{c.Name, number(median(rates[i])), number(slices.Min(rates[i])), number(slices.Max(rates[i]))})
	}
	s.Tables = append(s.Tables, t)
}

// latencyRow adds what was found at one rate.
func (b *Bench) latencyRow(s *Section, rate float64, all []*hdrhistogram.Histogram) {
	t := Table{Title: fmt.Sprintf("Latency at %s messages/s, ms", number(rate)), Header: []string{"", "p50", "p90", "p99", "p99.9", "max"}}
	for i, h := range all {
		if h.TotalCount() == 0 {
			continue
		}
		t.Rows = append(t.Rows, []string{ingestContenders[i].Name, number(milliseconds(h, 50)), number(milliseconds(h, 90)),
			number(milliseconds(h, 99)), number(milliseconds(h, 99.9)), number(float64(h.Max()) / 1000)})
	}
	if len(t.Rows) == 0 {
		return // nobody could
	}
	s.Tables = append(s.Tables, t)
	if n := len(s.Plots); n == 0 || s.Plots[n-1].ID != "latency" {
		p := Plot{ID: "latency", Title: "Latency from the intended moment (p99)", X: "messages/s", Y: "ms", LogX: true, LogY: true}
		for _, c := range ingestContenders {
			p.Series = append(p.Series, Series{Name: c.Name, Ours: c == embedded})
		}
		s.Plots = append(s.Plots, p)
	}
	p := &s.Plots[len(s.Plots)-1]
	for i, h := range all {
		if v := milliseconds(h, 99); finite(v) {
			p.Series[i].X, p.Series[i].Y = append(p.Series[i].X, rate), append(p.Series[i].Y, v)
		}
	}
}

// sweep is how throughput and latency depend on one thing.
type sweep struct {
	id, what           string
	x                  []float64
	names              []string
	throughput, p50, p []Series
}

func newSweep(id, what string, x []float64) *sweep { return &sweep{id: id, what: what, x: x} }

// sweep measures one place of a sweep, the next that it has.
func (b *Bench) sweep(ctx context.Context, f *fleet, w *sweep, senders int) error {
	rates, err := f.throughput(ctx, 1, senders, b.Window, b.Time/6, b.Time/2)
	if err != nil {
		return err
	}
	_, all, err := f.latency(ctx, 1, senders, sweepRate, b.Time/2, everybody(len(f.loads)), b.Seed)
	if err != nil {
		return err
	}
	for i, sys := range f.systems {
		w.add(sys.contender, rates[i][0], milliseconds(all[i], 50), milliseconds(all[i], 99))
	}
	return nil
}

// add takes a contender's figures for the next place.
func (w *sweep) add(c contender, rate, p50, p99 float64) {
	i := slices.Index(w.names, c.Name)
	if i < 0 {
		i = len(w.names)
		w.names = append(w.names, c.Name)
		for _, list := range []*[]Series{&w.throughput, &w.p50, &w.p} {
			*list = append(*list, Series{Name: c.Name, Ours: c == embedded})
		}
	}
	x := w.x[len(w.throughput[i].X)]
	for _, v := range []struct {
		s *Series
		y float64
	}{{&w.throughput[i], rate}, {&w.p50[i], p50}, {&w.p[i], p99}} {
		v.s.X, v.s.Y = append(v.s.X, x), append(v.s.Y, v.y)
	}
}

func (w *sweep) plots() []Plot {
	latency := "Latency at " + strconv.Itoa(sweepRate) + " messages/s, "
	return []Plot{
		{ID: w.id + "-throughput", Title: "Messages delivered", X: w.what, Y: "messages/s", LogX: true, LogY: true, Series: w.throughput},
		{ID: w.id + "-p50", Title: latency + "p50", X: w.what, Y: "ms", LogX: true, LogY: true, Series: w.p50},
		{ID: w.id + "-p99", Title: latency + "p99", X: w.what, Y: "ms", LogX: true, LogY: true, Series: w.p},
	}
}
