package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/gateway/admin"
	"sallyport/sfu"
	"sallyport/sfu/rtcd"
	"sallyport/tls"
	"sallyport/turn"
)

// Options are what a Gateway is given beside its Config. The zero value works.
type Options struct {
	// Logger gets everything that is logged; nil discards.
	Logger *slog.Logger
	// Level is set by a reload that changes log.level; nil: that key then
	// needs a restart.
	Level *slog.LevelVar
	// TextLog is set by a reload that changes log.format: whether that is text;
	// nil: that key then needs a restart.
	TextLog *atomic.Bool
	// ReadFile reads the secret files; nil reads them from the disk.
	ReadFile func(name string) ([]byte, error)
	// SelfTest is how often the way through TURN is tested; 0: every minute.
	SelfTest time.Duration
	// Reload is called when a command asks for a reload. It should read the
	// configuration again and return what Gateway.Reload returns, or every
	// fault on a line of its own. nil: the command is refused.
	Reload func() (Changes, error)
	// Inherited are sockets that are open already. They belong to the Gateway.
	Inherited Inherited
	// Version is what is running.
	Version rtcd.Version
}

// A Gateway is one running Sallyport. Make it with New, run it once with Run.
type Gateway struct {
	opts     Options
	logger   *slog.Logger
	registry *prometheus.Registry
	metrics  *metrics
	began    time.Time

	sockets       sockets
	certs         *tls.Certificates
	port          *tls.Port
	beside        *tls.Port     // on listen.http; nil when that is off
	hairpin       *turn.Hairpin // nil without TURN
	turn          *turn.Server  // nil without TURN
	probe         *selfTest     // nil without TURN
	sfu           *sfu.Server   // nil unless sfu.mode is rtcd
	rtcd          *rtcd.Server  // nil unless sfu.mode is rtcd
	proxy         *proxy
	longestHeader int // bytes of a request header that net/http reads

	secure *site // HTTPS
	plain  *site // HTTP on the HTTPS port
	http   *site // listen.http; nil when that is off
	admin  *admin.Server
	pulse  *pulse

	draining chan struct{} // closed by Drain
	drain    sync.Once
	phase    atomic.Int32 // only ever grows

	reloading sync.Mutex // held through a reload, which may hang on a file; guards the following
	secrets   Secrets    // as they were last read

	mu  sync.Mutex // guards the following
	cfg Config     // as it is in force; only a reload changes it
}

// The phases of a Gateway.
const (
	starting int32 = iota // sockets are open, nothing is served
	serving
	stopping // waits for calls to end, or stops
)

// ready reports whether the gateway should be sent traffic.
func (g *Gateway) ready() bool { return g.phase.Load() == serving }

