package main

import (
	"errors"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"mamlog/admin"
	"mamlog/log"
)

// registerMetrics registers what concerns the process and its stores. Labels
// are names of stores, of which the configuration lists all.
func registerMetrics(r prometheus.Registerer, s *stores) error {
	v := version()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mamlog_build_info", Help: "1, with the build's version as labels.",
		ConstLabels: prometheus.Labels{"version": v.module, "revision": v.revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	errs := []error{
		r.Register(collectors.NewGoCollector()),
		r.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
		r.Register(build),
	}
	memory := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mamlog_store_memory", Help: "1 if the store is in memory, so that it is lost when the server stops.",
	}, []string{"store"})
	fallback := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mamlog_store_fallback", Help: "1 if the store is in memory because its data on disk could not be opened.",
	}, []string{"store"})
	errs = append(errs, r.Register(memory), r.Register(fallback))
	memory.WithLabelValues("main").Set(0)
	fallback.WithLabelValues("main").Set(0)
	for _, m := range s.messages {
		memory.WithLabelValues(m.Name).Set(number(m.inMemory))
		fallback.WithLabelValues(m.Name).Set(number(m.fellBack))
	}
	for name, st := range s.all() {
		errs = append(errs, r.Register(newStoreCollector(name, st)))
	}
	return errors.Join(errs...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// storeCollector asks a store for its numbers when they are collected.
type storeCollector struct {
	store admin.Store

	records, commits, bytes, duplicates *prometheus.Desc
	refused, suspended, held            *prometheus.Desc
	logDisk, projectionsDisk            *prometheus.Desc
	last, lag                           *prometheus.Desc
}

func newStoreCollector(name string, s admin.Store) *storeCollector {
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc(metric, help, nil, prometheus.Labels{"store": name})
	}
	return &storeCollector{
		store:           s,
		records:         desc("mamlog_log_records_total", "Events appended."),
		commits:         desc("mamlog_log_commits_total", "Group commits, each with one fsync."),
		bytes:           desc("mamlog_log_bytes_total", "Bytes of events appended."),
		duplicates:      desc("mamlog_log_duplicates_total", "Appends that were recognised as repeated."),
		refused:         desc("mamlog_log_refused_total", "Appends refused, or left in doubt, because the disk took no writes."),
		suspended:       desc("mamlog_log_suspended", "1 while the disk takes no writes, so that nothing is archived."),
		held:            desc("mamlog_clock_held", "1 while the clock is too far ahead of the time that has passed, so that nothing expires."),
		logDisk:         desc("mamlog_log_disk_bytes", "Disk space of the log."),
		projectionsDisk: desc("mamlog_projections_disk_bytes", "Disk space of the projections."),
		last:            desc("mamlog_log_last_event_timestamp_seconds", "When the newest event was appended, 0 if there is none."),
		lag:             desc("mamlog_projections_lag_seconds", "Time between the newest event of the log and the newest in the projections."),
	}
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(d chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.records, c.commits, c.bytes, c.duplicates, c.refused, c.suspended, c.held, c.logDisk, c.projectionsDisk, c.last, c.lag} {
		d <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(m chan<- prometheus.Metric) {
	rows := c.store.Projections.Stats() // before the log, which it must not be ahead of
	l, last := c.store.Log.Stats(), c.store.Log.Last()
	counter := func(d *prometheus.Desc, v uint64) {
		m <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge := func(d *prometheus.Desc, v float64) {
		m <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter(c.records, l.Records)
	counter(c.commits, l.Commits)
	counter(c.bytes, l.Bytes)
	counter(c.duplicates, l.Duplicates)
	counter(c.refused, l.Refused)
	gauge(c.suspended, number(l.Suspended))
	gauge(c.held, number(l.TimeHeld))
	gauge(c.logDisk, float64(l.DiskBytes))
	gauge(c.projectionsDisk, float64(rows.DiskBytes))
	gauge(c.last, float64(last.Time())/1000)
	gauge(c.lag, max(0, log.IDTime(last).Sub(log.IDTime(rows.Position)).Seconds()))
}
