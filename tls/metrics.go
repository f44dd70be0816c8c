package tls

import (
	"crypto/tls"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// portMetrics count what comes through a [Port].
type portMetrics struct {
	connections *prometheus.CounterVec // by port, kind and alpn; the latter are from fixed sets
	refused     *prometheus.CounterVec // by limit
	handshakes  *prometheus.CounterVec // by result
	sessions    *prometheus.CounterVec // by version and resumed
	duration    prometheus.Histogram
}

func newPortMetrics(r prometheus.Registerer, pending func() int) *portMetrics {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_demux_pending_connections",
		Help: "Connections whose purpose is not known yet.",
	}, func() float64 { return float64(pending()) })
	return &portMetrics{
		connections: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_demux_connections_total",
			Help: "Connections on ports 443 and 80 by what they turned out to be and the negotiated ALPN protocol.",
		}, []string{"port", "kind", "alpn"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_demux_refused_total",
			Help: "Connections closed because a limit was reached: address, total, open_address, open_total or queue.",
		}, []string{"limit"}),
		handshakes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_tls_handshakes_total",
			Help: "TLS handshakes by result: ok, error, timeout, busy, displaced or no_certificate.",
		}, []string{"result"}),
		sessions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_tls_sessions_total",
			Help: "Successful TLS handshakes by version (1.2, 1.3), and whether they resumed a session.",
		}, []string{"version", "resumed"}),
		duration: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "sallyport_tls_handshake_seconds",
			Help:    "Duration of successful TLS handshakes.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

// session records what the handshake of c agreed on.
func (m *portMetrics) session(c *tls.Conn) {
	s := c.ConnectionState()
	m.sessions.WithLabelValues(strings.TrimPrefix(tls.VersionName(s.Version), "TLS "), strconv.FormatBool(s.DidResume)).Inc()
}

// certMetrics count what happens to certificates.
type certMetrics struct {
	reloadFailures prometheus.Counter
	acmeObtained   prometheus.Counter
	acmeFailed     prometheus.Counter
}

func newCertMetrics(r prometheus.Registerer, c *Certificates) *certMetrics {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_tls_cert_not_after_seconds",
		Help: "Unix time at which the first certificate in use expires; 0 while there is none.",
	}, c.notAfter)
	if r != nil {
		r.MustRegister(expiries{c})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_tls_cert_failed_timestamp_seconds",
		Help: "Unix time of the last attempt to load, obtain or renew a certificate that failed; 0 if none has since there was a good one.",
	}, func() float64 { return seconds(c.now.Load().health.last().at) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_tls_cert_next_attempt_timestamp_seconds",
		Help: "Unix time of the next attempt to obtain a missing certificate; 0 if none is missing.",
	}, func() float64 { return seconds(c.now.Load().health.last().next) })
	return &certMetrics{
		reloadFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_tls_cert_reload_failures_total",
			Help: "Certificate files that changed but could not be used.",
		}),
		acmeObtained: f.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_tls_acme_obtained_total",
			Help: "Certificates obtained from the ACME CA, renewals included.",
		}),
		acmeFailed: f.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_tls_acme_failed_total",
			Help: "Failed attempts to obtain a certificate from the ACME CA.",
		}),
	}
}

// expiries is a gauge for each name that is wanted, which a reload may change.
type expiries struct{ certs *Certificates }

var expiryDesc = prometheus.NewDesc("sallyport_tls_name_not_after_seconds",
	"Unix time at which the certificate for a name of the configuration expires; 0 while there is none.", []string{"name"}, nil)

// Describe implements prometheus.Collector.
func (e expiries) Describe(out chan<- *prometheus.Desc) { out <- expiryDesc }

// Collect implements prometheus.Collector.
func (e expiries) Collect(out chan<- prometheus.Metric) {
	for _, x := range e.certs.Status().Expiry {
		out <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, seconds(x.NotAfter), x.Name)
	}
}
