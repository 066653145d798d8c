package xep0313

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mamlog/log"
	"mamlog/xep0313/stanza"
)

// metrics count decisions and requests. Labels come from fixed sets; nothing
// names a user.
type metrics struct {
	archivedBy        [32]prometheus.Counter // by log.Reason
	skippedBy         map[string]prometheus.Counter
	queries           *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	pages             prometheus.Counter  // of queries: those that were answered
	pageSeconds       prometheus.Observer // of seconds: theirs
	results           prometheus.Counter
	preferenceChanges prometheus.Counter
	shed              prometheus.Counter
	expiryRuns        *prometheus.CounterVec
	cut               *prometheus.CounterVec
	retracted         prometheus.Counter
	erasures          prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	archived := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mamlog_archived_messages_total", Help: "Messages put into an archive, by the rule that found them worth it.",
	}, []string{"reason"})
	skipped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mamlog_not_archived_messages_total", Help: "Messages not put into an archive, by why not.",
	}, []string{"reason"})
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mamlog_requests_total", Help: "Requests to archives, by kind and by result: ok, or the error's condition.",
		}, []string{"kind", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mamlog_request_seconds", Help: "Time to answer a request to an archive, without sending the answer.",
			Buckets: prometheus.ExponentialBuckets(20e-6, 2, 16),
		}, []string{"kind"}),
		results: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_results_total", Help: "Archived messages sent in answers.",
		}),
		preferenceChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_preference_changes_total", Help: "Changes of users' preferences.",
		}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_shed_messages_total", Help: "Messages refused with resource-constraint, one for each archive, because too much was waiting for the disk.",
		}),
		expiryRuns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mamlog_expiry_runs_total", Help: "Runs of expiry, by result: deleted, nothing, failed, or held because the clock is too far ahead.",
		}, []string{"result"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mamlog_cut_messages_total", Help: "Messages taken off archives, oldest first, by cause: trim, quota or retention.",
		}, []string{"cause"}),
		retracted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_retracted_messages_total", Help: "Archived messages that became tombstones.",
		}),
		erasures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mamlog_erasures_total", Help: "Users of whom everything was erased.",
		}),
		skippedBy: make(map[string]prometheus.Counter),
	}
	for n := range log.Reason_name {
		name := strings.ToLower(strings.TrimPrefix(log.Reason(n).String(), "REASON_"))
		if log.Reason(n) != log.Reason_REASON_UNSPECIFIED {
			m.archivedBy[n] = archived.WithLabelValues(name)
		}
	}
	for _, why := range []string{skipType, skipError, skipHint, skipCopy, skipEmpty, skipPreferences, skipSmart, skipExpired, skipDeleted} {
		m.skippedBy[why] = skipped.WithLabelValues(why)
	}
	m.pages, m.pageSeconds = m.queries.WithLabelValues("query", "ok"), m.seconds.WithLabelValues("query")
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{archived, skipped, m.queries, m.seconds, m.results, m.preferenceChanges, m.shed, m.expiryRuns, m.cut, m.retracted, m.erasures} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) archived(r log.Reason) { m.archivedBy[r].Inc() }
func (m *metrics) skipped(why string)    { m.skippedBy[why].Inc() }

// kindOf is the label of a request.
func kindOf(payload *stanza.Element) string {
	switch payload.Local {
	case "query", "prefs", "metadata", "trim":
		return payload.Local
	}
	return "other"
}

func (m *metrics) observe(payload *stanza.Element, took time.Duration, err error) {
	result := "ok"
	switch se, ok := errors.AsType[*stanza.Error](err); {
	case ok:
		result = se.Condition
	case err != nil:
		result = "internal-server-error"
	}
	kind := kindOf(payload)
	if kind == "query" && result == "ok" { // what there is most of
		m.pages.Inc()
		m.pageSeconds.Observe(took.Seconds())
		return
	}
	m.queries.WithLabelValues(kind, result).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}
