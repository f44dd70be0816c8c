package gateway

import (
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// The label "kind" of sallyport_upstream_errors_total.
const (
	errorDial    = "dial"    // no connection
	errorTLS     = "tls"     // no TLS on it
	errorTimeout = "timeout" // no answer in time
	errorBroken  = "broken"  // the connection ended before the answer
)

// upstreamMetrics are those of the Mattermost nodes. The label "upstream" has the
// names of those that are configured, and of no others.
type upstreamMetrics struct {
	broken     prometheus.Counter
	held       prometheus.Counter
	heldNow    prometheus.Gauge
	maintained prometheus.Counter
	answers    *prometheus.CounterVec // upstream, code
	errors     *prometheus.CounterVec // upstream, kind
	retries    *prometheus.CounterVec // upstream
	seconds    *prometheus.HistogramVec
	nodes      *nodes
}

// A meter is where one upstream tells what happens to it.
type meter struct {
	requests map[string]prometheus.Counter // by class of status
	errors   map[string]prometheus.Counter // by kind
	retries  prometheus.Counter
	seconds  prometheus.Observer
	logger   *slog.Logger
}

func newUpstreamMetrics(reg prometheus.Registerer) upstreamMetrics {
	m := upstreamMetrics{
		broken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_upstream_broken_answers_total", Help: "Answers that Mattermost began and broke off.",
		}),
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_upstream_held_total", Help: "Requests that had to wait for an upstream.",
		}),
		heldNow: gauge("sallyport_upstream_held", "Requests that wait for an upstream."),
		maintained: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_upstream_maintenance_total", Help: "Requests answered 503 because every Mattermost node is drained by command.",
		}),
		answers: counters("sallyport_upstream_requests_total", "Requests that the Mattermost node answered, by class of status.", "upstream", "code"),
		errors:  counters("sallyport_upstream_errors_total", "Requests that the Mattermost node did not answer.", "upstream", "kind"),
		retries: counters("sallyport_upstream_retries_total", "Requests tried again after the Mattermost node failed to answer.", "upstream"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sallyport_upstream_response_seconds", Help: "Time from request to the head of the answer, WebSockets excluded.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"upstream"}),
		nodes: newNodes(),
	}
	reg.MustRegister(m.broken, m.held, m.heldNow, m.maintained, m.answers, m.errors, m.retries, m.seconds, m.nodes)
	return m
}

// attach has the upstreams of a pool count here from now on, and forgets those that
// are in use no more.
func (m *upstreamMetrics) attach(all []*upstream, l *slog.Logger) {
	for _, u := range all {
		t := &meter{
			requests: map[string]prometheus.Counter{}, errors: map[string]prometheus.Counter{},
			retries: m.retries.WithLabelValues(u.name), seconds: m.seconds.WithLabelValues(u.name), logger: l,
		}
		for _, code := range classes {
			t.requests[code] = m.answers.WithLabelValues(u.name, code)
		}
		for _, kind := range []string{errorDial, errorTLS, errorTimeout, errorBroken} {
			t.errors[kind] = m.errors.WithLabelValues(u.name, kind)
		}
		u.meter.Store(t)
	}
	before := m.nodes.all.Swap(&all)
	if before == nil {
		return
	}
	for _, u := range *before {
		if slices.ContainsFunc(all, func(n *upstream) bool { return n.name == u.name }) {
			continue
		}
		gone := prometheus.Labels{"upstream": u.name}
		m.answers.DeletePartialMatch(gone)
		m.errors.DeletePartialMatch(gone)
		m.retries.DeletePartialMatch(gone)
		m.seconds.DeletePartialMatch(gone)
	}
}

// nodes is the collector of what is read off the upstreams in use.
type nodes struct {
	all                               atomic.Pointer[[]*upstream] // nil until there are any
	up, drained, inFlight, websockets *prometheus.Desc
}

func newNodes() *nodes {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"upstream"}, nil)
	}
	return &nodes{
		up:         desc("sallyport_upstream_up", "1 if the Mattermost node can be reached and is well."),
		drained:    desc("sallyport_upstream_drained", "1 if the Mattermost node is drained by command."),
		inFlight:   desc("sallyport_upstream_requests_in_flight", "Requests that the Mattermost node has under way, WebSockets excluded."),
		websockets: desc("sallyport_upstream_websockets", "WebSockets open to the Mattermost node."),
	}
}

// Describe implements prometheus.Collector.
func (n *nodes) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{n.up, n.drained, n.inFlight, n.websockets} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (n *nodes) Collect(out chan<- prometheus.Metric) {
	all := n.all.Load()
	if all == nil {
		return
	}
	for _, u := range *all {
		send := func(d *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, u.name)
		}
		send(n.up, one(u.level() == healthy))
		send(n.drained, one(u.drained.Load()))
		send(n.inFlight, float64(u.busy.Load()))
		send(n.websockets, float64(u.open.Load()))
	}
}

// one is 1 for true and 0 for false.
func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
