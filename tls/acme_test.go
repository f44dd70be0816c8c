package tls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const domain = "chat.example.com"

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

// acmeCerts returns certificates that come from p and challenges that arrive at
// port https.
func acmeCerts(t *testing.T, p *pebble, http, https int, names ...string) (*Certificates, *automatic) {
	t.Helper()
	c, err := NewCertificates(Config{Source: SourceACME, ACME: p.config}, append([]string{domain}, names...),
		CertificateOptions{HTTPPort: http, HTTPSPort: https})
	if err != nil {
		t.Fatal(err)
	}
	a := c.now.Load().provider.(*automatic)
	a.backoff = func(int, error) time.Duration { return 10 * time.Millisecond }
	return c, a
}

// trusting returns a client configuration that verifies what p issued.
func (p *pebble) trusting(name string) *tls.Config {
	return &tls.Config{RootCAs: p.roots, ServerName: name}
}

// The CA validates through the port that TURN and HTTP use meanwhile. There is
// nothing but TLS-ALPN-01 here, since nobody serves HTTP-01.
func TestACMEOverSharedPort(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	p.down.Store(true)
	certs, a := acmeCerts(t, p, 0, portOf(ln.Addr()), "calls.example.com")
	r := startRig(t, ln, certs, PortOptions{}).serve()

	// No certificate yet: TURN over TCP works, handshakes fail at once.
	turn := r.dial()
	r.talk(turn, stun, 47)
	if err := tls.Client(r.dial(), p.trusting(domain)).Handshake(); err == nil || isTimeout(err) {
		t.Errorf("handshake without a certificate: %v", err)
	}
	eventually(t, "counted as no_certificate", func() bool { return r.metric("sallyport_tls_handshakes_total", "no_certificate") == 1 })
	eventually(t, "the status tells", func() bool { return certs.Status().LastError != "" })
	if s := certs.Status(); s.Ready || s.LastErrorAt.IsZero() || certs.notAfter() != 0 {
		t.Errorf("status without a certificate: %+v", s)
	}

	p.down.Store(false)
	eventually(t, "certificates obtained", func() bool { return certs.Status().Ready })
	if s := certs.Status(); s.LastError != "" || !strings.Contains(s.Issuer, "Pebble") || len(s.Covered) != 2 {
		t.Errorf("status with certificates: %+v", s)
	}
	for _, name := range []string{domain, "calls.example.com"} {
		c := tls.Client(r.dial(), p.trusting(name))
		if got := r.talk(c, stun, 25); got != "turn secure=true tcp=true" {
			t.Errorf("TURN over TLS to %s: %q", name, got)
		}
	}
	anonymous := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true})
	if err := anonymous.Handshake(); err != nil || anonymous.ConnectionState().PeerCertificates[0].VerifyHostname(domain) != nil {
		t.Errorf("client without a server name: %v", err)
	}
	if got := r.talk(turn, []byte("still here"), 10); got != "still here" {
		t.Errorf("open TURN connection: %q", got)
	}
	if got := r.metric("sallyport_demux_connections_total", "acme-tls/1", "acme"); got < 2 {
		t.Errorf("%v challenge connections counted", got)
	}
	if ok, failed := testutil.ToFloat64(a.opts.metrics.acmeObtained), testutil.ToFloat64(a.opts.metrics.acmeFailed); ok != 2 || failed < 1 {
		t.Errorf("counted %v obtained, %v failed", ok, failed)
	}
}

func TestACMEOverHTTP(t *testing.T) {
	var asked atomic.Int64
	web := httptest.NewUnstartedServer(nil)
	t.Cleanup(web.Close)
	dead := listen(t) // TLS-ALPN-01 fails: nobody answers here
	go func() {
		for {
			c, err := dead.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { dead.Close() })
	p := startPebble(t, pebbleOptions{httpPort: portOf(web.Listener.Addr()), tlsPort: portOf(dead.Addr())})
	certs, _ := acmeCerts(t, p, portOf(web.Listener.Addr()), portOf(dead.Addr()))
	challenge := certs.HTTPChallenge(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "next", http.StatusTeapot)
	}))
	web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
			asked.Add(1)
		}
		challenge.ServeHTTP(w, r)
	})
	web.Start()
	startRig(t, listen(t), certs, PortOptions{})
	eventually(t, "certificate obtained", func() bool { return certs.Status().Ready })
	if asked.Load() == 0 {
		t.Error("obtained without the HTTP challenge")
	}
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/unknown"} {
		resp, err := http.Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTeapot {
			t.Errorf("%s: status %d, want that of the next handler", path, resp.StatusCode)
		}
	}
}

