package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// renewInterval is how often certificates are checked for renewal. It is also
// how long before the time that the CA suggests (RFC 9773) they are renewed, so
// a large value would not save work but renew all the time.
const renewInterval = 10 * time.Minute

// automatic obtains certificates by ACME, one per name, and renews them.
//
// certmagic keeps the storage, the cache and the protocol, and renews. The loop
// that tries again for a first certificate is ours: it belongs to run, so that it
// ends with it, and it does not wait a minute for a CA that was merely not
// reachable at start. A renewal that is under way when run returns ends soon
// after.
type automatic struct {
	cfg     ACME
	roots   *x509.CertPool // nil = the system's
	opts    automaticOptions
	log     *slog.Logger
	every   time.Duration                               // renewal checks
	backoff func(failures int, err error) time.Duration // before the next attempt

	dns     dnsProvider // nil: the challenges go through our ports
	loaded  chan struct{}
	live    atomic.Pointer[engine]   // nil unless run runs
	wanted  atomic.Pointer[[]string] // names; replaced and never modified
	changed chan struct{}            // wakes run when wanted was
}

// automaticOptions are what newAutomatic needs of Certificates.
type automaticOptions struct {
	CertificateOptions
	health    *health
	metrics   *certMetrics
	offerHTTP *atomic.Bool // somebody serves HTTP-01 challenges
}

// An engine is certmagic at work.
type engine struct {
	cache  *certmagic.Cache
	magic  *certmagic.Config // answers handshakes and renews
	obtain *certmagic.Config // obtains the first certificate
	issuer *certmagic.ACMEIssuer
}

// unattended is an issuer that asks nobody. certmagic would prompt for an email
// address on the terminal when it is told to try only once.
type unattended struct{ *certmagic.ACMEIssuer }

// PreCheck implements certmagic.PreChecker.
func (u unattended) PreCheck(ctx context.Context, names []string, _ bool) error {
	return u.ACMEIssuer.PreCheck(ctx, names, false)
}

func newAutomatic(cfg ACME, names []string, o automaticOptions) (*automatic, error) {
	if len(names) == 0 {
		return nil, errors.New("tls.source acme needs a domain to obtain a certificate for")
	}
	if cfg.Storage == "" {
		return nil, errors.New("tls.acme.storage is empty: name a directory that survives restarts")
	}
	if _, _, err := cfg.directory(); err != nil {
		return nil, err
	}
	if cfg.KeyType != "" && !slices.Contains(KeyTypes, cfg.KeyType) {
		return nil, fmt.Errorf("tls.acme.key_type %q: want one of %s", cfg.KeyType, strings.Join(KeyTypes, ", "))
	}
	if cfg.EAB.KeyID != "" {
		if _, err := DecodeAccountKey(o.Secrets.ExternalAccount); err != nil {
			return nil, fmt.Errorf("tls.acme.eab: %w", err)
		}
	}
	provider, err := newDNSProvider(cfg.DNS, o.Secrets)
	if err != nil {
		return nil, err
	}
	a := &automatic{
		cfg: cfg, dns: provider, opts: o, log: o.Logger,
		every: renewInterval, backoff: backoff,
		loaded: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	a.want(names)
	if cfg.CARootFile != "" {
		pem, err := readPEM(cfg.CARootFile)
		if err != nil {
			return nil, fmt.Errorf("read tls.acme.ca_root_file: %w", err)
		}
		a.roots = x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.acme.ca_root_file %s: no certificate found", cfg.CARootFile)
		}
	}
	if err := os.MkdirAll(cfg.Storage, 0o700); err != nil {
		return nil, fmt.Errorf("make tls.acme.storage: %w", err)
	}
	return a, nil
}

func (a *automatic) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	e := a.live.Load()
	if e == nil {
		return nil, errNoCertificate
	}
	cert, err := e.magic.GetCertificate(h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoCertificate, err)
	}
	return cert, nil
}

func (a *automatic) ready() <-chan struct{} { return a.loaded }

func (a *automatic) certificates() []*tls.Certificate {
	e := a.live.Load()
	if e == nil {
		return nil
	}
	var all []*tls.Certificate
	for _, n := range *a.wanted.Load() {
		if newest := e.newest(n); newest != nil {
			all = append(all, newest)
		}
	}
	return all
}

// newest is the certificate in use for name, nil if there is none.
func (e *engine) newest(name string) (newest *tls.Certificate) {
	for _, c := range e.cache.AllMatchingCertificates(name) {
		if newest == nil || c.Leaf.NotAfter.After(newest.Leaf.NotAfter) {
			newest = &c.Certificate
		}
	}
	return newest
}

// leaf is that certificate's own part.
func (e *engine) leaf(name string) *x509.Certificate {
	if c := e.newest(name); c != nil {
		return c.Leaf
	}
	return nil
}

