package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of every HTTP server we run. There is no total time limit for a
// request or an answer: large files over slow links take as long as they take,
// but see patient.
const (
	readHeaderTimeout = 10 * time.Second
	keepAliveTimeout  = 120 * time.Second
	redirectPatience  = 10 * time.Second // where nothing but redirects is served
	maxHeaderBytes    = 64 << 10         // unless server.MaxHeaderBytes is set before run
	maxStreams        = 100              // HTTP/2: requests of one connection at once
	maxFrame          = 16 << 10         // HTTP/2: what clients send; each connection may fill one before we look at it
	stuckWrite        = 60 * time.Second // HTTP/2: not one byte taken by the client
	silentPing        = 30 * time.Second // HTTP/2: silence after which the client is asked whether it lives
	stopLimit         = 2 * time.Second  // for each step when there is no time to wait
	requestLimit      = 30 * time.Second // for requests under way when we drain, while new ones are served
	lateLimit         = 5 * time.Second  // for those under way when no new ones are
)

// headerRoom is how many times proxy.max_header at the start, or maxHeaderBytes if
// that is more, net/http reads, before anybody is known. What is too long for the
// proxy gets 431; what net/http finds too long, it ends the HTTP/2 connection for,
// with all that goes on there. Only one header of a connection is read at once.
const headerRoom = 4

// preface is the method of "PRI * HTTP/2.0", which net/http takes for an HTTP/1
// request and hands on for the handler to upgrade (RFC 9113 section 3.4).
const preface = "PRI"

// A site is an http.Server that ends completely: when run returns, no handler
// is running.
type site struct {
	server   *http.Server
	abort    context.CancelFunc // cancels the context of every request
	busy     crowd
	early    atomic.Pointer[crowd] // those of busy that settle will wait for
	patience time.Duration         // for each wait for a client; set before run
	minRate  atomic.Int64          // bytes a second that the body of a request must come at; 0 = any

	// afterShutdown, if not nil, ends the connections that were hijacked. hard
	// ends when there is no more time.
	afterShutdown func(hard context.Context)
}

func newSite(h http.Handler, logger *slog.Logger) *site {
	base, abort := context.WithCancel(context.Background())
	s := &site{abort: abort, patience: clientPatience}
	s.early.Store(new(crowd))
	s.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.busy.enter()
			defer s.busy.leave()
			early := s.early.Load()
			early.enter()
			defer early.leave()
			defer confess(logger, r)
			p, r := newPatient(w, r, s.patience, s.minRate.Load())
			defer p.finish()
			if p.conn != nil && p.conn.serve() {
				w.Header().Set("Connection", "close")
				http.Error(p, "malformed body", http.StatusBadRequest)
				return
			}
			if p.conn != nil && p.conn.tunnel.Load() {
				w.Header().Set("Connection", "close") // unless it becomes one
			}
			if r.Method == preface {
				w.Header().Set("Connection", "close")
				http.Error(p, "HTTP/2 is spoken after ALPN only", http.StatusHTTPVersionNotSupported)
				return
			}
			if r.Method == http.MethodTrace { // an answer that repeats the request shows its cookies to scripts
				http.Error(p, "TRACE is not served here", http.StatusMethodNotAllowed)
				return
			}
			h.ServeHTTP(p, r)
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // strangers' handshakes and half requests
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withStrict,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame,
			WriteByteTimeout: stuckWrite, SendPingTimeout: silentPing,
		},
	}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetHTTP2(true)
	return s
}

// confess logs the panic of a handler. net/http would, too, but among strangers'
// broken handshakes, where nobody looks.
func confess(logger *slog.Logger, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		logger.Error("handler panicked", "method", r.Method, "path", redactPath(r.URL), "err", v, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler) // ends this connection or stream, and nothing else
}

// settle waits for the requests that are under way now, for requestLimit or until
// hard ends; others are served meanwhile.
func (s *site) settle(hard context.Context) {
	limit, cancel := context.WithTimeout(hard, requestLimit)
	defer cancel()
	s.early.Swap(new(crowd)).wait(limit)
}

// run serves ln until ctx ends, then lets requests finish: for lateLimit, or
// stopLimit once hard has ended. It closes ln.
func (s *site) run(ctx, hard context.Context, ln net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ln) }()
	var failure error
	select {
	case failure = <-served:
	case <-ctx.Done():
	}
	grace, cancel := graceful(hard, lateLimit)
	defer cancel()
	if s.server.Shutdown(grace) != nil {
		_ = s.server.Close() // out of time: cut them
	}
	if s.afterShutdown != nil {
		s.afterShutdown(hard)
	}
	rest, cancelRest := graceful(hard, stopLimit)
	defer cancelRest()
	if !s.busy.wait(rest) {
		_ = s.server.Close()
	}
	s.abort()
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancelLast()
	if !s.busy.wait(last) {
		failure = errors.Join(failure, errors.New("stop serving HTTP: requests are still running"))
	}
	if failure == nil {
		failure = <-served
	}
	if failure != nil && !errors.Is(failure, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", failure)
	}
	return nil
}

// graceful returns a context for an orderly end: it lasts limit, and no longer
// than stopLimit after hard has ended.
func graceful(hard context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(hard), limit)
	stop := context.AfterFunc(hard, func() {
		t := time.AfterFunc(stopLimit, cancel)
		context.AfterFunc(ctx, func() { t.Stop() })
	})
	return ctx, func() { stop(); cancel() }
}

// A crowd counts those inside and lets somebody wait for them to leave. Unlike
// a sync.WaitGroup it may be entered while somebody waits.
type crowd struct {
	mu    sync.Mutex // guards the following
	n     int
	empty chan struct{} // closed when n falls to 0; nil if nobody waits
}

func (c *crowd) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if c.n == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// wait reports whether all had left before ctx ended.
func (c *crowd) wait(ctx context.Context) bool {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return true
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	empty := c.empty
	c.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-ctx.Done():
		return false
	}
}