// A stored certificate is served after a restart although the CA is away, and
// no order is placed for it.
func TestACMERestartWithoutCA(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	certs, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	first := startRig(t, ln, certs, PortOptions{})
	eventually(t, "certificate obtained", func() bool { return certs.Status().Ready })
	before := certs.Leaf()
	first.stop()
	if left := ourGoroutines(); left != "" {
		t.Errorf("goroutines left:\n%s", left)
	}
	if _, err := certs.now.Load().certificate(nil); !errors.Is(err, errNoCertificate) {
		t.Errorf("certificate after the end: %v", err)
	}

	p.down.Store(true)
	orders := p.orders.Load()
	again, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	second := startRig(t, listen(t), again, PortOptions{}).serve()
	c := tls.Client(second.dial(), p.trusting(domain)) // waits for the storage to be read
	second.talk(c, stun, 46)
	if !c.ConnectionState().PeerCertificates[0].Equal(before) {
		t.Error("another certificate after the restart")
	}
	if got := p.orders.Load(); orders == 0 || got != orders {
		t.Errorf("%d orders before the restart, %d after", orders, got)
	}
	if info, err := os.Stat(p.config.Storage); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("storage %v, %v; want mode 700", info.Mode(), err)
	}
}

// Renewal replaces the certificate under a connection that stays.
func TestACMERenewal(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1, lifetime: 10})
	p.config.Profile = "shortlived"
	certs, a := acmeCerts(t, p, 0, portOf(ln.Addr()))
	a.every = 50 * time.Millisecond
	r := startRig(t, ln, certs, PortOptions{}).serve()
	eventually(t, "certificate obtained", func() bool { return certs.Status().Ready })
	before := certs.Leaf()
	if life := before.NotAfter.Sub(before.NotBefore); life > 15*time.Second {
		t.Fatalf("certificate for %s: the profile was not asked for", life)
	}
	open := tls.Client(r.dial(), p.trusting(domain))
	r.talk(open, stun, 46)
	eventually(t, "certificate renewed", func() bool { l := certs.Leaf(); return l != nil && !l.Equal(before) })
	fresh := tls.Client(r.dial(), p.trusting(domain))
	if err := fresh.Handshake(); err != nil || fresh.ConnectionState().PeerCertificates[0].Equal(before) {
		t.Errorf("new connection after the renewal: %v", err)
	}
	_ = open.SetDeadline(time.Now().Add(30 * time.Second))
	if got := r.talk(open, []byte("still here"), 10); got != "still here" {
		t.Errorf("open connection: %q", got)
	}
}

// What another replica obtained into the storage that both share ends our own
// trouble with that name, although no event tells.
func TestACMEErrorEndsWithAnotherReplica(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	p.down.Store(true)
	certs, a := acmeCerts(t, p, 0, 1)
	gate, waiting := make(chan struct{}), make(chan struct{}, 1)
	a.backoff = func(int, error) time.Duration {
		waiting <- struct{}{}
		<-gate
		return 2 * time.Second
	}
	startRig(t, listen(t), certs, PortOptions{})
	<-waiting
	if s := certs.Status(); s.Ready || s.LastError == "" {
		t.Fatalf("without the CA: %+v", s)
	}
	p.down.Store(false)
	other, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	startRig(t, ln, other, PortOptions{})
	eventually(t, "the other replica has a certificate", func() bool { return other.Status().Ready })
	orders := p.orders.Load()
	close(gate)
	eventually(t, "the next attempt is known", func() bool { return !certs.Status().NextAttempt.IsZero() })
	eventually(t, "we have it, too", func() bool { return certs.Status().Ready })
	if s := certs.Status(); s.LastError != "" || !s.NextAttempt.IsZero() || p.orders.Load() != orders {
		t.Errorf("last error %q, %d orders of our own", s.LastError, p.orders.Load()-orders)
	}
}

// A CA may want to know whose account it is, and an administrator which kind of
// key the certificate has.
func TestACMEAccountBindingAndKeyType(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1, account: "c2VjcmV0IGtleSBvZiB0aGUgYWNjb3VudCBhdCB0aGUgQ0Eg__77_w"})
	p.config.KeyType = "p384"
	p.config.EAB = EAB{KeyID: "kid", HMACKeyFile: "unused here"}
	o := CertificateOptions{HTTPSPort: portOf(ln.Addr()), Secrets: Secrets{ExternalAccount: []byte("c2VjcmV0IGtleSBvZiB0aGUgYWNjb3VudCBhdCB0aGUgQ0Eg//77/w==\n")}}
	certs, err := NewCertificates(Config{Source: SourceACME, ACME: p.config}, []string{domain}, o)
	if err != nil {
		t.Fatal(err)
	}
	startRig(t, ln, certs, PortOptions{})
	eventually(t, "certificate obtained", func() bool { return certs.Status().Ready })
	if key, ok := certs.Leaf().PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P384() {
		t.Errorf("key is %T", certs.Leaf().PublicKey)
	}
	if _, err := NewCertificates(Config{Source: SourceACME, ACME: p.config}, []string{domain}, CertificateOptions{}); err == nil {
		t.Error("a binding without its key is no error")
	}
}

