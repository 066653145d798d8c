package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"mamlog/xep0313/stanza"
)

// PagesOptions for Pages.
type PagesOptions struct {
	Dir          string // for the stores; must not exist yet or be empty
	Small, Large int    // messages in the two archives
	Rounds       int    // in turns
	PerRound     int    // pages of each kind a round
	Seed         uint64
	Progress     func(recorded int)
}

// PageRatio compares the cost of one kind of page on the two archives.
type PageRatio struct {
	Kind           string        `json:"kind"`
	Small, Large   time.Duration // median of the rounds' medians
	Ratio          float64       `json:"ratio"` // median over rounds of large ÷ small
	Least, Largest float64       // of the rounds
}

// the kinds of pages that clients ask for, each with count and index
var pageKinds = []struct{ name, fields, set string }{
	{"newest page", "", "<max>50</max><before/>"},
	{"oldest page", "", "<max>50</max>"},
	{"after a message in the middle", "", "<max>50</max><after>%s</after>"},
	{"newest page with= 1 in 10", frequentPeer, "<max>50</max><before/>"},
	{"before the middle, with= 1 in 10", frequentPeer, "<max>50</max><before>%s</before>"},
	{"newest page with= a rare contact", rarePeer, "<max>50</max><before/>"},
	{"count alone (max=0)", "", "<max>0</max>"},
}

// Pages measures what a page of 50 costs, from the request's element to the
// last byte of the answer, in a small and in a large archive, in turns.
func Pages(o PagesOptions) ([]PageRatio, error) {
	switch {
	case o.Small < 1000 || o.Large < o.Small:
		return nil, fmt.Errorf("archives of %d and %d messages: the small one needs 1000 at least, the large one no fewer", o.Small, o.Large)
	case o.Rounds < 1 || o.PerRound < 1:
		return nil, fmt.Errorf("%d rounds of %d pages: at least one of each is needed", o.Rounds, o.PerRound)
	}
	var stores [2]*store
	var middle [2]string
	for i, n := range []int{o.Small, o.Large} {
		dir := filepath.Join(o.Dir, fmt.Sprintf("store%d", i))
		s, err := openStore(dir)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(s.fill(n, o.Seed, o.Progress), s.close()); err != nil {
			return nil, err
		}
		// Opened anew both are read from their tables; else the whole small
		// one, and of the large one the newest part, would lie in memory.
		if s, err = openStore(dir); err != nil {
			return nil, err
		}
		defer s.close()
		for s.rows.Stats().Compacting {
			time.Sleep(100 * time.Millisecond)
		}
		if middle[i], err = s.middle(n / 2); err != nil {
			return nil, err
		}
		stores[i] = s
	}
	var ratios []PageRatio
	for _, k := range pageKinds {
		var medians [2][]time.Duration
		var perRound []float64
		for round := range o.Rounds + 1 {
			var m [2]time.Duration
			for _, i := range order(round) {
				var err error
				if m[i], err = stores[i].timePages(k.fields, k.set, middle[i], o.PerRound); err != nil {
					return nil, fmt.Errorf("%s: %w", k.name, err)
				}
			}
			if round == 0 {
				continue // warms the caches up
			}
			for i := range m {
				medians[i] = append(medians[i], m[i])
			}
			perRound = append(perRound, float64(m[1])/float64(m[0]))
		}
		ratios = append(ratios, PageRatio{
			Kind: k.name, Small: median(medians[0]), Large: median(medians[1]),
			Ratio: median(perRound), Least: slices.Min(perRound), Largest: slices.Max(perRound),
		})
	}
	return ratios, nil
}

// order alternates which side goes first.
func order(round int) [2]int {
	if round%2 == 0 {
		return [2]int{0, 1}
	}
	return [2]int{1, 0}
}

func median[T time.Duration | float64](v []T) T {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

// middle is the id of the message with n before it.
func (s *store) middle(n int) (id string, err error) {
	err = s.ask("", fmt.Sprintf("<max>1</max><index>%d</index>", n), func(b []byte) {
		if e, err := stanza.Parse(b); err == nil && e.Local == "message" {
			id = e.First().Attr("id")
		}
	})
	if err == nil && id == "" {
		err = errors.New("the archive has no message in the middle")
	}
	return id, err
}

func (s *store) ask(with, set string, emit func([]byte)) error {
	x := ""
	if with != "" {
		x = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>" + with + "</value></field></x>"
	}
	iq, err := stanza.Parse([]byte("<iq type='set' id='1' from='" + owner.String() + "'><query xmlns='urn:xmpp:mam:2' queryid='q'>" + x +
		"<set xmlns='http://jabber.org/protocol/rsm'>" + set + "</set></query></iq>"))
	if err != nil {
		return err
	}
	if !s.archive.HandleIQ(context.Background(), iq, owner, emit) {
		return errors.New("the query was not answered")
	}
	return nil
}

// timePages is the median time of n pages. A page that is not what it should be
// is an error.
func (s *store) timePages(with, set, middle string, n int) (time.Duration, error) {
	times := make([]time.Duration, 0, n)
	want := 51
	if set == "<max>0</max>" {
		want = 1
	}
	if i := len(middle); i > 0 && slices.Contains([]byte(set), '%') {
		set = fmt.Sprintf(set, middle)
	}
	for range n {
		stanzas, bytes := 0, 0
		started := time.Now()
		err := s.ask(with, set, func(b []byte) { stanzas++; bytes += len(b) })
		times = append(times, time.Since(started))
		if err != nil {
			return 0, err
		}
		if stanzas != want || bytes < 100*want {
			return 0, fmt.Errorf("an answer has %d stanzas and %d bytes, want %d stanzas", stanzas, bytes, want)
		}
	}
	return median(times), nil
}

// RunPages measures in a temporary directory and writes a table.
func RunPages(w io.Writer, o PagesOptions) ([]PageRatio, error) {
	dir, err := os.MkdirTemp(o.Dir, "mamlog-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.Dir = dir
	ratios, err := Pages(o)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "A page of 50 with count and index, from the request to the answer's last byte.\n")
	fmt.Fprintf(w, "Ratio: median of %d rounds in turns (least to largest); goal: at most 1.3.\n\n", o.Rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "kind\t%d messages\t%d messages\tratio\tleast\tlargest\t\n", o.Small, o.Large)
	for _, r := range ratios {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t\n", r.Kind, r.Small.Round(100*time.Nanosecond), r.Large.Round(100*time.Nanosecond), r.Ratio, r.Least, r.Largest)
	}
	return ratios, t.Flush()
}