// fault records why there is no certificate, or no new one, for name. It is over
// once there is one, whoever obtained it: another replica does not tell us.
func (a *automatic) fault(e *engine, name string, err error) {
	before := e.leaf(name)
	a.opts.health.set(name, err, func() bool {
		now := e.leaf(name)
		return now != nil && (before == nil || !now.Equal(before))
	})
}

func (a *automatic) reload(_ Config, names []string) error {
	a.want(names)
	select {
	case a.changed <- struct{}{}:
	default: // run is about to look already
	}
	return nil
}

// httpChallenge answers an HTTP-01 challenge. It reports false for any other
// request.
func (a *automatic) httpChallenge(w http.ResponseWriter, r *http.Request) bool {
	e := a.live.Load()
	return e != nil && e.issuer.HandleHTTPChallenge(w, r)
}

// run loads what the storage holds, obtains what it lacks, and renews.
func (a *automatic) run(ctx context.Context) {
	e := a.start()
	a.live.Store(e)
	defer e.cache.Stop()
	defer a.live.Store(nil)

	var parts sync.WaitGroup
	defer parts.Wait()
	managed := make(map[string]func())
	a.follow(ctx, e, managed, &parts)
	close(a.loaded)
	parts.Go(func() { a.renew(ctx, e) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
			a.follow(ctx, e, managed, &parts)
		}
	}
}

// start makes the engine. It uses none of certmagic's package-level defaults:
// those would put the storage below $HOME.
func (a *automatic) start() *engine {
	e := new(engine)
	zlog := newZap(a.log)
	names := *a.wanted.Load()
	e.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return e.magic, nil },
		RenewCheckInterval: a.every,
		Logger:             zlog,
	})
	cfg := certmagic.Config{
		Storage:            &certmagic.FileStorage{Path: a.cfg.Storage},
		DefaultServerName:  names[0],
		FallbackServerName: names[0],
		OnEvent: func(_ context.Context, event string, data map[string]any) error {
			return a.event(e, event, data)
		},
		ShouldEmitFunc: func(event string) bool { return event != "tls_get_certificate" },
		Logger:         zlog,
		KeySource:      certmagic.StandardKeyGenerator{KeyType: certmagic.KeyType(a.cfg.KeyType)},
		Issuers:        []certmagic.Issuer{}, // set below; nil would mean the default
	}
	e.magic, e.obtain = certmagic.New(e.cache, cfg), certmagic.New(e.cache, cfg)
	ca, trial, _ := a.cfg.directory() // checked in newAutomatic
	e.issuer = certmagic.NewACMEIssuer(e.magic, certmagic.ACMEIssuer{
		CA:                   ca,
		TestCA:               trial,
		Email:                a.cfg.Email,
		Agreed:               true,
		Profile:              a.cfg.profile(names),
		ExternalAccount:      a.account(),
		TrustedRoots:         a.roots,
		DisableHTTPChallenge: !a.opts.offerHTTP.Load(),
		DNS01Solver:          a.cfg.DNS.solver(a.dns, zlog),
		ListenHost:           a.opts.ListenHost,
		AltHTTPPort:          a.opts.HTTPPort,
		AltTLSALPNPort:       a.opts.HTTPSPort,
		Logger:               zlog,
	})
	// Only a plain *ACMEIssuer tells the CA which certificate it replaces.
	e.magic.Issuers = []certmagic.Issuer{e.issuer}
	e.obtain.Issuers = []certmagic.Issuer{unattended{e.issuer}}
	return e
}

// account is the external account binding, nil if there is none.
func (a *automatic) account() *acme.EAB {
	if a.cfg.EAB.KeyID == "" {
		return nil
	}
	key, _ := DecodeAccountKey(a.opts.Secrets.ExternalAccount) // checked in newAutomatic
	return &acme.EAB{KeyID: a.cfg.EAB.KeyID, MACKey: base64.RawURLEncoding.EncodeToString(key)}
}

// renew renews what was due when we started. From then on the cache looks after
// its certificates every so often by itself.
func (a *automatic) renew(ctx context.Context, e *engine) {
	if err := e.cache.RenewManagedCertificates(ctx); err != nil && ctx.Err() == nil {
		a.log.Error("cannot renew certificates", "err", err)
	}
}

// event counts and remembers what certmagic did.
func (a *automatic) event(e *engine, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		a.opts.metrics.acmeObtained.Inc()
		a.log.Info("certificate obtained", "name", data["identifier"], "renewal", data["renewal"], "issuer", data["issuer"])
	case "cert_failed":
		a.opts.metrics.acmeFailed.Inc()
		name, _ := data["identifier"].(string)
		if err, ok := data["error"].(error); ok {
			a.fault(e, name, err)
		}
		if data["renewal"] == true { // obtain logs the others
			a.log.Error("cannot renew certificate", "name", data["identifier"], "err", data["error"])
		}
	}
	return nil
}
