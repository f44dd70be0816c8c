package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// errNoCertificate fails handshakes while there is nothing to answer with.
var errNoCertificate = errors.New("no certificate available yet")

// complainEvery bounds how often a missing certificate or a foreign PROXY header is logged: every
// handshake fails for the same reason.
const complainEvery = time.Minute

// CertificateOptions are the optional parts of [Certificates].
type CertificateOptions struct {
	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	// Metrics is where the counters are registered; nil leaves them out.
	Metrics prometheus.Registerer

	// HTTPPort and HTTPSPort are the local ports to which the challenges of an
	// ACME CA arrive, that is, the ports we listen on; 0 is 80 and 443. They
	// must be open before Run, else the ACME library opens them itself.
	HTTPPort, HTTPSPort int

	// ListenHost is the address those ports are bound to; empty is any.
	ListenHost string

	// Secrets are what the files hold that Config names.
	Secrets Secrets
}

// A provider is one way to come by certificates.
type provider interface {
	// certificate answers one handshake.
	certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// run keeps the certificates fresh until ctx ends.
	run(ctx context.Context)
	// reload applies cfg and the names that clients want from now on; on error
	// everything stays as it was.
	reload(cfg Config, names []string) error
	// certificates returns those in use, with their Leaf.
	certificates() []*tls.Certificate
	// ready is closed once certificate can answer as well as it ever will
	// without waiting for somebody else.
	ready() <-chan struct{}
}

// Certificates answers TLS handshakes with the certificate of one source.
type Certificates struct {
	always    []string // names, whatever Config.Names says
	opts      CertificateOptions
	log       *slog.Logger
	metrics   *certMetrics
	complain  limiter
	offerHTTP atomic.Bool // somebody serves HTTP-01 challenges

	now     atomic.Pointer[supply] // where certificates come from
	changed chan struct{}          // wakes Run when that is another
	current atomic.Pointer[policy]
	wanted  atomic.Pointer[[]string] // names; replaced and never modified
}

// A supply is where certificates come from since a certain configuration.
type supply struct {
	provider
	cfg     Config
	secrets Secrets
	health  *health

	// before are the certificates of the supply that this one has replaced. They
	// answer until it has one.
	before []*tls.Certificate
}

// NewCertificates prepares the certificates of cfg for names, the host names
// and addresses under which clients reach us, and for cfg.Names; the first is
// presented to clients that name none. It reads the files or makes the self-signed certificate, and
// fails if they cannot be used. It opens no socket and starts nothing; with
// source acme there is no certificate before Run.
func NewCertificates(cfg Config, names []string, o CertificateOptions) (*Certificates, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	version, err := parseVersion(cfg.MinVersion)
	if err != nil {
		return nil, err
	}
	clients, err := readClientCAs(cfg.ClientAuth)
	if err != nil {
		return nil, err
	}
	c := &Certificates{always: slices.Clone(names), opts: o, log: o.Logger, changed: make(chan struct{}, 1)}
	c.metrics = newCertMetrics(o.Metrics, c)
	s, err := c.supply(cfg, o.Secrets)
	if err != nil {
		return nil, err
	}
	c.now.Store(s)
	names = c.names(cfg)
	c.wanted.Store(&names)
	c.current.Store(c.policy(version, clients, nil))
	return c, nil
}

// supply makes what cfg wants.
func (c *Certificates) supply(cfg Config, secrets Secrets) (s *supply, err error) {
	s = &supply{cfg: cfg, secrets: secrets, health: new(health)}
	names := c.names(cfg)
	switch cfg.Source {
	case SourceFiles:
		s.provider, err = newFiles(cfg, names, c.log, s.health, c.metrics)
	case SourceSelfSigned:
		s.provider, err = newSelfSigned(names, c.log)
	case SourceACME:
		o := c.opts
		o.Secrets = secrets
		s.provider, err = newAutomatic(cfg.ACME, names, automaticOptions{o, s.health, c.metrics, &c.offerHTTP})
	default:
		err = fmt.Errorf("tls.source %q: want acme, files or selfsigned", cfg.Source)
	}
	return s, err
}

// Run keeps the certificates fresh: it watches the files, replaces the
// self-signed certificate before it expires, or obtains and renews by ACME. It
// returns nil when ctx ends. A CA that cannot be reached is no error: it is
// logged, shown by Status and tried again.
func (c *Certificates) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	for ctx.Err() == nil {
		s := c.now.Load()
		running, stop := context.WithCancel(ctx)
		parts.Go(func() { s.run(running) })
		for ctx.Err() == nil && c.now.Load() == s {
			select {
			case <-ctx.Done():
			case <-c.changed:
			}
		}
		stop()
	}
	return nil
}

