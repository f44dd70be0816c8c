package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/tls"
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
// An upstream is away if it cannot be dialled, and ill if it answers its probe
// late, badly or, many times in a row, not at all: it gets no requests while a
// healthy one is there. When none is, those that are ill get them all the same; if
// none can be dialled, requests wait up to hold, and only one of them tries each
// 250 ms, so that a thousand waiting clients are not a thousand dials.
type pool struct {
	upstreams  []*upstream
	hold       time.Duration
	transport  *http.Transport
	quick      *quick            // for requests that suit it
	sockets    map[string]string // paths of Unix sockets, by the address that stands for them
	secure     *tls.Client       // for upstreams over https
	serverName string            // the name that those must have
	ping       string            // the path that probes ask for
	metrics    *upstreamMetrics  // nil: nobody counts

	next     atomic.Uint32 // round robin
	choosing sync.Mutex    // held from the choice of an upstream for a WebSocket to its count
}

var (
	errAllDown      = &dialError{errors.New("no upstream can be reached")}
	errBodyConsumed = errors.New("resend request: part of its body is gone")
)

// newPool makes a pool of the upstreams at urls; those in known are taken over
// with what is known about them.
func newPool(urls []string, c Proxy, known []*upstream) (*pool, error) {
	p := &pool{hold: c.Hold, ping: c.HealthPath, serverName: c.UpstreamServerName, sockets: map[string]string{}}
	var err error
	if p.secure, err = tls.NewClient(c.UpstreamCAFile, c.UpstreamServerName); err != nil {
		return nil, fmt.Errorf("proxy.upstream_ca_file: %w", err)
	}
	p.transport = p.newTransport(c.IdleTimeout)
	p.quick = newQuick(p, c.IdleTimeout)
	for _, raw := range urls {
		u, err := newUpstream(raw)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(known, func(k *upstream) bool { return *k.url == *u.url }); i >= 0 {
			u = known[i]
		}
		p.upstreams = append(p.upstreams, u)
		if u.url.Scheme == "unix" {
			p.sockets[u.address()] = u.url.Path
		}
	}
	if len(p.upstreams) == 0 {
		return nil, errors.New("upstream: at least one URL is needed")
	}
	return p, nil
}

// same reports whether o would do what p does.
func (p *pool) same(o *pool) bool {
	return slices.Equal(p.upstreams, o.upstreams) && p.hold == o.hold && p.ping == o.ping &&
		p.transport.IdleConnTimeout == o.transport.IdleConnTimeout && p.serverName == o.serverName && p.secure.SameRoots(o.secure)
}

func (p *pool) newTransport(idle time.Duration) *http.Transport {
	t := &http.Transport{
		DialContext:            p.dialPlain,
		DialTLSContext:         p.dialSecure,
		DisableCompression:     true, // the client's Accept-Encoding and Mattermost's answer are theirs
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idle,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  continueWait,
		MaxResponseHeaderBytes: maxRespHeaders,
		WriteBufferSize:        bufferSize,
		ReadBufferSize:         4 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true) // upgrades need it, and Mattermost speaks nothing else in the clear
	return t
}

// A hint is called with each answer before the answer. An error of it ends the request.
type hint = func(status int, header textproto.MIMEHeader) error

// send gives req to one upstream, to another one if that cannot be dialled, or
// breaks off and req may be sent again, and waits up to hold while none can be
// dialled. The upstream that answers counts one more request as under way: the
// caller has to take it back.
func (p *pool) send(req *http.Request, early hint) (*http.Response, *upstream, error) {
	var body *heldBody
	if _, small := req.Body.(*smallBody); !small && req.Body != nil {
		body = &heldBody{ReadCloser: req.Body}
	}
	resends := 0
	again := func(err error) bool {
		if body != nil && body.touched.Load() {
			return false
		}
		if isDial(err) {
			return true
		}
		resends++
		return resends <= maxResends && safe(req.Method) && !timedOut(err)
	}
	var resp *http.Response
	var by *upstream
	err := p.offer(req.Context(), p.inTurn, again, func(u *upstream) (err error) {
		began := time.Now()
		resp, err = p.carry(u, req, body, early)
		if by = u; err != nil {
			u.busy.Add(-1)
		} else {
			u.answered(resp.StatusCode, time.Since(began))
		}
		if req.Context().Err() == nil && (body == nil || !body.broken.Load()) {
			u.learn(err)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return resp, by, nil
}

// carry sends req to u by the way that suits it.
func (p *pool) carry(u *upstream, req *http.Request, body *heldBody, early hint) (*http.Response, error) {
	if p.quick.suits(u, req) {
		return p.quick.roundTrip(u, req, early)
	}
	return p.carryBoth(u, req, body, early)
}

// carryBoth sends req to u so that its body and that of the answer may be under way
// at once.
func (p *pool) carryBoth(u *upstream, req *http.Request, body *heldBody, early hint) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: early})
	return p.transport.RoundTrip(addressed(req.WithContext(ctx), u, body))
}

// closeIdle closes the connections that nobody uses.
func (p *pool) closeIdle() {
	p.transport.CloseIdleConnections()
	p.quick.close()
}

// addressed is req as sent to u, with body if there is one.
func addressed(req *http.Request, u *upstream, body *heldBody) *http.Request {
	out := req.WithContext(req.Context())
	target := *req.URL
	target.Scheme, target.Host = u.scheme, u.host
	out.URL = &target
	if small, ok := req.Body.(*smallBody); ok {
		out.GetBody = func() (io.ReadCloser, error) { return newSmallBody(small.whole), nil }
		out.Body = newSmallBody(small.whole)
	} else if body != nil {
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
	broken  atomic.Bool // the client did not send all of it
}

func (b *heldBody) Read(p []byte) (int, error) {
	b.touched.Store(true)
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	return n, err
}

func (b *heldBody) Close() error { return nil }

func (b *heldBody) again() (io.ReadCloser, error) {
	if b.touched.Load() {
		return nil, errBodyConsumed
	}
	return b, nil
}