// New opens every socket that cfg asks for and builds the parts on them.
// Nothing is served before Run; a Gateway that is never run must be closed.
//
// The error says which key cannot be satisfied and what would help. After an
// error nothing is left open.
func New(cfg Config, o Options) (*Gateway, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := joinProblems(cfg.Validate()); err != nil {
		return nil, err
	}
	g := &Gateway{
		opts: o, logger: o.Logger, cfg: cfg, began: time.Now(),
		registry: newRegistry(o.Version), draining: make(chan struct{}), pulse: newPulse(),
	}
	g.metrics = newMetrics(g.registry)
	if err := g.build(cfg); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Close releases the sockets of a Gateway that was not run. Run does it itself.
func (g *Gateway) Close() error {
	var errs []error
	if g.rtcd != nil {
		errs = append(errs, g.rtcd.Close())
	}
	if g.hairpin != nil {
		errs = append(errs, g.hairpin.Close())
	}
	return errors.Join(append(errs, g.sockets.close())...)
}

// build opens and wires, from the ground up. What it has made when it fails is
// in g for Close.
func (g *Gateway) build(cfg Config) error {
	secrets, problems := ReadSecrets(cfg, g.opts.ReadFile)
	if err := joinProblems(problems); err != nil {
		return err
	}
	g.secrets = secrets
	if err := g.sockets.open(cfg, g.opts.Inherited); err != nil {
		return err
	}
	for _, step := range []func(Config, Secrets) error{g.buildTLS, g.buildMedia, g.buildTURN, g.buildAPI, g.buildHTTP} {
		if err := step(cfg, secrets); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) buildTLS(cfg Config, s Secrets) error {
	certs, err := tls.NewCertificates(cfg.TLS, []string{cfg.Domain}, tls.CertificateOptions{
		Logger: g.logger, Metrics: g.registry,
		HTTPPort: portOf(g.sockets.http), HTTPSPort: portOf(g.sockets.https), ListenHost: hostOf(g.sockets.https),
		Secrets: s.forTLS(),
	})
	if err != nil {
		return err
	}
	g.certs = certs
	trusted, err := parsePrefixes(cfg.Proxy.TrustedProxies)
	if err != nil {
		return fmt.Errorf("proxy.trusted_proxies: %w", err)
	}
	g.port = tls.NewPort(g.sockets.https, certs, tls.PortOptions{Logger: g.logger, Metrics: g.registry, Trusted: trusted})
	if g.sockets.http != nil {
		g.beside = g.port.Beside(g.sockets.http)
	}
	exempt, err := parsePrefixes(cfg.Limits.Exempt)
	if err != nil {
		return fmt.Errorf("limits.exempt: %w", err)
	}
	g.port.SetLimits(cfg.Limits.Connections, exempt)
	return nil
}

// buildMedia makes the SFU and, in memory between it and TURN, the hairpin.
func (g *Gateway) buildMedia(cfg Config, _ Secrets) error {
	var addresses []sfu.Address
	if g.sockets.media != nil {
		addresses = g.sockets.media.Addresses()
	}
	if cfg.TURN.Enabled {
		g.hairpin = turn.NewHairpin(relayIPs(addresses), aliases(addresses))
	}
	if g.sockets.media == nil {
		return nil
	}
	o := sfu.Options{Logger: g.logger, Metrics: g.registry, AudioLastN: cfg.SFU.AudioLastN}
	if at, ok := g.sockets.https.Addr().(*net.TCPAddr); ok {
		o.ICETCP = []netip.AddrPort{at.AddrPort()} // where port.ICE comes from
	}
	if g.hairpin != nil {
		o.Hairpins = g.hairpin.Conns()
		o.Readvertised = func(now []sfu.Address) { g.hairpin.Add(aliases(now)) }
	}
	var err error
	g.sfu, err = sfu.New(g.sockets.media, o)
	return err
}

func (g *Gateway) buildTURN(cfg Config, s Secrets) error {
	if !cfg.TURN.Enabled {
		return nil
	}
	section := cfg.TURN
	if section.Realm == "" && len(cfg.Domain) <= turn.MaxRealm { // else TURN's own default: no client shows it
		section.Realm = cfg.Domain
	}
	trusted, err := parsePrefixes(cfg.Proxy.TrustedProxies)
	if err != nil {
		return fmt.Errorf("proxy.trusted_proxies: %w", err)
	}
	g.turn, err = turn.New(section, g.hairpin, turn.Options{Logger: g.logger, Metrics: g.registry, Secrets: s.TURN})
	if err != nil {
		return err
	}
	g.turn.SetTrusted(trusted)
	g.probe = newSelfTest(g, g.opts.SelfTest)
	return nil
}

func (g *Gateway) buildAPI(cfg Config, s Secrets) error {
	if g.sfu == nil {
		return nil
	}
	var err error
	g.rtcd, err = rtcd.New(cfg.SFU.API, g.sfu, rtcd.Options{
		Logger: g.logger, Metrics: g.registry, Gatherer: g.registry, Version: g.opts.Version, Keys: s.Clients,
	})
	return err
}

func (g *Gateway) buildHTTP(cfg Config, secrets Secrets) error {
	pool, err := newPool(cfg.Upstream, cfg.Proxy, nil)
	if err != nil {
		return err
	}
	s, err := newSettings(cfg, pool)
	if err != nil {
		return err
	}
	s.preauth.accept(secrets.Preauth)
	g.proxy = newProxy(s, g.metrics, g.logger)
	table := g.routes(cfg)
	g.secure = newSite(table.at(doorHTTPS), g.logger)
	g.secure.afterShutdown = g.endTunnels
	g.secure.minRate.Store(cfg.Proxy.MinRate)
	g.secure.server.ConnContext = g.greet
	g.plain = newSite(table.at(doorPlain), g.logger)
	g.plain.patience = redirectPatience
	if g.sockets.http != nil {
		g.http = newSite(table.at(doorHTTP), g.logger)
		g.http.patience = redirectPatience
	}
	g.longestHeader = headerRoom * max(cfg.Proxy.MaxHeader, maxHeaderBytes)
	for _, s := range []*site{g.secure, g.plain, g.http} {
		if s != nil {
			s.server.MaxHeaderBytes = g.longestHeader
		}
	}
	g.admin = admin.New(admin.Options{
		Logger: g.logger, Metrics: g.registry, Status: g.Status, Ready: g.ready, Alive: g.alive,
		Commands: g.commands(),
	})
	return nil
}

func (g *Gateway) commands() admin.Commands {
	c := admin.Commands{Drain: g.proxy.setDrained}
	if g.opts.Reload != nil {
		c.Reload = func() (any, error) { return g.opts.Reload() }
	}
	return c
}

func (g *Gateway) routes(cfg Config) routes {
	h := handlers{proxy: g.proxy, redirect: redirect(cfg.Domain, httpsPort(cfg, g.sockets.https))}
	if g.sockets.http != nil { // else the CA would be offered a challenge that nobody answers
		h.acme = g.certs.HTTPChallenge
	}
	return newRoutes(h)
}

// joinProblems makes one error of problems, nil of none.
func joinProblems(problems []Problem) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}
