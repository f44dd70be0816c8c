package gateway

import (
	"math"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sallyport/sfu/rtcd"
	"sallyport/turn"
)

// metrics are the gateway's own. Label values are resolved once: nothing that a
// client sends becomes a label.
type metrics struct {
	requests  map[string]map[string]prometheus.Counter // by method, then class of status
	duration  prometheus.Histogram
	inFlight  prometheus.Gauge
	malformed prometheus.Counter
	broken    prometheus.Counter
	wsOpen    prometheus.Gauge
	wsOpened  prometheus.Counter
	wsClosed  *prometheus.CounterVec // reason
	wsRefused *prometheus.CounterVec // code
	upstream  *prometheus.GaugeVec   // upstream
	reloads   *prometheus.CounterVec // result
}

// otherMethod counts the methods that are not in methods.
const otherMethod = "other"

var (
	methods = []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, otherMethod,
	}
	classes = []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

// class is the label for an HTTP status; "none" if the connection was aborted
// before there was one.
func class(status int) string {
	if status < 100 || status > 599 {
		return classes[0]
	}
	return classes[status/100]
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sallyport_http_request_duration_seconds", Help: "Time from request to end of answer, WebSockets excluded.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		inFlight: gauge("sallyport_http_requests_in_flight", "Requests being answered, WebSockets excluded."),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_http_malformed_total", Help: "HTTP/1 requests refused with 400 because their framing is not sound.",
		}),
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_upstream_broken_answers_total", Help: "Answers that Mattermost began and broke off.",
		}),
		wsOpen: gauge("sallyport_ws_open", "WebSockets to Mattermost that are open."),
		wsOpened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_ws_opened_total", Help: "WebSockets to Mattermost opened.",
		}),
		wsClosed:  counters("sallyport_ws_closed_total", "WebSockets to Mattermost closed, by who ended them.", "reason"),
		wsRefused: counters("sallyport_ws_refused_total", "WebSocket handshakes that Mattermost declined.", "code"),
		upstream: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_upstream_up", Help: "1 if the Mattermost node can be reached.",
		}, []string{"upstream"}),
		reloads: counters("sallyport_config_reloads_total", "Configuration reloads.", "result"),
	}
	requests := counters("sallyport_http_requests_total", "Requests answered, by class of status and method.", "code", "method")
	m.requests = map[string]map[string]prometheus.Counter{}
	for _, method := range methods {
		m.requests[method] = map[string]prometheus.Counter{}
		for _, code := range classes {
			m.requests[method][code] = requests.WithLabelValues(code, method)
		}
	}
	for _, why := range []string{endedByClient, endedByUpstream, endedIdle, endedByDrain, endedByStop} {
		m.wsClosed.WithLabelValues(why)
	}
	for _, result := range []string{reloadDone, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	reg.MustRegister(requests, m.duration, m.inFlight, m.malformed, m.broken, m.wsOpen, m.wsOpened, m.wsClosed, m.wsRefused, m.upstream, m.reloads)
	return m
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// count adds one answered request.
func (m *metrics) count(method string, status int) {
	byClass, ok := m.requests[method]
	if !ok {
		byClass = m.requests[otherMethod]
	}
	byClass[class(status)].Inc()
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
