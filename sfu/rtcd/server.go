package rtcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sallyport/sfu"
)

// Config is the section sfu.api of the configuration.
type Config struct {
	// Listen is the address of the API, host:port. Restart to change.
	Listen string `koanf:"listen"`
	// SelfRegistration lets whoever reaches the API register as a client, as
	// the Calls plugin does when it finds that it is unknown. Restart to change.
	SelfRegistration bool `koanf:"self_registration"`
	// Clients are the installations of Mattermost that may connect. Their keys
	// can be changed by a reload.
	Clients []Client `koanf:"clients"`
	// Store is the directory of the registered clients. It is opened only when
	// SelfRegistration is set or when it has clients from a time when it was.
	// Restart to change.
	Store string `koanf:"store"`
}

// A Client is an installation of Mattermost.
type Client struct {
	ID      string `koanf:"id"`       // what the plugin calls its client ID: 1 to 64 bytes
	KeyFile string `koanf:"key_file"` // file with its auth key: 32 to 72 bytes
}

// Options are the parts of a Server that do not come from the configuration.
type Options struct {
	Logger   *slog.Logger          // nil discards
	Metrics  prometheus.Registerer // nil registers nothing
	Gatherer prometheus.Gatherer   // what /metrics shows; nil = no such route
	Version  Version
	Keys     map[string][]byte // auth keys of the declared clients by ID, each of 32 bytes or more
}

// Version is what /version tells of this build. All fields may be empty.
type Version struct {
	Date   string // of the build
	Number string // of Sallyport, without a leading v
	Hash   string // of the commit
}

// The timeouts of the HTTP server. They end with the upgrade to a WebSocket.
const (
	readTimeout     = 30 * time.Second
	headerTimeout   = 10 * time.Second
	answerTimeout   = 60 * time.Second
	idleTimeout     = 30 * time.Second
	shutdownTimeout = 10 * time.Second
	maxHeader       = 16 << 10 // bytes
)

// A Server is the rtcd-compatible API of an SFU. Make it with New, serve with
// Run, and Close it after Run.
type Server struct {
	cfg      Config
	log      *slog.Logger
	media    media
	version  Version
	metrics  *metrics
	accounts *accounts
	load     *cpuLoad
	routes   map[string]route
	ping     pingTimes
	refusals *rate.Sometimes // logs of refused credentials

	draining atomic.Bool
	conns    conns
	requests requests
}

// New prepares the API of media and opens the store of clients if it is needed.
// It listens on nothing and starts nothing. The error says which client or
// which file is wrong.
func New(cfg Config, media *sfu.Server, o Options) (*Server, error) {
	return newServer(cfg, mediaServer{media}, o)
}

func newServer(cfg Config, m media, o Options) (*Server, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, c := range cfg.Clients {
		if len(o.Keys[c.ID]) == 0 {
			return nil, fmt.Errorf("declared client %q has no key", c.ID)
		}
	}
	if cfg.SelfRegistration && cfg.Store == "" {
		return nil, errors.New("self-registration needs a directory for the clients")
	}
	met, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	st, err := openStore(cfg.Store, cfg.SelfRegistration)
	if err != nil {
		return nil, err
	}
	acc, err := newAccounts(st, o.Keys)
	if err != nil {
		if st != nil {
			err = errors.Join(err, st.close())
		}
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: log, media: m, version: o.Version, metrics: met, accounts: acc,
		load:     newCPULoad(os.DirFS("/"), runtime.NumCPU()),
		ping:     pingTimes{pingEvery, pongWithin},
		refusals: &rate.Sometimes{First: 3, Interval: 10 * time.Second},
		conns:    newConns(),
	}
	s.routes = s.routeTable(o.Gatherer)
	return s, nil
}

// Run serves ln until ctx ends, then closes ln and every connection, and
// returns nil after all it started has returned. Call it once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	s.warnIfExposed(ln.Addr())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var helpers sync.WaitGroup
	helpers.Go(func() { s.load.run(ctx) })
	served := make(chan error, 1)
	helpers.Go(func() { served <- server.Serve(ln) })

	var err error
	select {
	case err = <-served: // before its time
		err = fmt.Errorf("serve rtcd API: %w", err)
		cancel()
	case <-ctx.Done():
	}
	s.conns.stopAll()
	graceful, end := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer end()
	if server.Shutdown(graceful) != nil {
		_ = server.Close() // those who are still being answered have had their time
	}
	s.requests.stop()
	helpers.Wait()
	return err
}

// warnIfExposed tells the operator when strangers may reach the API: with
// self-registration they may use the SFU, and without it try keys.
func (s *Server) warnIfExposed(addr net.Addr) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return
	}
	ip, _ := netip.AddrFromSlice(tcp.IP)
	ip = ip.Unmap()
	if !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast() {
		s.log.Warn("the rtcd API can be reached from outside: let a firewall admit Mattermost only", "listen", addr.String())
	}
}

// confess logs the panic of a handler, of a plugin's connection above all.
// net/http would, too, but among strangers' broken requests, where nobody looks.
func (s *Server) confess(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		s.log.Error("handler panicked", "path", r.URL.Path, "err", v, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// Drain makes /system answer 503 from now on, so that plugins with a choice of
// hosts start no more calls here. Everything else goes on.
func (s *Server) Drain() { s.draining.Store(true) }

// SetKeys replaces the keys of the declared clients. Connections of clients
// that are declared no longer are closed; their sessions go on. Keys shorter
// than 32 bytes are logged and do not count.
func (s *Server) SetKeys(keys map[string][]byte) {
	for id, key := range keys {
		if len(key) < minKey {
			s.log.Error("ignore declared client: its key is too short", "client", id, "bytes", len(key))
		}
	}
	for _, gone := range s.accounts.setKeys(keys) {
		s.conns.stopClient(gone)
	}
}

// Close closes the store of clients. Call it after Run has returned, or instead
// of Run.
func (s *Server) Close() error {
	if s.accounts.store == nil {
		return nil
	}
	if err := s.accounts.store.close(); err != nil {
		return fmt.Errorf("close client store: %w", err)
	}
	return nil
}

// requests counts the requests being handled, WebSockets included, so that Run
// can outlive them: http.Server waits for neither hijacked nor cut-off ones.
type requests struct {
	mu      sync.Mutex // guards the following
	stopped bool
	running sync.WaitGroup
}

// begin returns false after stop.
func (r *requests) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.running.Add(1)
	return true
}

// stop lets no more requests in and waits for those that are.
func (r *requests) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.running.Wait()
}
