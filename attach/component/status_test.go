package component

import (
	"testing"
	"time"
)

// metric is the value of a counter or gauge of the only link, of those whose label
// has the value; "" for any.
func (f *fixture) metric(name, label, value string) float64 {
	f.t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetName() == label && l.GetValue() == value
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func TestMeter(t *testing.T) {
	var m meter
	now := time.Unix(1_000_000, 0)
	if total, rate, p50, p99 := m.read(now); total != 0 || rate != 0 || p50 != 0 || p99 != 0 {
		t.Errorf("of nothing: %d, %v, %v, %v", total, rate, p50, p99)
	}
	for i := range 100 {
		m.appended(6, now.Add(time.Duration(i)*time.Second/2), time.Duration(i+1)*time.Millisecond)
	}
	now = now.Add(50 * time.Second)
	total, rate, p50, p99 := m.read(now)
	if total != 600 || rate != 10 || p50 != 50*time.Millisecond || p99 != 99*time.Millisecond {
		t.Errorf("got %d, %v, %v, %v", total, rate, p50, p99)
	}
	// What is more than a minute ago does not count, but in the total.
	total, rate, p50, p99 = m.read(now.Add(40 * time.Second))
	if total != 600 || rate >= 10 || rate <= 0 || p50 <= 50*time.Millisecond || p99 < p50 {
		t.Errorf("later: %d, %v, %v, %v", total, rate, p50, p99)
	}
	total, rate, p50, p99 = m.read(now.Add(time.Hour))
	if total != 600 || rate != 0 || p50 != 0 || p99 != 0 {
		t.Errorf("an hour later: %d, %v, %v, %v", total, rate, p50, p99)
	}
	// More than is kept.
	for range 3 * samples {
		m.appended(1, now.Add(2*time.Hour), time.Millisecond)
	}
	if total, _, p50, _ := m.read(now.Add(2 * time.Hour)); total != 600+3*samples || p50 != time.Millisecond {
		t.Errorf("got %d, %v", total, p50)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	f := start(t, nil)
	if st := f.status(); st.State != Connecting || st.Domain != testDomain || st.Server != f.server.address() || !st.Hosts[0].LastHello.IsZero() {
		t.Errorf("before the first connection: %+v", st)
	}
	p := f.up()
	p.ask("get", testHost, testDomain, `<hello xmlns='`+NS+`' versions='7 1' serves='accounts' software='S' spool='12' spool-bytes='3456' error='disk full'/>`)
	p.archived(testHost,
		appendOf("out", "alice@example.org", "bob@example.org", "k1", "kept"),
		appendOf("out", "alice@example.org", "bob@example.org", "", "no key"),
		`<append dir='out' owner='alice@example.org' peer='bob@example.org' key='k3'><message xmlns='jabber:client' type='chat' to='bob@example.org'/></append>`)
	p.page(testHost, "alice@example.org", "alice@example.org/x", everything)
	f.archive.hold()
	p.request("set", testHost, testDomain, batch(appendOf("out", "alice@example.org", "bob@example.org", "k2", "held")))
	f.eventually("nothing is in flight", func() bool { return f.status().InFlight == 1 })
	st := f.status()
	if st.State != Up || st.Appends != 3 || st.Rate != 3.0/60 || st.P50 == 0 || st.P99 < st.P50 || st.Queries != 1 || st.Waiting != 0 || st.Fault != "" {
		t.Errorf("got %+v", st)
	}
	h := st.Hosts[0]
	if h.Name != testHost || !h.Served || h.Rooms || h.Version != 1 || h.Software != "S" || h.Spool != 12 || h.SpoolBytes != 3456 || h.Fault != "disk full" || h.LastHello.IsZero() {
		t.Errorf("got %+v", h)
	}
	for _, m := range []struct {
		name, label, value string
		want               float64
	}{
		{"mamlog_link_up", "link", testDomain, 1},
		{"mamlog_link_connections_total", "", "", 1},
		{"mamlog_link_appends_total", "result", "archived", 1},
		{"mamlog_link_appends_total", "result", "skipped", 1},
		{"mamlog_link_appends_total", "result", "failed", 1},
		{"mamlog_link_appends_in_flight", "", "", 1},
		{"mamlog_link_queries_waiting", "", "", 0},
		{"mamlog_link_requests_total", "kind", "hello", 3},
		{"mamlog_link_spool_messages", "host", testHost, 12},
		{"mamlog_link_spool_bytes", "host", testHost, 3456},
		{"mamlog_link_append_seconds", "", "", 1},
		{"mamlog_link_query_seconds", "", "", 1},
	} {
		if got := f.metric(m.name, m.label, m.value); got != m.want {
			t.Errorf("%s %s=%s is %v, want %v", m.name, m.label, m.value, got, m.want)
		}
	}
	f.archive.release()
}
