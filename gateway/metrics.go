package gateway

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sallyport/sfu/rtcd"
)

// metrics are the gateway's own. Label values are resolved once: nothing that a
// client sends becomes a label.
type metrics struct {
	httpMetrics
	wsMetrics
	upstreamMetrics
	spoolMetrics
	reloads *prometheus.CounterVec // result
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		httpMetrics:     newHTTPMetrics(reg),
		wsMetrics:       newWSMetrics(reg),
		upstreamMetrics: newUpstreamMetrics(reg),
		spoolMetrics:    newSpoolMetrics(reg),
		reloads:         counters("sallyport_config_reloads_total", "Configuration reloads.", "result"),
	}
	for _, result := range []string{reloadDone, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	reg.MustRegister(m.reloads)
	return m
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// newRegistry is the one registry of a process: everything registers here.
func newRegistry(v rtcd.Version) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sallyport_build_info", Help: "1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": v.Number, "revision": v.Hash, "go": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build,
		collectors.NewGoCollector(),
		// rtcd's name, so that dashboards made for it keep working.
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: "rtcd"}),
	)
	return reg
}
