package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mamlog/integrations/peers"
	"mamlog/log"
)

// Bench holds what all measurements have in common. Its methods measure one thing
// after the other, and are called by one goroutine.
type Bench struct {
	Options
	text   *text
	binary string // of mamlog
	tmp    string
}

// Options for New. There is no default for any; see Normal.
type Options struct {
	Dir    string // for stores, on the disk to be measured; empty: for temporary files
	Rounds int    // in turns
	Time   time.Duration
	Seed   uint64

	Small, Large int   // messages in the archives that are compared in process
	Sizes        []int // messages in the archives that are paged over XMPP
	Owners       int   // archives that share Large messages where many are wanted

	Pairs  int   // senders, each with a recipient
	Window int   // messages of a sender under way
	Pagers []int // clients that page at once

	// Of the part attach; empty: all.
	Contenders []string // by name
	Measures   []string // throughput, latency, pages

	// Progress, if not nil, is told what is measured next.
	Progress func(string)
}

// Normal are the options of the full benchmark.
func Normal() Options {
	return Options{
		Rounds: 5, Time: 3 * time.Second, Seed: 1, Small: 1000, Large: 1_000_000, Owners: 100_000,
		Sizes: []int{1000, 10_000, 100_000, 1_000_000}, Pairs: 32, Window: 8, Pagers: []int{1, 8},
	}
}

// Tiny are the options of a run that only shows that all works.
func Tiny() Options {
	return Options{
		Rounds: 1, Time: 100 * time.Millisecond, Seed: 1, Small: 1000, Large: 6000, Owners: 500,
		Sizes: []int{200, 1000}, Pairs: 3, Window: 4, Pagers: []int{1, 2},
	}
}

// New checks the options.
func New(o Options) (*Bench, error) {
	switch {
	case o.Rounds < 1 || o.Time <= 0:
		return nil, errors.New("at least one round is needed, of some time")
	case o.Small < 1000 || o.Large < o.Small || o.Large <= rareAt:
		return nil, fmt.Errorf("archives of %d and %d messages: the small one needs 1000 at least, the large one no fewer and more than %d", o.Small, o.Large, rareAt)
	case o.Pairs < 1 || o.Window < 1 || o.Window > maxWindow:
		return nil, fmt.Errorf("%d pairs with a window of %d: at least one of each is needed, and the window is at most %d", o.Pairs, o.Window, maxWindow)
	case o.Owners < 1 || len(o.Sizes) == 0 || len(o.Pagers) == 0:
		return nil, errors.New("owners, sizes and pagers must not be empty")
	}
	if err := checkNames("contender", o.Contenders, names(attachContenders)); err != nil {
		return nil, err
	}
	if err := checkNames("measure", o.Measures, attachMeasures); err != nil {
		return nil, err
	}
	log.EnsureProcs() // as the server does, for both sides of every ratio
	return &Bench{Options: o, text: newText(o.Seed)}, nil
}

// Close removes what the measurements have in common.
func (b *Bench) Close() error {
	if b.tmp == "" {
		return nil
	}
	return os.RemoveAll(b.tmp)
}

func (b *Bench) say(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

// build builds mamlog, and makes sure that the peers are installed.
func (b *Bench) build(ctx context.Context) (err error) {
	if b.binary != "" {
		return nil
	}
	if missing := peers.Missing(); len(missing) > 0 {
		return fmt.Errorf("these Debian packages are missing: %s", strings.Join(missing, " "))
	}
	b.say("build mamlog")
	if b.tmp, err = os.MkdirTemp("", "mamlog-bench-"); err != nil {
		return err
	}
	b.binary, err = peers.BuildMamlog(ctx, b.tmp)
	return err
}

// Part is one section of a report and how to make it.
type Part struct {
	Name, About string
	Run         func(*Bench, context.Context) (Section, error)
}

// Parts are the sections of the full report, in its order.
var Parts = []Part{
	{"floor", "mamlog in process against the bare engine, and large archives against small ones", (*Bench).Floor},
	{"ingest", "messages over XMPP: mamlog's embedded host against Prosody and ejabberd", (*Bench).Ingest},
	{"pages", "pages over XMPP, from archives of several sizes, against Prosody and ejabberd", (*Bench).Pages},
	{"life", "memory, start after a crash, expiry, and appends during maintenance", (*Bench).Life},
	{"attach", "Prosody and ejabberd with mamlog as their archive, against their own", (*Bench).Attach},
}

// HostPart is for profiles only.
var HostPart = Part{"host", "the embedded host in this process, to be profiled", (*Bench).Host}

// Run makes a report of some parts.
func (b *Bench) Run(ctx context.Context, command string, parts []Part) (Report, error) {
	r := Report{Command: command, Began: time.Now(), Seed: b.Seed, Machine: thisMachine(b.Dir), Versions: versions()}
	if b.Dir == "" {
		r.Machine = thisMachine(os.TempDir())
	}
	for _, p := range parts {
		s, err := p.Run(b, ctx)
		if err != nil {
			return r, fmt.Errorf("%s: %w", p.Name, err)
		}
		r.Sections = append(r.Sections, s)
	}
	r.Took = time.Since(r.Began).Round(time.Second).String()
	return r, nil
}
