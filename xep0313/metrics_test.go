package xep0313

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mamlog/log"
)

// TestNotArchivedIsCountedByReason: every way of not being archived adds one to the
// count of its reason and nothing to any other; the reasons are these, whatever
// clients send.
func TestNotArchivedIsCountedByReason(t *testing.T) {
	const owner, peer = "juliet@test.example", romeo
	message := func(f *fixture, xml string) Side {
		return Side{Owner: jidOf(owner), Peer: jidOf(peer), Direction: in, Stanza: f.parse(xml)}
	}
	smart := DefaultOptions()
	smart.SmartEnable = true
	cases := map[string]struct {
		options Options
		side    func(*fixture) Side
	}{
		skipType: {DefaultOptions(), func(f *fixture) Side { return message(f, "<message type='headline'><body>x</body></message>") }},
		skipError: {DefaultOptions(), func(f *fixture) Side {
			return message(f, "<message type='error' id='1'><error type='cancel'/></message>")
		}},
		skipHint: {DefaultOptions(), func(f *fixture) Side {
			return message(f, "<message><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>")
		}},
		skipCopy: {DefaultOptions(), func(f *fixture) Side {
			return message(f, "<message><body>x</body><received xmlns='urn:xmpp:carbons:2'/></message>")
		}},
		skipEmpty: {DefaultOptions(), func(f *fixture) Side { return message(f, "<message><thread>x</thread></message>") }},
		skipPreferences: {DefaultOptions(), func(f *fixture) Side {
			if _, err := f.SetPreferences(context.Background(), jidOf(owner), &log.Preferences{Default: log.Default_DEFAULT_NEVER}, "x", log.Cause_CAUSE_CLIENT); err != nil {
				t.Fatal(err)
			}
			return message(f, "<message><body>x</body></message>")
		}},
		skipSmart: {smart, func(f *fixture) Side { return message(f, "<message><body>x</body></message>") }},
		skipExpired: {DefaultOptions(), func(f *fixture) Side {
			s := message(f, "<message><body>x</body></message>")
			s.Import, s.Stamp = true, noon.Add(-DefaultOptions().ExpiresAfter-time.Hour)
			return s
		}},
		skipDeleted: {DefaultOptions(), func(f *fixture) Side {
			if err := f.DeleteArchive(context.Background(), jidOf(owner), "test.example"); err != nil {
				t.Fatal(err)
			}
			s := message(f, "<message><body>x</body></message>")
			s.Stamp = noon.Add(-time.Hour)
			return s
		}},
	}
	for reason, c := range cases {
		f := newFixture(t, c.options, atNoon)
		r := prometheus.NewRegistry()
		var err error
		if f.metrics, err = newMetrics(r); err != nil {
			t.Fatal(err)
		}
		if o := f.one(c.side(f)); o.ID != zeroID {
			t.Errorf("%s: it is archived", reason)
		}
		counts := notArchived(t, r)
		if got, want := slices.Sorted(maps.Keys(counts)), slices.Sorted(maps.Keys(cases)); !slices.Equal(got, want) {
			t.Errorf("%s: the reasons are %q, want %q", reason, got, want)
		}
		for label, n := range counts {
			if want := map[bool]float64{true: 1}[label == reason]; n != want {
				t.Errorf("%s: %v are counted under %s, want %v", reason, n, label, want)
			}
		}
	}
}

func notArchived(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]float64)
	for _, family := range families {
		if family.GetName() != "mamlog_not_archived_messages_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if len(m.GetLabel()) != 1 || m.GetLabel()[0].GetName() != "reason" {
				t.Fatalf("the labels are %v", m.GetLabel())
			}
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}
