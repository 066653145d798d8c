package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"mamlog/integrations/peers"
)

// The order of the contenders, in tables and plots.
var pageContenders = []contender{embedded, prosodyInternal, prosodySQLite, ejabberdMnesia, ejabberdSQLite, ejabberdPostgres}

// largest is how many messages an archive may have that the contender is asked to
// page through. Prosody's internal storage reads all of it for each page, and
// takes seconds already for this many. mnesia reads all of a table's larger
// archives as well, so that one would spoil the figures of the others.
func (c contender) largest() int {
	switch c.Archive {
	case peers.Internal:
		return 100_000
	case peers.Mnesia:
		return 10_000
	}
	return math.MaxInt
}

// place is one thing that is measured of pages.
type place struct {
	size    int
	kind    pageKind
	clients int
}

// goalSizes are the archives for which there are goals.
var goalSizes = []int{100_000, 1_000_000}

// Pages measures how fast clients page through archives, over XMPP.
func (b *Bench) Pages(ctx context.Context) (s Section, err error) {
	s = Section{ID: "pages", Title: "Pages over XMPP", Text: fmt.Sprintf(`Pages of %d out of archives of several sizes, which lie in one store and cover the same two years; every body is compared with what was
archived. The stores of the peers were filled with their databases' own tools, with rows as mod_mam writes
them. A walk asks for the next page each time; "back from the middle" walks too. Of the contacts one has every 20th message,
one every 10,000th, and 50 have the others as people's contacts do (Zipf, the first five 64 %%; see bench/text.go).
mamlog and ejabberd count with each page; Prosody does not, as it is by default where messages are kept for ever.`, pageSize)}
	now := time.Now()
	var all []*contents
	for _, n := range b.Sizes {
		all = append(all, newContents(b.text, b.Seed+uint64(n), fmt.Sprintf("owner%d", n), n, now))
	}
	f := new(fleet)
	defer func() { err = errors.Join(err, f.close()) }()
	for _, c := range pageContenders {
		var own []*contents
		for _, co := range all {
			if co.N <= c.largest() {
				own = append(own, co)
			}
		}
		b.say("fill %s", c.Name)
		one, err := b.launch(ctx, []contender{c}, systemOptions{contents: own})
		if err != nil {
			return s, err
		}
		f.systems = append(f.systems, one.systems...)
		var users []string
		for _, co := range own {
			users = append(users, co.User)
		}
		if err := one.systems[0].register(ctx, users...); err != nil {
			return s, err
		}
	}
	var places []place
	for _, n := range b.Sizes {
		for _, k := range pageKinds {
			for _, clients := range b.Pagers {
				if clients == b.Pagers[0] || n >= slices.Max(b.Sizes)/10 {
					places = append(places, place{n, k, clients})
				}
			}
		}
	}
	readings := make(map[place][][]float64)
	latencies := make(map[place][]*hdrhistogram.Histogram)
	wrong := make([]string, len(f.systems))
	for _, n := range b.Sizes {
		co := all[slices.Index(b.Sizes, n)]
		pagers := make([][]*pager, len(f.systems))
		for i, sys := range f.systems {
			for c := 0; c < slices.Max(b.Pagers) && n <= sys.largest(); c++ {
				p, err := newPager(ctx, sys, co, fmt.Sprintf("r%d", c))
				if err != nil {
					return s, err
				}
				defer p.Close()
				if pagers[i] = append(pagers[i], p); c > 0 {
					continue
				}
				// Where the archive isn't there, all that follows would be about nothing.
				if err := errors.Join(p.begin(pageKinds[0]), p.next()); err != nil {
					return s, fmt.Errorf("%s: %w", sys.Name, err)
				}
			}
		}
		for _, pl := range places {
			if pl.size != n || co.having(pl.kind.with).n == 0 {
				continue
			}
			b.say("%s of %s, %s", pl.kind.Name, grouped(int64(n)), counted(pl.clients, "client"))
			latencies[pl] = make([]*hdrhistogram.Histogram, len(f.systems))
			readings[pl] = make([][]float64, len(f.systems))
			for r := range b.Rounds {
				for _, i := range order(r, len(f.systems)) {
					if b.tooSlow(pl, pagers[i], readings, i) {
						continue
					}
					got, err := readPages(ctx, pagers[i][:pl.clients], pl.kind, b.Time/4)
					if err == nil && got.wrong > 0 {
						if f.systems[i].contender == embedded {
							err = got.first
						} else if wrong[i] == "" {
							wrong[i] = fmt.Sprintf("%s gave a wrong answer: %.300v", f.systems[i].Name, got.first)
						}
					}
					if err != nil {
						return s, fmt.Errorf("%s: %w", f.systems[i].Name, err)
					}
					readings[pl][i] = append(readings[pl][i], got.rate)
					if latencies[pl][i] == nil {
						latencies[pl][i] = newHistogram()
					}
					latencies[pl][i].Merge(got.latency)
				}
			}
		}
	}
	for _, w := range wrong {
		if w != "" {
			s.Text += "\n\n" + strings.Join(strings.Fields(w), " ") + ". Pages of that kind don't count."
		}
	}
	b.pageGoals(&s, places, readings)
	b.pageTables(&s, places, readings, latencies)
	return s, b.disk(ctx, &s, f)
}

