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
	f := new(fleet)
	defer func() { err = errors.Join(err, f.close()) }()
	for _, c := range attachContenders {
		o := systemOptions{count: true}
		if c.archives() && c.Server == "prosody" {
			o.contents = []*contents{co}
		}
		one, err := b.launch(ctx, []contender{c}, o)
		if err != nil {
			return s, err
		}
		f.systems = append(f.systems, one.systems...)
	}
	index := func(c contender) int { return slices.Index(attachContenders, c) }

	if err := f.connect(ctx, b.text, loadOptions{pairs: b.Pairs, spread: 1, name: "p", seed: b.Seed}); err != nil {
		return s, err
	}
	b.say("throughput, %d rounds", b.Rounds)
	rates, err := f.throughput(ctx, b.Rounds, b.Pairs, b.Window, b.Time/3, b.Time)
	if err != nil {
		return s, err
	}
	against := func(ours, theirs contender, want float64) Goal {
		g := ratio(fmt.Sprintf("messages/s, %s ÷ %s", ours.Name, theirs.Name), rates[index(ours)], rates[index(theirs)], theirs.Name, want, false)
		g.Open = want == 0
		return g
	}
	s.Goals = append(s.Goals,
		against(prosodyMamlog, prosodyInternal, 1.5), against(prosodyMamlog, prosodySQLite, 8), against(prosodyMamlog, prosodyNone, 0),
		against(ejabberdMamlog, ejabberdSQLite, 8), against(ejabberdMamlog, ejabberdPostgres, 0), against(ejabberdMamlog, ejabberdNone, 0))
	t := Table{Title: "Throughput", Header: []string{"", "messages/s", "least", "most"}}
	for i, c := range attachContenders {
		t.Rows = append(t.Rows, []string{c.Name, number(median(rates[i])), number(slices.Min(rates[i])), number(slices.Max(rates[i]))})
	}
	s.Tables = append(s.Tables, t)

	b.say("latency, %d rounds", b.Rounds)
	p50, all, err := f.latency(ctx, b.Rounds, b.Pairs, attachRate, b.Time, everybody(len(f.loads)), b.Seed)
	if err != nil {
		return s, err
	}
	for _, pair := range [][2]contender{{prosodyMamlog, prosodyNone}, {ejabberdMamlog, ejabberdNone}} {
		g := Goal{Name: "added p50 latency, " + pair[0].Name, Unit: "ms", Want: 1, AtMost: true, Against: pair[1].Name,
			Ours: p50[index(pair[0])], Theirs: p50[index(pair[1])]}
		for r := range g.Ours {
			g.Rounds = append(g.Rounds, g.Ours[r]-g.Theirs[r])
		}
		s.Goals = append(s.Goals, g)
	}
	t = Table{Title: fmt.Sprintf("Latency at %d messages/s, ms", attachRate), Header: []string{"", "p50", "p90", "p99", "max"}}
	for i, h := range all {
		t.Rows = append(t.Rows, []string{attachContenders[i].Name, number(milliseconds(h, 50)), number(milliseconds(h, 90)),
			number(milliseconds(h, 99)), number(float64(h.Max()) / 1000)})
	}
	s.Tables = append(s.Tables, t)
	b.say("count the archives")
	if err := f.verify(ctx); err != nil {
		return s, err
	}
	f.disconnect()
	return s, b.attachPages(ctx, &s, f, co)
}

// attachPages compares the newest page through Prosody.
func (b *Bench) attachPages(ctx context.Context, s *Section, f *fleet, co *contents) error {
	b.say("newest page through Prosody, %d rounds", b.Rounds)
	var sides []func() (float64, error)
	paged := []contender{prosodyMamlog, prosodyInternal, prosodySQLite}
	for _, c := range paged {
		sys := f.systems[slices.Index(attachContenders, c)]
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
		if i > 0 {
			s.Goals = append(s.Goals, ratio(fmt.Sprintf("newest page of %s, pages/s, %s ÷ %s", grouped(int64(co.N)), paged[0].Name, c.Name),
				rates[0], rates[i], c.Name, 4, false))
		}
	}
	s.Tables = append(s.Tables, t)
	return nil
}
