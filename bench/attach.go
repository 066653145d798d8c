package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The order of the contenders, in tables.
var attachContenders = []contender{
	prosodyMamlog, prosodyInternal, prosodySQLite, prosodyNone,
	ejabberdMamlog, ejabberdSQLite, ejabberdPostgres, ejabberdNone,
}

// attachMeasures are what is measured of them.
var attachMeasures = []string{"throughput", "latency", "pages"}

func names(contenders []contender) []string {
	var all []string
	for _, c := range contenders {
		all = append(all, c.Name)
	}
	return all
}

// checkNames refuses a name that is none of all.
func checkNames(what string, chosen, all []string) error {
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return fmt.Errorf("there is no %s %q: they are %q", what, name, all)
		}
	}
	return nil
}

// chosen are those of the contenders that are asked for.
func (b *Bench) chosen(all []contender) []contender {
	return slices.DeleteFunc(slices.Clone(all), func(c contender) bool {
		return len(b.Contenders) > 0 && !slices.Contains(b.Contenders, c.Name)
	})
}

func (b *Bench) measures(what string) bool {
	return len(b.Measures) == 0 || slices.Contains(b.Measures, what)
}

// attachRate is the rate, in messages a second, at which added latency is told.
const attachRate = 100

// Attach measures Prosody and ejabberd with mamlog as their archive, against
// themselves with their own and with none.
func (b *Bench) Attach(ctx context.Context) (s Section, err error) {
	size := min(100_000, slices.Max(b.Sizes))
	s = Section{ID: "attach", Title: "Prosody and ejabberd with mamlog as their archive", Text: fmt.Sprintf(`Each server on its own, with its own archive, and with mamlog attached by the module for it: %d senders
and as many recipients with %d messages of a sender under way, counted and verified as above. The added latency is that of a message between two
local users, at %d messages/s (open loop). The pages are the newest %d of an archive of %s messages, asked for by one client.`,
		b.Pairs, b.Window, attachRate, pageSize, grouped(int64(size)))}
	co := newContents(b.text, b.Seed, "owner", size, time.Now())
	contenders := b.chosen(attachContenders)
	f := new(fleet)
	defer func() { err = errors.Join(err, f.close()) }()
	for _, c := range contenders {
		o := systemOptions{count: true}
		if c.archives() && c.Server == "prosody" && b.measures("pages") {
			o.contents = []*contents{co}
		}
		one, err := b.launch(ctx, []contender{c}, o)
		if err != nil {
			return s, err
		}
		f.systems = append(f.systems, one.systems...)
	}
	if err := f.connect(ctx, b.text, loadOptions{pairs: b.Pairs, spread: 1, name: "p", seed: b.Seed}); err != nil {
		return s, err
	}
	if b.measures("throughput") {
		if err := b.attachThroughput(ctx, &s, f, contenders); err != nil {
			return s, err
		}
	}
	if b.measures("latency") {
		if err := b.attachLatency(ctx, &s, f, contenders); err != nil {
			return s, err
		}
	}
	b.say("count the archives")
	if err := f.verify(ctx); err != nil {
		return s, err
	}
	f.disconnect()
	if b.measures("pages") {
		err = b.attachPages(ctx, &s, f, co)
	}
	return s, err
}

