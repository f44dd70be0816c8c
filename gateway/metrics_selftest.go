package gateway

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/turn"
)

// selfTestMetrics are those of the self-test. They are there from the
// beginning, as NaN or 0 while nothing is known.
type selfTestMetrics struct {
	up      *prometheus.GaugeVec   // transport
	seconds *prometheus.GaugeVec   // transport, stage
	last    *prometheus.GaugeVec   // transport
	runs    *prometheus.CounterVec // transport, result
}

func newSelfTestMetrics(reg prometheus.Registerer, transports []string) *selfTestMetrics {
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &selfTestMetrics{
		up:      gauges("sallyport_selftest_up", "1 if the latest self-test through TURN to the SFU and back succeeded.", "transport"),
		seconds: gauges("sallyport_selftest_seconds", "Duration of the latest successful self-test by stage.", "transport", "stage"),
		last:    gauges("sallyport_selftest_last_timestamp_seconds", "Unix time of the latest self-test.", "transport"),
		runs:    counters("sallyport_selftest_runs_total", "Self-tests by result.", "transport", "result"),
	}
	for _, transport := range transports {
		m.up.WithLabelValues(transport).Set(math.NaN())
		m.last.WithLabelValues(transport)
		for stage := range stages(turn.ProbeResult{}) {
			m.seconds.WithLabelValues(transport, stage).Set(math.NaN())
		}
		for _, result := range []string{"ok", "failed"} {
			m.runs.WithLabelValues(transport, result)
		}
	}
	reg.MustRegister(m.up, m.seconds, m.last, m.runs)
	return m
}

func stages(r turn.ProbeResult) map[string]time.Duration {
	return map[string]time.Duration{"connect": r.Connect, "allocate": r.Allocate, "roundtrip": r.RoundTrip}
}

// note records a result.
func (m *selfTestMetrics) note(transport string, r turn.ProbeResult, ok bool) {
	m.last.WithLabelValues(transport).SetToCurrentTime()
	if !ok {
		m.up.WithLabelValues(transport).Set(0)
		m.runs.WithLabelValues(transport, "failed").Inc()
		return
	}
	m.up.WithLabelValues(transport).Set(1)
	m.runs.WithLabelValues(transport, "ok").Inc()
	for stage, d := range stages(r) {
		m.seconds.WithLabelValues(transport, stage).Set(d.Seconds())
	}
}
