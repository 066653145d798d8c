package bench

import (
	"strings"
	"testing"
	"time"
)

// tiny makes a report of some parts with little of everything, and checks its
// form.
func tiny(t *testing.T, parts ...Part) Report {
	t.Helper()
	o := Tiny()
	o.Dir, o.Time = t.TempDir(), 20*time.Millisecond
	o.Progress = func(what string) { t.Log(what) }
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err := b.Run(t.Context(), "test", parts)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	return r
}

func TestFloor(t *testing.T) {
	r := tiny(t, Parts[0])
	goals := make(map[string]bool)
	for _, g := range r.goals() {
		goals[g.Name] = !g.Open
	}
	for _, name := range []string{
		"appends in process, both archives ÷ bare Pebble", "newest page of 50 in process ÷ bare scan, rate",
		"the same with= 1 in 20", "the same with= 1 in 10,000", "cost of newest page, 6,000 ÷ 1,000 messages",
		"cost of a page with count and index ÷ without",
	} {
		if !goals[name] {
			t.Errorf("there is no goal %q", name)
		}
	}
}

// The clients, at the embedded host: all that they check is right there.
func TestHost(t *testing.T) {
	r := tiny(t, HostPart)
	if rows := r.Sections[0].Tables[0].Rows; len(rows) != 5 {
		t.Errorf("measured %v", rows)
	}
}

func TestWrongOptions(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"round":    func(o *Options) { o.Rounds = 0 },
		"time":     func(o *Options) { o.Time = 0 },
		"small":    func(o *Options) { o.Small = 10 },
		"no fewer": func(o *Options) { o.Large = o.Small - 1 },
		"pairs":    func(o *Options) { o.Pairs = 0 },
		"window":   func(o *Options) { o.Window = maxWindow + 1 },
		"sizes":    func(o *Options) { o.Sizes = nil },
	} {
		o := Tiny()
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := New(Normal()); err != nil {
		t.Error(err)
	}
}