func (b *Bench) attachThroughput(ctx context.Context, s *Section, f *fleet, contenders []contender) error {
	b.say("throughput, %d rounds", b.Rounds)
	rates, err := f.throughput(ctx, b.Rounds, b.Pairs, b.Window, b.Time/3, b.Time)
	if err != nil {
		return err
	}
	for _, g := range []struct {
		ours, theirs contender
		want         float64 // 0: told without a goal
	}{
		{prosodyMamlog, prosodyInternal, 1.5}, {prosodyMamlog, prosodySQLite, 8}, {prosodyMamlog, prosodyNone, 0},
		{ejabberdMamlog, ejabberdSQLite, 8}, {ejabberdMamlog, ejabberdPostgres, 0}, {ejabberdMamlog, ejabberdNone, 0},
	} {
		ours, theirs := slices.Index(contenders, g.ours), slices.Index(contenders, g.theirs)
		if ours < 0 || theirs < 0 {
			continue
		}
		r := ratio(fmt.Sprintf("messages/s, %s ÷ %s", g.ours.Name, g.theirs.Name), rates[ours], rates[theirs], g.theirs.Name, g.want, false)
		r.Open = g.want == 0
		s.Goals = append(s.Goals, r)
	}
	t := Table{Title: "Throughput", Header: []string{"", "messages/s", "least", "most"}}
	for i, c := range contenders {
		t.Rows = append(t.Rows, []string{c.Name, number(median(rates[i])), number(slices.Min(rates[i])), number(slices.Max(rates[i]))})
	}
	s.Tables = append(s.Tables, t)
	return nil
}

func (b *Bench) attachLatency(ctx context.Context, s *Section, f *fleet, contenders []contender) error {
	b.say("latency, %d rounds", b.Rounds)
	p50, all, err := f.latency(ctx, b.Rounds, b.Pairs, attachRate, b.Time, everybody(len(f.loads)), b.Seed)
	if err != nil {
		return err
	}
	for _, pair := range [][2]contender{{prosodyMamlog, prosodyNone}, {ejabberdMamlog, ejabberdNone}} {
		ours, theirs := slices.Index(contenders, pair[0]), slices.Index(contenders, pair[1])
		if ours < 0 || theirs < 0 {
			continue
		}
		g := Goal{Name: "added p50 latency, " + pair[0].Name, Unit: "ms", Want: 1, AtMost: true, Against: pair[1].Name,
			Ours: p50[ours], Theirs: p50[theirs]}
		for r := range g.Ours {
			g.Rounds = append(g.Rounds, g.Ours[r]-g.Theirs[r])
		}
		s.Goals = append(s.Goals, g)
	}
	t := Table{Title: fmt.Sprintf("Latency at %d messages/s, ms", attachRate), Header: []string{"", "p50", "p90", "p99", "max"}}
	for i, h := range all {
		t.Rows = append(t.Rows, []string{contenders[i].Name, number(milliseconds(h, 50)), number(milliseconds(h, 90)),
			number(milliseconds(h, 99)), number(float64(h.Max()) / 1000)})
	}
	s.Tables = append(s.Tables, t)
	return nil
}

// attachPages compares the newest page through Prosody.
func (b *Bench) attachPages(ctx context.Context, s *Section, f *fleet, co *contents) error {
	b.say("newest page through Prosody, %d rounds", b.Rounds)
	var sides []func() (float64, error)
	var paged []contender
	for _, sys := range f.systems {
		c := sys.contender
		if c.Server != "prosody" || !c.archives() {
			continue
		}
		paged = append(paged, c)
		if err := sys.register(ctx, co.User); err != nil {
			return err
		}
		p, err := newPager(ctx, sys, co, "r")
		if err != nil {
			return err
		}
		defer p.Close()
		sides = append(sides, func() (float64, error) {
			r, err := readPages(ctx, []*pager{p}, pageKinds[0], b.Time/3)
			if err == nil && r.wrong > 0 {
				err = fmt.Errorf("%s: %w", c.Name, r.first)
			}
			return r.rate, err
		})
	}
	rates, err := inTurns(b.Rounds, sides)
	if err != nil {
		return err
	}
	t := Table{Title: "Newest page of " + grouped(int64(co.N)), Header: []string{"", "pages/s"}}
	for i, c := range paged {
		t.Rows = append(t.Rows, []string{c.Name, number(median(rates[i]))})
		if i > 0 && paged[0] == prosodyMamlog {
			s.Goals = append(s.Goals, ratio(fmt.Sprintf("newest page of %s, pages/s, %s ÷ %s", grouped(int64(co.N)), paged[0].Name, c.Name),
				rates[0], rates[i], c.Name, 4, false))
		}
	}
	s.Tables = append(s.Tables, t)
	return nil
}