// tooSlow spares what would take minutes and tell nothing: several clients at a
// server that gives one less than two pages a second, and more than two rounds of
// such pages.
func (b *Bench) tooSlow(pl place, pagers []*pager, readings map[place][][]float64, i int) bool {
	if len(pagers) == 0 {
		return true
	}
	slow := func(rates []float64) bool { return len(rates) > 0 && median(rates) < 2 }
	if pl.clients > b.Pagers[0] {
		alone := pl
		alone.clients = b.Pagers[0]
		return slow(readings[alone][i])
	}
	return len(readings[pl][i]) >= 2 && slow(readings[pl][i])
}

func (b *Bench) pageGoals(s *Section, places []place, readings map[place][][]float64) {
	most := slices.Max(b.Pagers)
	for _, pl := range places {
		rates := readings[pl]
		if rates == nil || !slices.Contains(goalSizes, pl.size) && pl.size != slices.Max(b.Sizes) {
			continue
		}
		ours := slices.Index(pageContenders, embedded)
		others := slices.Clone(rates)
		others[ours] = nil
		top := best(others)
		if top < 0 || median(others[top]) == 0 {
			continue
		}
		g := ratio(fmt.Sprintf("pages/s, %s of %s, %s ÷ the best peer's", pl.kind.Name, grouped(int64(pl.size)), counted(pl.clients, "client")),
			rates[ours], others[top], pageContenders[top].Name, 20, false)
		g.Open = pl.clients != most
		s.Goals = append(s.Goals, g)
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (b *Bench) pageTables(s *Section, places []place, readings map[place][][]float64, latencies map[place][]*hdrhistogram.Histogram) {
	for _, clients := range b.Pagers {
		for _, k := range pageKinds {
			t := Table{Title: fmt.Sprintf("%s, %s: pages/s (p50, p99 in ms)", k.Name, counted(clients, "client")), Header: []string{"messages"}}
			rates := Plot{ID: fmt.Sprintf("%s-%d", k.ID, clients), Title: fmt.Sprintf("%s, %s", k.Name, counted(clients, "client")),
				X: "messages in the archive", Y: "pages/s", LogX: true, LogY: true}
			late := Plot{ID: fmt.Sprintf("%s-%d-latency", k.ID, clients), Title: rates.Title + ": p99", X: rates.X, Y: "ms", LogX: true, LogY: true}
			for _, c := range pageContenders {
				t.Header = append(t.Header, c.Name)
				rates.Series = append(rates.Series, Series{Name: c.Name, Ours: c == embedded})
				late.Series = append(late.Series, Series{Name: c.Name, Ours: c == embedded})
			}
			for _, pl := range places {
				if pl.kind != k || pl.clients != clients || readings[pl] == nil {
					continue
				}
				row := []string{grouped(int64(pl.size))}
				for i, r := range readings[pl] {
					h := latencies[pl][i]
					if len(r) == 0 || h.TotalCount() == 0 {
						row = append(row, "–")
						continue
					}
					row = append(row, fmt.Sprintf("%s (%s, %s)", number(median(r)), number(milliseconds(h, 50)), number(milliseconds(h, 99))))
					x := float64(pl.size)
					rates.Series[i].X, rates.Series[i].Y = append(rates.Series[i].X, x), append(rates.Series[i].Y, median(r))
					late.Series[i].X, late.Series[i].Y = append(late.Series[i].X, x), append(late.Series[i].Y, milliseconds(h, 99))
				}
				t.Rows = append(t.Rows, row)
			}
			if len(t.Rows) > 0 {
				s.Tables = append(s.Tables, t)
			}
			if len(t.Rows) > 1 {
				s.Plots = append(s.Plots, rates, late)
			}
		}
	}
}

// disk compares what a message takes.
func (b *Bench) disk(ctx context.Context, s *Section, f *fleet) error {
	t := Table{Title: "Disk bytes per archived message", Header: []string{"", "messages", "bytes each"}}
	each := make([][]float64, len(f.systems))
	for i, sys := range f.systems {
		bytes, err := sys.archiveBytes(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, size := range b.Sizes {
			if size <= sys.largest() {
				n += size
			}
		}
		// The smaller the better: best looks for the greatest.
		each[i] = []float64{-float64(bytes) / float64(n)}
		t.Rows = append(t.Rows, []string{sys.Name, grouped(int64(n)), number(-each[i][0])})
	}
	ours := []float64{-each[0][0]}
	each[0] = nil
	top := best(each)
	s.Goals = append(s.Goals, ratio("disk bytes per archived message ÷ the best peer's", ours, []float64{-each[top][0]}, f.systems[top].Name, 0.5, true))
	s.Tables = append(s.Tables, t)
	return nil
}
