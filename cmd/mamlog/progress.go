package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	quietFor  = 2 * time.Second  // what is faster needs no progress
	lineEvery = 10 * time.Second // off a terminal
)

// progress tells on standard error how far something is that takes long: with a
// bar on a terminal, in lines elsewhere.
type progress struct {
	a       *app
	what    string
	started time.Time
	told    time.Time
	bar     *progressbar.ProgressBar
}

func (a *app) newProgress(what string) *progress {
	now := time.Now()
	return &progress{a: a, what: what, started: now}
}

// at is called with how many records are done.
func (p *progress) at(records int) {
	now := time.Now()
	if now.Sub(p.started) < quietFor {
		return
	}
	if !isTerminal(p.a.err) {
		if now.Sub(p.told) >= lineEvery {
			p.told = now
			fmt.Fprintf(p.a.err, "%s: %d records\n", p.what, records)
		}
		return
	}
	if p.bar == nil {
		// How many there will be is not known, so it shows a count and a rate.
		p.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(p.a.err),
			progressbar.OptionSetDescription(p.what),
			progressbar.OptionSetItsString("records"),
			progressbar.OptionShowIts(), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	p.bar.Set(records)
}

// done takes the bar away.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