// Let's Encrypt gives certificates for addresses with one profile only.
func TestProfileOfAddresses(t *testing.T) {
	for _, tt := range []struct {
		ca, profile, name, want string
	}{
		{"letsencrypt", "", "203.0.113.7", "shortlived"},
		{"letsencrypt-staging", "", "2001:db8::7", "shortlived"},
		{"letsencrypt", "", domain, ""},
		{"letsencrypt", "tlsserver", domain, "tlsserver"},
		{"https://ca.internal/dir", "", "203.0.113.7", ""},
	} {
		if got := (ACME{CA: tt.ca, Profile: tt.profile}).profile([]string{tt.name}); got != tt.want {
			t.Errorf("%+v: profile %q", tt, got)
		}
	}
}

// A gateway without a name is known by its address: clients that name none,
// since an address is no server name, get that certificate.
func TestACMEForAnAddress(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	certs, err := NewCertificates(Config{Source: SourceACME, ACME: p.config}, []string{"127.0.0.1"},
		CertificateOptions{HTTPSPort: portOf(ln.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, ln, certs, PortOptions{}).serve()
	eventually(t, "certificate obtained", func() bool { return certs.Status().Ready })
	c := tls.Client(r.dial(), &tls.Config{RootCAs: p.roots, ServerName: "127.0.0.1"})
	if got := r.talk(c, stun, 25); got != "turn secure=true tcp=true" {
		t.Errorf("TURN over TLS: %q", got)
	}
}

// A reload adds names and lets go of others under connections that stay.
func TestACMENamesChangeByReload(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	certs, a := acmeCerts(t, p, 0, portOf(ln.Addr()))
	r := startRig(t, ln, certs, PortOptions{}).serve()
	covered := func() string { return strings.Join(certs.Status().Covered, " ") }
	eventually(t, "first certificate obtained", func() bool { return certs.Status().Ready })
	first := certs.Leaf()
	open := tls.Client(r.dial(), p.trusting(domain))
	r.talk(open, stun, 46)

	reload := func(names ...string) {
		t.Helper()
		if err := certs.Reload(Config{Source: SourceACME, ACME: a.cfg, Names: names}, Secrets{}); err != nil {
			t.Fatal(err)
		}
	}
	reload("Calls.example.com", "files.example.com")
	if s := certs.Status(); s.Ready || len(s.Names) != 3 {
		t.Errorf("at once after the reload: %+v", s)
	}
	eventually(t, "the others obtained", func() bool { return certs.Status().Ready })
	c := tls.Client(r.dial(), p.trusting("files.example.com"))
	r.talk(c, stun, 46)

	p.down.Store(true)
	reload("calls.example.com", "never.example.com")
	eventually(t, "one is gone, one cannot be had", func() bool {
		return covered() == "chat.example.com calls.example.com" && certs.Status().LastError != ""
	})
	reload("calls.example.com")
	eventually(t, "all is well without it", func() bool { s := certs.Status(); return s.Ready && s.LastError == "" })

	orders := p.orders.Load()
	reload()
	reload("files.example.com") // still in the storage: the CA need not be asked
	eventually(t, "it is back", func() bool { return covered() == "chat.example.com files.example.com" })
	if p.orders.Load() != orders || !certs.Leaf().Equal(first) {
		t.Error("names that were there were obtained again")
	}
	if got := r.talk(open, []byte("still here"), 10); got != "still here" {
		t.Errorf("open connection: %q", got)
	}
}

func TestBackoff(t *testing.T) {
	refusal := acme.Problem{Type: acme.ProblemTypeRateLimited}
	for _, tt := range []struct {
		failures int
		err      error
		want     time.Duration
	}{
		{1, io.EOF, time.Second},
		{4, io.EOF, 8 * time.Second},
		{1000, io.EOF, 5 * time.Minute},
		{1, refusal, time.Minute},
		{3, refusal, 4 * time.Minute},
		{1000, refusal, 6 * time.Hour},
	} {
		if got := backoff(tt.failures, tt.err); got != tt.want {
			t.Errorf("backoff(%d, %v) = %s, want %s", tt.failures, tt.err, got, tt.want)
		}
	}
}

func TestDirectory(t *testing.T) {
	for in, want := range map[string][2]string{
		"":                           {"https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"},
		"letsencrypt":                {"https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"},
		"letsencrypt-staging":        {"https://acme-staging-v02.api.letsencrypt.org/directory", ""},
		"https://ca.example.com/dir": {"https://ca.example.com/dir", ""},
	} {
		ca, trial, err := ACME{CA: in}.directory()
		if ca != want[0] || trial != want[1] || err != nil {
			t.Errorf("directory of %q: %q, %q, %v", in, ca, trial, err)
		}
	}
}

// What strangers can cause in the ACME library must not fill the log.
func TestZapLog(t *testing.T) {
	var out strings.Builder
	var mu sync.Mutex
	log := newZap(slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	log.Error("tls-alpn challenge")
	log.Named("handshake").Error("stranger")
	log.Named("obtain").Info("step by step")
	log.Named("obtain").Error("could not get certificate")
	if got, want := out.String(), "level=WARN msg=\"acme library\" text=\"could not get certificate\"\n"; got != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
