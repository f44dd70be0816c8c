package gateway

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// httpMetrics are those of requests.
type httpMetrics struct {
	requests  map[string]map[string]prometheus.Counter // by method, then class of status
	duration  prometheus.Histogram
	inFlight  prometheus.Gauge
	malformed prometheus.Counter
	limited   *prometheus.CounterVec // reason
	tooLarge  prometheus.Counter
	denied    *prometheus.CounterVec // rule
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

func newHTTPMetrics(reg prometheus.Registerer) httpMetrics {
	m := httpMetrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sallyport_http_request_duration_seconds", Help: "Time from request to end of answer, WebSockets excluded.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		inFlight: gauge("sallyport_http_requests_in_flight", "Requests being answered, WebSockets excluded."),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_http_malformed_total", Help: "HTTP/1 requests refused with 400 because their framing is not sound.",
		}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_upstream_too_large_total", Help: "Requests that Mattermost answered with 413.",
		}),
	}
	m.limited = counters("sallyport_http_limited_total", "Requests refused because a limit was reached.", "reason")
	for _, which := range []string{limitRequests, limitLogins, limitURL, limitHeader} {
		m.limited.WithLabelValues(which)
	}
	m.denied = counters("sallyport_http_denied_total", "Requests refused because of access.rules (path) or for want of the pre-authentication secret.", "rule")
	for _, rule := range []string{deniedByRule, deniedByPreauth} {
		m.denied.WithLabelValues(rule)
	}
	requests := counters("sallyport_http_requests_total", "Requests answered, by class of status and method.", "code", "method")
	m.requests = map[string]map[string]prometheus.Counter{}
	for _, method := range methods {
		m.requests[method] = map[string]prometheus.Counter{}
		for _, code := range classes {
			m.requests[method][code] = requests.WithLabelValues(code, method)
		}
	}
	reg.MustRegister(requests, m.duration, m.inFlight, m.malformed, m.limited, m.tooLarge, m.denied)
	return m
}

// count adds one answered request.
func (m *httpMetrics) count(method string, status int) {
	byClass, ok := m.requests[method]
	if !ok {
		byClass = m.requests[otherMethod]
	}
	byClass[class(status)].Inc()
}

// wsMetrics are those of WebSockets to Mattermost.
type wsMetrics struct {
	wsOpen    prometheus.Gauge
	wsOpened  prometheus.Counter
	wsClosed  *prometheus.CounterVec // reason
	wsRefused *prometheus.CounterVec // code
}

func newWSMetrics(reg prometheus.Registerer) wsMetrics {
	m := wsMetrics{
		wsOpen: gauge("sallyport_ws_open", "WebSockets to Mattermost that are open."),
		wsOpened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_ws_opened_total", Help: "WebSockets to Mattermost opened.",
		}),
		wsClosed:  counters("sallyport_ws_closed_total", "WebSockets to Mattermost closed, by who ended them.", "reason"),
		wsRefused: counters("sallyport_ws_refused_total", "WebSocket handshakes that Mattermost declined.", "code"),
	}
	for _, why := range []string{endedByClient, endedByUpstream, endedIdle, endedByDrain, endedByStop} {
		m.wsClosed.WithLabelValues(why)
	}
	reg.MustRegister(m.wsOpen, m.wsOpened, m.wsClosed, m.wsRefused)
	return m
}
