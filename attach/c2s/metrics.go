package c2s

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count; no label names a user, and each comes from a fixed set.
type metrics struct {
	received, sent         kinds
	delivered, undelivered prometheus.Counter
	logins                 *prometheus.CounterVec
	refused                *prometheus.CounterVec
	streamErrors           *prometheus.CounterVec
}

// kinds has a counter for each kind of stanza, so that counting looks up nothing.
type kinds struct{ message, presence, iq prometheus.Counter }

func newKinds(v *prometheus.CounterVec) kinds {
	return kinds{v.WithLabelValues("message"), v.WithLabelValues("presence"), v.WithLabelValues("iq")}
}

// count counts an element by the start of its bytes.
func (k *kinds) count(b []byte) {
	if len(b) < 2 {
		return
	}
	switch b[1] {
	case 'm':
		k.message.Inc()
	case 'p':
		k.presence.Inc()
	case 'i':
		k.iq.Inc()
	}
}

func newMetrics(r prometheus.Registerer, s *Server) (*metrics, error) {
	received := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mamlog_c2s_stanzas_received_total", Help: "Stanzas that clients sent, by kind.",
	}, []string{"kind"})
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mamlog_c2s_stanzas_sent_total", Help: "Stanzas written to clients, by kind.",
	}, []string{"kind"})
	m := &metrics{
		received: newKinds(received), sent: newKinds(sent),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_c2s_messages_delivered_total", Help: "Messages that at least one resource of the recipient got.",
		}),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_c2s_messages_offline_total", Help: "Messages for which no resource of the recipient was there.",
		}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mamlog_c2s_logins_total", Help: "Attempts to authenticate, by mechanism and by result: success, or the failure's condition.",
		}, []string{"mechanism", "result"}),
		streamErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mamlog_c2s_stream_errors_total", Help: "Sessions that the server ended with an error, by condition.",
		}, []string{"condition"}),
	}
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mamlog_c2s_connections_refused_total", Help: "Connections that were not let in, by the limit: connections, or logins for those that are not logged in.",
	}, []string{"limit"})
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mamlog_c2s_connections", Help: "Connections, logged in or not.",
	}, func() float64 { n, _ := s.door.count(); return float64(n) })
	strangers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mamlog_c2s_connections_logging_in", Help: "Connections that are not logged in.",
	}, func() float64 { _, n := s.door.count(); return float64(n) })
	sessions := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mamlog_c2s_sessions", Help: "Sessions with a bound resource.",
	}, func() float64 { return float64(s.users.count()) })
	if r == nil {
		return m, nil
	}
	var err error
	for _, c := range []prometheus.Collector{received, sent, m.delivered, m.undelivered, m.logins, m.streamErrors, m.refused, connections, strangers, sessions} {
		err = errors.Join(err, r.Register(c))
	}
	return m, err
}

// streamCondition keeps the label to conditions of RFC 6120 section 4.9.3.
func streamCondition(c string) string {
	switch c {
	case "bad-format", "bad-namespace-prefix", "conflict", "invalid-from", "not-authorized", "not-well-formed",
		"policy-violation", "resource-constraint", "restricted-xml", "system-shutdown", "unsupported-encoding",
		"unsupported-stanza-type":
		return c
	}
	return "other"
}
