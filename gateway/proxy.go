package gateway

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// A proxy carries requests to Mattermost and answers back, unchanged, and stored
// only as long as a client is slow:
//
//	client ─> ServeHTTP ─> outgoing (headers) ─> pool.send (which upstream, hold
//	   while there is none) ─> answer (headers, body; 101 becomes a tunnel) ─> client
//
// What a reload may change is in settings. A request uses those it began with, and
// to be passed on those in force when its body is there.
type proxy struct {
	tunnels *tunnels
	metrics *metrics
	logger  *slog.Logger
	buffers buffers

	drains drains
	gate
	spool *spool

	failures, refusals *rarely // log lines: "http request"; "websocket handshake refused" and others of Mattermost's refusals

	settings atomic.Pointer[settings] // never nil
}

// settings is the part of the configuration that every request looks at. It is
// replaced as a whole and never modified.
type settings struct {
	domain        string         // what clients that name no host mean
	trusted       []netip.Prefix // proxies in front of us whose X-Forwarded-For is believed
	maxBody       int64          // bytes; 0 = no limit of ours
	websocketIdle time.Duration
	hsts          string        // Strict-Transport-Security; "" = none
	spread        time.Duration // over which the WebSockets of a drained upstream are closed
	spool         Spool         // where slow transfers wait
	guards
	accessLog
	pool *pool
}

// newSettings takes what the proxy needs from c.
func newSettings(c Config, p *pool) (*settings, error) {
	trusted, err := parsePrefixes(c.Proxy.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("proxy.trusted_proxies: %w", err)
	}
	guards, err := newGuards(c)
	if err != nil {
		return nil, err
	}
	s := &settings{
		domain: c.Domain, trusted: trusted, maxBody: c.Proxy.MaxBody, spread: c.Drain.WebsocketSpread, websocketIdle: c.Proxy.WebsocketIdle,
		spool: c.Proxy.Spool, guards: guards, accessLog: accessLog{c.Log.Access, uint64(max(c.Log.Sample, 1))}, pool: p,
	}
	if c.TLS.HSTS > 0 && c.TLS.Source != SourceSelfSigned { // a promise that such a certificate cannot keep
		s.hsts = fmt.Sprintf("max-age=%d", int64(c.TLS.HSTS.Seconds()))
	}
	return s, nil
}

// use puts s in force for the requests to come.
func (p *proxy) use(s *settings) {
	now := p.settings.Load()
	if now == nil || now.pool != s.pool {
		s.pool.metrics = &p.metrics.upstreamMetrics
		p.metrics.attach(s.pool.upstreams, p.logger)
	}
	if now == nil || now.spool != s.spool {
		p.spool.try(s.spool.Dir)
	}
	p.settings.Store(s)
	if now != nil && now.pool != s.pool {
		now.pool.closeIdle()
	}
}

// An exchange is what the proxy remembers of one request.
type exchange struct {
	*settings
	client   netip.Addr   // who asked, trusted proxies discounted; not valid if unknown
	upgrade  bool         // it asks for a WebSocket
	id       string       // in the log, to Mattermost, and on an error page
	received atomic.Int64 // bytes of the body
	err      error        // why it failed
	rec      *recorder

	certificate *x509.Certificate // that the client has shown; nil: none

	node  *upstream // who answered; nil until then
	conn  net.Conn  // of a WebSocket, to it
	leave func()    // ends the count of a WebSocket there; nil if it is none
}

func newProxy(s *settings, m *metrics, logger *slog.Logger) *proxy {
	p := &proxy{
		tunnels: newTunnels(m), metrics: m, logger: logger, gate: newGate(), spool: newSpool(&m.spoolMetrics, logger),
		failures: newRarely(), refusals: newRarely(),
	}
	p.tunnels.logger = logger
	p.drains.changed = make(chan struct{}, 1)
	p.use(s)
	return p
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := p.settings.Load()
	x := &exchange{settings: s, client: clientAddr(r, s.trusted), upgrade: isWebSocket(r), id: requestID(r, s.trusted)}
	rec := &recorder{ResponseWriter: w, hijacked: p.metrics.inFlight.Dec}
	x.rec = rec
	p.metrics.inFlight.Inc()
	defer p.finish(x, rec, r, time.Now())

	if r.Method == http.MethodConnect { // we are nobody's forward proxy
		http.Error(rec, "CONNECT is not served here", http.StatusMethodNotAllowed)
		return
	}
	if p.guarded(rec, r, x) {
		return
	}
	var err error
	if x.certificate, err = identify(r); err != nil {
		w.Header().Set(rejectReason, "client-certificate")
		p.fail(rec, r, x, err)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		if s.maxBody > 0 && r.ContentLength > s.maxBody {
			p.fail(rec, r, x, &http.MaxBytesError{Limit: s.maxBody})
			return
		}
		r.Body = &countedBody{r.Body, &x.received}
		if s.maxBody > 0 {
			r.Body = http.MaxBytesReader(rec, r.Body, s.maxBody)
		}
	}
	if err := takeSmall(r); err != nil {
		p.fail(rec, r, x, err)
		return
	}
	done, err := p.spool.upload(s.spool, r)
	if err != nil {
		p.fail(rec, r, x, err)
		return
	}
	defer done()
	x.settings = p.settings.Load() // that may have taken minutes, and the upstreams of then be gone
	p.forward(rec, r, x)
}

// release says that the upstream has no more to do for x.
func (x *exchange) release() {
	switch {
	case x.leave != nil:
		x.leave()
	case x.node != nil && !x.upgrade:
		x.node.busy.Add(-1)
	}
}

// fail answers for an upstream that did not.
func (p *proxy) fail(rec *recorder, r *http.Request, x *exchange, err error) {
	client := patientOf(rec)
	switch {
	case client != nil && client.stalled():
		err = errStalled
	case errors.Is(err, errLeft), r.Context().Err() != nil:
		x.err = err
		panic(http.ErrAbortHandler) // there is nobody to answer
	}
	x.err = err
	if rec.status == http.StatusSwitchingProtocols {
		return // the connection is no longer ours to answer on
	}
	status := failureStatus(err)
	if (status == http.StatusRequestEntityTooLarge || status == http.StatusBadRequest) && r.ProtoMajor == 1 {
		rec.Header().Set("Connection", "close") // the rest of the body is not worth reading
	}
	if x.hsts != "" {
		rec.Header().Set("Strict-Transport-Security", x.hsts)
	}
	writeFailure(rec, r, status, x.id)
}

func failureStatus(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errMalformed):
		return http.StatusBadRequest
	case errors.Is(err, errNotAdmitted):
		return http.StatusForbidden
	case errors.Is(err, errAllDrained):
		return http.StatusServiceUnavailable
	case isDial(err):
		return http.StatusBadGateway
	case errors.Is(err, errStalled): // the client's doing, no fault of Mattermost's
		return http.StatusRequestTimeout
	case timedOut(err):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// isWebSocket reports whether r asks for a WebSocket (RFC 6455 section 4.1).
// No other protocol is ever switched to: h2c, for one, would carry requests
// past every rule of this proxy.
func isWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 &&
		r.ContentLength == 0 && len(r.TransferEncoding) == 0 &&
		strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		hasToken(r.Header["Connection"], "upgrade")
}

// hasToken reports whether one of the comma-separated lists names token.
func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}
