// Package admin is the second, private listener of a gateway:
//
//	/              a page to look at            /metrics        Prometheus
//	/status        the same as JSON             /healthz        200: the process lives
//	/debug/pprof/  profiles, nowhere else       /readyz         200: send it traffic
//
// Nothing asks for a password: whoever can connect may read all of it, and
// nothing can be changed. Commands come in elsewhere, over a Unix socket that only
// the administrator can open: see RunCommands.
package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 120 * time.Second
	stopLimit     = 2 * time.Second // for answers under way
)

// Options are what a Server shows. Metrics, Status and Ready are required.
type Options struct {
	Logger  *slog.Logger // nil discards
	Metrics prometheus.Gatherer
	Status  func() Status // called for each request
	Ready   func() bool   // whether to be sent traffic
	Alive   func() error  // why the process should be restarted; nil: it never should

	Commands Commands // for RunCommands, which needs Drain
}

// A Server answers on the admin listener.
type Server struct {
	opts Options
}

// New returns a Server. It listens on nothing.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{opts: o}
}

// Run serves ln until ctx ends and closes it.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, guard(ln.Addr(), s.handler()))
}

func (s *Server) serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	base, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve admin: %w", err)
	case <-ctx.Done():
	}
	abort() // ends a profile under way
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.opts.Metrics, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError, // one broken collector must not blind the rest
	}))
	for path, profile := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.HandleFunc(path, sameSite(contended(profile)))
	}
	return mux
}

// sameSite refuses what a page of another site makes a browser ask for: it
// could not read the answer, but a profile costs us its time all the same.
func sameSite(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "none", "same-origin":
			next(w, r)
		default:
			say(w, http.StatusForbidden, "not for pages of other sites")
		}
	}
}

// mutexFraction is how many contended mutexes there are for each that is looked
// at while a profile of them is taken.
const mutexFraction = 10

// contended makes the runtime look at contended mutexes while a profile of them
// is taken over some seconds: at other times that would cost for nothing.
func contended(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/mutex") && r.FormValue("seconds") != "" {
			runtime.SetMutexProfileFraction(mutexFraction)
			defer runtime.SetMutexProfileFraction(0)
		}
		next(w, r)
	}
}

// guard refuses requests under a name other than localhost: a web page that has
// its own name resolve to our address would otherwise read all this with the
// browser of whoever can reach it. An address as the host is no name a page can
// have taken; on a loopback listener it must be one of loopback.
func guard(listen net.Addr, next http.Handler) http.Handler {
	addr, err := netip.ParseAddrPort(listen.String())
	loopback := err == nil && addr.Addr().Unmap().IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || loopback && !ip.IsLoopback()) {
			say(w, http.StatusForbidden, "ask for this listener by its address or as localhost")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text)
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.opts.Alive != nil {
		if err := s.opts.Alive(); err != nil {
			say(w, http.StatusInternalServerError, err.Error())
			return
		}
	}
	say(w, http.StatusOK, "ok")
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if !s.opts.Ready() {
		say(w, http.StatusServiceUnavailable, s.opts.Status().State)
		return
	}
	text := "ready"
	for _, t := range s.opts.Status().SelfTests { // for who looks: taking us out of service would help nobody
		result := "ok in " + t.Took.Round(time.Microsecond).String()
		if !t.OK {
			result = "FAILED: " + t.Error
		}
		text += fmt.Sprintf("\nself-test turn/%s: %s (%s ago)", t.Transport, result, time.Since(t.At).Round(time.Second))
	}
	say(w, http.StatusOK, text)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(s.opts.Status()); err != nil {
		s.opts.Logger.Debug("status not sent", "err", err)
	}
}

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"since": func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
	"date":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
}).Parse(pageHTML))

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	if err := pageTemplate.Execute(w, s.opts.Status()); err != nil {
		s.opts.Logger.Debug("status page not sent", "err", err)
	}
}
