package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// errNoCertificate fails handshakes while there is nothing to answer with.
var errNoCertificate = errors.New("no certificate available yet")

// complainEvery bounds how often a missing certificate is logged: every
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

	// ExternalAccount is the content of Config.ACME.EAB.HMACKeyFile.
	ExternalAccount []byte
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
	// leaves returns the certificates in use.
	leaves() []*x509.Certificate
	// ready is closed once certificate can answer as well as it ever will
	// without waiting for somebody else.
	ready() <-chan struct{}
}

// Certificates answers TLS handshakes with the certificate of one source.
type Certificates struct {
	cfg      Config   // as at start
	always   []string // names, whatever cfg.Names says
	log      *slog.Logger
	provider provider
	health   *health
	complain limiter

	current atomic.Pointer[policy]
	wanted  atomic.Pointer[[]string] // names; replaced and never modified
}

// A policy is what a reload may change about handshakes. It is replaced as a
// whole and never modified.
type policy struct {
	clients *clientCAs

	// base is what connections begin with. It owns the keys of the session
	// tickets, which crypto/tls makes and rotates, so policies share it as long as
	// the sessions of one may be resumed under the other.
	base *tls.Config

	usual   *tls.Config
	silent  *tls.Config // for clients whose ALPN protocols are all foreign to us
	unasked *tls.Config // for clients that are never asked for a certificate
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
	c := &Certificates{cfg: cfg, always: slices.Clone(names), log: o.Logger, health: new(health)}
	names = c.names(cfg)
	c.wanted.Store(&names)
	metrics := newCertMetrics(o.Metrics, c.notAfter, c.health)
	switch cfg.Source {
	case SourceFiles:
		c.provider, err = newFiles(cfg, names, c.log, c.health, metrics)
	case SourceSelfSigned:
		c.provider, err = newSelfSigned(names, c.log)
	case SourceACME:
		c.provider, err = newAutomatic(cfg.ACME, names, automaticOptions{o, c.health, metrics})
	default:
		err = fmt.Errorf("tls.source %q: want acme, files or selfsigned", cfg.Source)
	}
	if err != nil {
		return nil, err
	}
	c.current.Store(c.policy(version, clients, nil))
	return c, nil
}

// Run keeps the certificates fresh: it watches the files, replaces the
// self-signed certificate before it expires, or obtains and renews by ACME. It
// returns nil when ctx ends. A CA that cannot be reached is no error: it is
// logged, shown by Status and tried again.
func (c *Certificates) Run(ctx context.Context) error {
	c.provider.run(ctx)
	return nil
}

// names are those that clients want by cfg.
func (c *Certificates) names(cfg Config) []string { return slices.Concat(c.always, cfg.Names) }

// Reload applies a changed configuration: it reads the files again, at the
// paths of cfg, obtains certificates for names that are new, and sets the TLS
// version and who vouches for clients. On error
// everything stays as it was. The error wraps ErrRestart if cfg.Source or
// cfg.ACME changed.
func (c *Certificates) Reload(cfg Config) error {
	version, err := parseVersion(cfg.MinVersion)
	if err != nil {
		return err
	}
	clients, err := readClientCAs(cfg.ClientAuth)
	if err != nil {
		return err
	}
	if cfg.Source != c.cfg.Source {
		return fmt.Errorf("change tls.source: %w", ErrRestart)
	}
	names := c.names(cfg)
	if err := c.provider.reload(cfg, names); err != nil {
		return err
	}
	c.wanted.Store(&names)
	c.current.Store(c.policy(version, clients, c.current.Load()))
	return nil
}

// HTTPChallenge returns a handler for plain HTTP that answers ACME HTTP-01
// challenges and passes everything else to next. Calling it before Run is what
// makes us offer that challenge to the CA; TLS-ALPN-01 is offered always.
func (c *Certificates) HTTPChallenge(next http.Handler) http.Handler {
	if a, ok := c.provider.(*automatic); ok {
		return a.httpChallenge(next)
	}
	return next
}

// Leaf returns the certificate that is in use for the first name, nil if there
// is none yet. Whoever must trust a self-signed one can put it in a pool. The
// certificate must not be modified.
func (c *Certificates) Leaf() *x509.Certificate {
	if all := c.provider.leaves(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// choose is the GetConfigForClient of all connections. RFC 7301 §3.2 refuses a
// client whose protocols are all foreign to us. We look at the first bytes
// anyway, so that client may go on without ALPN.
func (c *Certificates) choose(h *tls.ClientHelloInfo) (*tls.Config, error) {
	p := c.current.Load()
	ours := func(proto string) bool { return slices.Contains(p.usual.NextProtos, proto) }
	if len(h.SupportedProtos) > 0 && !slices.ContainsFunc(h.SupportedProtos, ours) {
		return p.silent, nil
	}
	if !asked(h.SupportedProtos) {
		return p.unasked, nil
	}
	return p.usual, nil
}

// server is the configuration of a new connection.
func (c *Certificates) server() *tls.Config { return c.current.Load().base }

// policy is that of new connections, which comes after old, nil for none.
func (c *Certificates) policy(version uint16, clients *clientCAs, old *policy) *policy {
	p := &policy{clients: clients}
	if old != nil && old.clients.same(clients) {
		p.clients, p.base = old.clients, old.base
	} else { // sessions keep the certificate they began with, or that there was none
		p.base = &tls.Config{GetConfigForClient: c.choose}
	}
	p.unasked = &tls.Config{
		GetCertificate: c.certificate,
		MinVersion:     version,
		CipherSuites: []uint16{ // of TLS 1.2: forward secret and authenticated
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1", "stun.turn", "stun.nat-discovery"}, // RFC 7301, RFC 7443
	}
	if c.cfg.Source == SourceACME {
		p.unasked.NextProtos = append(p.unasked.NextProtos, acmez.ACMETLS1Protocol) // RFC 8737
	}
	p.usual = p.unasked.Clone()
	p.clients.ask(p.usual, p.base)
	p.silent = p.usual.Clone()
	p.silent.NextProtos = nil
	return p
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
	select {
	case <-c.provider.ready():
	case <-ctx.Done():
		return nil, errNoCertificate
	}
	cert, err := c.provider.certificate(h)
	if err != nil {
		if c.complain.allow(complainEvery) {
			c.log.Warn("handshake failed for want of a certificate", "name", h.ServerName, "err", err, "cause", c.health.last().err)
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