// names are those that clients want by cfg.
func (c *Certificates) names(cfg Config) []string { return slices.Concat(c.always, cfg.Names) }

// Reload applies a changed configuration: it reads the files again, at the
// paths of cfg, obtains certificates for names that are new, takes them from
// another source or CA, and sets the TLS version for new connections and who
// vouches for clients. On error everything stays as it was.
func (c *Certificates) Reload(cfg Config, secrets Secrets) error {
	version, err := parseVersion(cfg.MinVersion)
	if err != nil {
		return err
	}
	clients, err := readClientCAs(cfg.ClientAuth)
	if err != nil {
		return err
	}
	names, old := c.names(cfg), c.now.Load()
	next := old
	if old.stays(cfg, secrets) {
		err = old.reload(cfg, names)
	} else if next, err = c.supply(cfg, secrets); err == nil {
		if next.before = old.certificates(); len(next.before) == 0 {
			next.before = old.before
		}
	}
	if err != nil {
		return err
	}
	c.wanted.Store(&names)
	c.now.Store(next)
	c.current.Store(c.policy(version, clients, c.current.Load()))
	select {
	case c.changed <- struct{}{}:
	default: // Run is about to look already
	}
	return nil
}

// stays reports whether the provider can take cfg over.
func (s *supply) stays(cfg Config, secrets Secrets) bool {
	return cfg.Source == s.cfg.Source &&
		(cfg.Source != SourceACME || reflect.DeepEqual(cfg.ACME, s.cfg.ACME) && reflect.DeepEqual(secrets, s.secrets))
}

// leaves are the certificates in use.
func (s *supply) leaves() (all []*x509.Certificate) {
	certs := s.certificates()
	if len(certs) == 0 {
		certs = s.before
	}
	for _, c := range certs {
		all = append(all, c.Leaf)
	}
	return all
}

// answer is the certificate for one handshake.
func (s *supply) answer(ctx context.Context, h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(s.before) == 0 { // else nobody need wait
		select {
		case <-s.ready():
		case <-ctx.Done():
			return nil, errNoCertificate
		}
	}
	cert, err := s.certificate(h)
	if err != nil && len(s.before) > 0 && asked(h.SupportedProtos) {
		for _, old := range s.before {
			if old.Leaf.VerifyHostname(h.ServerName) == nil {
				return old, nil
			}
		}
		return s.before[0], nil
	}
	return cert, err
}

// HTTPChallenge returns a handler for plain HTTP that answers ACME HTTP-01
// challenges and passes everything else to next. Calling it before Run is what
// makes us offer that challenge to the CA; TLS-ALPN-01 is offered always.
func (c *Certificates) HTTPChallenge(next http.Handler) http.Handler {
	c.offerHTTP.Store(true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := c.now.Load().provider.(*automatic); ok && a.httpChallenge(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Leaf returns the certificate that is in use for the first name, nil if there
// is none yet. Whoever must trust a self-signed one can put it in a pool. The
// certificate must not be modified.
func (c *Certificates) Leaf() *x509.Certificate {
	if all := c.now.Load().leaves(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// certificate answers a handshake and takes the connection's slot, since what
// follows is the signature.
func (c *Certificates) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ctx := h.Context()
	p, ours := h.Conn.(*peeked)
	if ours {
		var cancel func()
		ctx, cancel = context.WithDeadline(ctx, p.until)
		defer cancel()
	}
	s := c.now.Load()
	cert, err := s.answer(ctx, h)
	if err != nil {
		if c.complain.allow(complainEvery) {
			c.log.Warn("handshake failed for want of a certificate", "name", h.ServerName, "err", err, "cause", s.health.last().err)
		}
		return nil, err
	}
	if ours {
		if err := p.enter(ctx); err != nil {
			return nil, err
		}
	}
	return cert, nil
}

// A limiter lets something happen now and then.
type limiter struct {
	last atomic.Int64 // Unix time of the last time, ns
}

func (l *limiter) allow(every time.Duration) bool {
	now, last := time.Now().UnixNano(), l.last.Load()
	return now-last >= int64(every) && l.last.CompareAndSwap(last, now)
}
