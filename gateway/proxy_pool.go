package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	dialTimeout    = 5 * time.Second
	headerTimeout  = 600 * time.Second // Mattermost's imports and compliance exports think for minutes
	retryEvery     = 250 * time.Millisecond
	maxResends     = 3                // of a request whose connection broke before the answer
	keepAlive      = 15 * time.Second // TCP keep-alive, so that dead peers are noticed under a silent WebSocket
	continueWait   = 5 * time.Second  // for 100 Continue, before the body is sent unasked
	idlePerHost    = 256
	maxRespHeaders = 1 << 20
)

// A pool is the upstreams and the connections to them.
//
// An upstream is down if it cannot be dialled or is slow to answer a probe: it
// gets no requests while another is up. When all are down, those that are slow
// get them all the same; if none can be dialled, requests wait up to hold, and
// only one of them tries each 250 ms, so that a thousand waiting clients are not
// a thousand dials.
type pool struct {
	upstreams []*upstream
	hold      time.Duration
	transport *http.Transport

	next atomic.Uint32 // round robin
}

// An upstream is one Mattermost node. It outlives its pool if a reload keeps it.
type upstream struct {
	url *url.URL

	down   atomic.Bool
	away   atomic.Bool            // down because it cannot be dialled
	tried  atomic.Int64           // when it was last dialled in vain, Unix nanoseconds
	reason atomic.Pointer[string] // why it is down
	report atomic.Pointer[report] // nil until in use
}

// A report is where an upstream tells that it went up or down.
type report struct {
	gauge  prometheus.Gauge
	logger *slog.Logger
}

// A dialError says that a request never left: the upstream could not be reached.
type dialError struct{ err error }

func (e *dialError) Error() string { return "dial upstream: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

var (
	errAllDown      = &dialError{errors.New("no upstream can be reached")}
	errBodyConsumed = errors.New("resend request: part of its body is gone")
)

// newPool makes a pool of the upstreams at urls; those in known are taken over
// with what is known about them.
func newPool(urls []string, c Proxy, known []*upstream) (*pool, error) {
	p := &pool{hold: c.Hold, transport: newTransport(c.IdleTimeout)}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("upstream: %w", err)
		}
		if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("upstream: %q is not an http:// or https:// URL", raw)
		}
		i := slices.IndexFunc(known, func(k *upstream) bool { return *k.url == *u })
		if i < 0 {
			p.upstreams = append(p.upstreams, &upstream{url: u})
		} else {
			p.upstreams = append(p.upstreams, known[i])
		}
	}
	if len(p.upstreams) == 0 {
		return nil, errors.New("upstream: at least one URL is needed")
	}
	return p, nil
}

func newTransport(idle time.Duration) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		DisableCompression:     true, // the client's Accept-Encoding and Mattermost's answer are theirs
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idle,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  continueWait,
		TLSHandshakeTimeout:    dialTimeout,
		MaxResponseHeaderBytes: maxRespHeaders,
		WriteBufferSize:        bufferSize,
		ReadBufferSize:         4 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true) // upgrades need it, and Mattermost speaks nothing else in the clear
	return t
}

// RoundTrip implements http.RoundTripper. It sends req to one upstream, to the
// next one if that cannot be dialled, and waits up to hold while none can.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	body := &heldBody{ReadCloser: req.Body}
	end := time.Now().Add(p.hold)
	for resends := 0; ; {
		resp, err := p.once(req, body)
		if err == nil {
			return resp, nil
		}
		var dial *dialError
		switch {
		case body.touched.Load():
			return nil, err
		case errors.As(err, &dial):
		case resends < maxResends && safe(req.Method) && !timedOut(err):
			resends++
		default:
			return nil, err
		}
		wait := min(retryEvery, time.Until(end))
		if wait <= 0 {
			return nil, err
		}
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-time.After(wait):
		}
	}
}

// once offers req to every upstream that is up, and to those that are down if
// it is time to see whether they still are.
func (p *pool) once(req *http.Request, body *heldBody) (*http.Response, error) {
	first := int(p.next.Add(1) % uint32(len(p.upstreams)))
	var failure error = errAllDown
	for _, wantDown := range []bool{false, true} {
		for i := range p.upstreams {
			u := p.upstreams[(first+i)%len(p.upstreams)]
			if u.down.Load() != wantDown || wantDown && p.hold > 0 && u.away.Load() && !u.myTurn() {
				continue
			}
			resp, err := p.transport.RoundTrip(outgoing(req, u, body))
			var dial *dialError
			if !errors.As(err, &dial) {
				if err == nil && u.away.Load() { // a slow one that answers is still slow
					u.reached()
				}
				return resp, err
			}
			u.failed(err)
			failure = err
		}
	}
	return nil, failure
}

// outgoing is req as sent to u.
func outgoing(req *http.Request, u *upstream, body *heldBody) *http.Request {
	out := req.WithContext(req.Context())
	target := *req.URL
	target.Scheme, target.Host = u.url.Scheme, u.url.Host
	out.URL = &target
	if req.Body != nil {
		out.Body, out.GetBody = body, body.again
	}
	return out
}

// timedOut reports whether err is somebody's patience at its end. All other
// errors are what a connection to a dying process gives, in more forms than
// can be told apart: some of net/http's have no name.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// safe reports whether sending a request twice does no harm (RFC 9110, 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// A heldBody can be sent again as long as nobody read from it. http.Transport
// closes a body even when it could not dial, so Close does nothing; the body
// belongs to the server, which closes it when the handler returns.
type heldBody struct {
	io.ReadCloser
	touched atomic.Bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.touched.Store(true)
	return b.ReadCloser.Read(p)
}

func (b *heldBody) Close() error { return nil }

func (b *heldBody) again() (io.ReadCloser, error) {
	if b.touched.Load() {
		return nil, errBodyConsumed
	}
	return b, nil
}

// myTurn reports whether the caller may dial u, which is down: one may in each
// retryEvery.
func (u *upstream) myTurn() bool {
	last, now := u.tried.Load(), time.Now().UnixNano()
	// Nine tenths: the one who waits 250 ms must find its turn due, whatever
	// the timer's rounding.
	return now-last >= int64(retryEvery)*9/10 && u.tried.CompareAndSwap(last, now)
}

// attach makes g and l hear about u from now on. Until shown otherwise, an
// upstream is up.
func (u *upstream) attach(g prometheus.Gauge, l *slog.Logger) {
	u.report.Store(&report{g, l})
	if !u.down.Load() {
		g.Set(1)
	}
}

func (u *upstream) failed(err error) {
	text := err.Error()
	u.reason.Store(&text)
	var dial *dialError
	u.away.Store(errors.As(err, &dial))
	u.tried.Store(time.Now().UnixNano())
	if r := u.report.Load(); !u.down.Swap(true) && r != nil {
		r.gauge.Set(0)
		r.logger.Warn("upstream is down", "upstream", u.url.Host, "err", err)
	}
}

func (u *upstream) reached() {
	u.away.Store(false)
	if r := u.report.Load(); u.down.Swap(false) && r != nil {
		r.gauge.Set(1)
		r.logger.Info("upstream is up again", "upstream", u.url.Host)
	}
}
