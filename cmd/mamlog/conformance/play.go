package conformance

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Differences are the transcripts and cases that don't hold on a server, by name, with
// the reason.
type Differences map[string]string

// ParseDifferences reads lines of "name | reason"; # begins a comment.
func ParseDifferences(text string) (Differences, error) {
	d := Differences{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, " | ")
		if !ok || d[name] != "" || reason == "" {
			return nil, fmt.Errorf("not understood, or twice: %s", line)
		}
		d[name] = reason
	}
	return d, nil
}

// Suite is what is played on a server.
type Suite struct {
	Transcripts []*Transcript
	Cases       []Case
	Differ      Differences // of both
}

// Play runs everything as parallel subtests, each on the host that has the
// options that it wants. What is listed as different must fail.
func (s Suite) Play(t *testing.T, host func(t *testing.T, config string) (Host, error)) {
	known := map[string]bool{}
	play := func(name, config string, run func(testing.TB, Host, time.Duration)) {
		known[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := host(t, config)
			if err != nil {
				t.Fatal(err)
			}
			reason, differs := s.Differ[name]
			if !differs {
				run(t, h, 0)
				return
			}
			// What does not come need not be waited for: were it merely late, this
			// would miss that the list is out of date, and no more.
			if !fails(t, func(t testing.TB) { run(t, h, 3*time.Second) }) {
				t.Errorf("listed as different (%s), and it passes", reason)
			}
		})
	}
	for _, tr := range s.Transcripts {
		play(tr.Name, tr.Config, func(t testing.TB, h Host, wait time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			if err := tr.Run(ctx, h, newID(), wait); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range s.Cases {
		play(c.Name, c.Config, func(t testing.TB, h Host, _ time.Duration) { c.run(t, newScene(t, h, c.Name)) })
	}
	for name := range s.Differ {
		if !known[name] {
			t.Errorf("listed as different, and nothing is called so: %s", name)
		}
	}
}

// fails tells whether a test fails that is expected to.
func fails(t testing.TB, run func(testing.TB)) bool {
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(f)
	}()
	<-done
	return f.failed
}

// failing keeps a test's failure to itself.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Error(...any)          { f.failed = true }
func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) Fatal(...any)          { f.FailNow() }
func (f *failing) Fatalf(string, ...any) { f.FailNow() }
func (f *failing) Fail()                 { f.failed = true }
func (f *failing) Failed() bool          { return f.failed }

func (f *failing) FailNow() {
	f.failed = true
	runtime.Goexit()
}
