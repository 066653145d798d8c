package component

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"mamlog/xep0313/stanza"
)

// metrics count. Labels are the domains of links and hosts, of which the
// configuration lists all, and words from fixed sets.
type metrics struct {
	up, inFlight, waiting     *prometheus.GaugeVec
	connections               *prometheus.CounterVec
	faults, appends, requests *prometheus.CounterVec
	latency, queries          *prometheus.HistogramVec
	spoolMessages, spoolBytes *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"link"}, labels...))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"link"}, labels...))
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(100e-6, 2, 16),
		}, []string{"link"})
	}
	m := &metrics{
		up:            gauge("mamlog_link_up", "1 while the component stream is open."),
		inFlight:      gauge("mamlog_link_appends_in_flight", "Appends that are not answered yet."),
		waiting:       gauge("mamlog_link_queries_waiting", "Queries that are not answered yet."),
		spoolMessages: gauge("mamlog_link_spool_messages", "Messages in the spool of a host's module, as it last said.", "host"),
		spoolBytes:    gauge("mamlog_link_spool_bytes", "Bytes in the spool of a host's module, as it last said.", "host"),
		connections:   counter("mamlog_link_connections_total", "Component streams that were opened."),
		faults:        counter("mamlog_link_faults_total", "Attempts that failed and streams that broke, by why.", "fault"),
		appends:       counter("mamlog_link_appends_total", "Appends that were answered, by result: archived, skipped or failed.", "result"),
		requests:      counter("mamlog_link_requests_total", "Requests on the link, by kind and by result: ok, or the error's condition.", "kind", "result"),
		latency:       seconds("mamlog_link_append_seconds", "Time from a batch's arrival to its answer."),
		queries:       seconds("mamlog_link_query_seconds", "Time from a query's arrival to its answer."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.up, m.inFlight, m.waiting, m.spoolMessages, m.spoolBytes, m.connections, m.faults, m.appends, m.requests, m.latency, m.queries,
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// linkMetrics are those of one link; two links to components of the same domain
// share them.
type linkMetrics struct {
	all                       *metrics
	link                      string
	up, inFlight, waiting     prometheus.Gauge
	connections               prometheus.Counter
	archived, skipped, failed prometheus.Counter
	latency, queries          prometheus.Observer
}

func (m *metrics) of(l *link) linkMetrics {
	d := l.domain
	return linkMetrics{
		all: m, link: d,
		up: m.up.WithLabelValues(d), inFlight: m.inFlight.WithLabelValues(d), waiting: m.waiting.WithLabelValues(d),
		connections: m.connections.WithLabelValues(d),
		archived:    m.appends.WithLabelValues(d, "archived"),
		skipped:     m.appends.WithLabelValues(d, "skipped"),
		failed:      m.appends.WithLabelValues(d, "failed"),
		latency:     m.latency.WithLabelValues(d), queries: m.queries.WithLabelValues(d),
	}
}

func (m *linkMetrics) faults(kind string) prometheus.Counter {
	return m.all.faults.WithLabelValues(m.link, kind)
}

func (m *linkMetrics) requests(kind, result string) prometheus.Counter {
	return m.all.requests.WithLabelValues(m.link, kind, result)
}

func (m *linkMetrics) spool(host string, g greeting) {
	m.all.spoolMessages.WithLabelValues(m.link, host).Set(float64(g.spool))
	m.all.spoolBytes.WithLabelValues(m.link, host).Set(float64(g.spoolBytes))
}

// result is the label for an error: its condition, which comes from us.
func result(se *stanza.Error) string { return se.Condition }
