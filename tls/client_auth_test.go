package tls

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// identity is a's certificate and key as a client has them.
func (a *authority) identity() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key, Leaf: a.cert}
}

// startMutual starts a rig that asks for certificates of root's, whose HTTP
// server says whom it has admitted, and why not.
func startMutual(t *testing.T, mode string, root *authority) (r *rig, cfg Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clients.pem")
	write(t, file, bundle(root))
	cfg = Config{Source: SourceSelfSigned, ClientAuth: ClientAuth{Mode: mode, CAFile: file}}
	certs, err := NewCertificates(cfg, []string{domain}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r = startRig(t, listen(t), certs, PortOptions{})
	type key struct{}
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			cert, err := req.Context().Value(key{}).(*Visitor).Identify(req.TLS)
			switch {
			case err != nil:
				http.Error(w, err.Error(), http.StatusForbidden)
			case cert != nil:
				fmt.Fprintf(w, "hello %s, resumed=%t", cert.Subject.CommonName, req.TLS.DidResume)
			default:
				fmt.Fprintf(w, "hello nobody, resumed=%t", req.TLS.DidResume)
			}
		}),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, key{}, certs.Visitor())
		},
		Protocols: new(http.Protocols),
	}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = web.Serve(r.port.HTTP()) }()
	go echo(t, "turn", r.port.TURN())
	t.Cleanup(func() { r.stop(); web.Close(); <-done })
	return r, cfg
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// visit asks for a page over HTTP/1.1 on a new connection.
func (r *rig) visit(cfg *tls.Config) string {
	r.t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
	return r.page(c)
}

func (r *rig) page(c *http.Client) string {
	r.t.Helper()
	resp, err := c.Get("https://" + r.addr)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(b)))
}

func TestClientAuth(t *testing.T) {
	root := (*authority)(nil).issue(t, "clients", true)
	between := root.issue(t, "between", true)
	alice, stranger := between.issue(t, "alice", false), (*authority)(nil).issue(t, "stranger", false)
	known := alice.identity()
	known.Certificate = append(known.Certificate, between.cert.Raw)
	for _, tt := range []struct {
		mode, name string
		shown      []tls.Certificate
		want       string
	}{
		{ClientAuthOff, "alice", []tls.Certificate{known}, "200 hello nobody"},
		{ClientAuthOptional, "alice", []tls.Certificate{known}, "200 hello alice"},
		{ClientAuthOptional, "nobody", nil, "200 hello nobody"},
		{ClientAuthOptional, "a stranger", []tls.Certificate{stranger.identity()}, "403 the client's certificate is not accepted"},
		{ClientAuthRequired, "alice", []tls.Certificate{known}, "200 hello alice"},
		{ClientAuthRequired, "nobody", nil, "403 the client shows no certificate"},
		{ClientAuthRequired, "a stranger", []tls.Certificate{stranger.identity()}, "403 the client's certificate is not accepted"},
	} {
		t.Run(tt.mode+" "+tt.name, func(t *testing.T) {
			r, _ := startMutual(t, tt.mode, root)
			cfg := r.clientConfig()
			// Whatever we say we accept: a stranger does not care.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(tt.shown) == 0 {
					return new(tls.Certificate), nil
				}
				return &tt.shown[0], nil
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				cfg.MaxVersion = version
				if got := r.visit(cfg); !strings.HasPrefix(got, tt.want) {
					t.Errorf("%s: %q, want %q", tls.VersionName(version), got, tt.want)
				}
			}
		})
	}
}

// Clients of TURN have no certificate, and those that say what they are, like an
// ACME CA, are not even asked.
func TestClientAuthLeavesTURNAlone(t *testing.T) {
	r, _ := startMutual(t, ClientAuthRequired, (*authority)(nil).issue(t, "clients", true))
	for _, tt := range []struct {
		alpn  []string
		asked bool
	}{{nil, true}, {[]string{"http/1.1"}, true}, {[]string{"foo"}, true}, {[]string{"stun.turn"}, false}} {
		asked := false
		cfg := r.clientConfig(tt.alpn...)
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return new(tls.Certificate), nil
		}
		c := tls.Client(r.dial(), cfg)
		if got := r.talk(c, stun, 25); got != "turn secure=true tcp=true" {
			t.Errorf("TURN over TLS with ALPN %q: %q", tt.alpn, got)
		}
		if asked != tt.asked {
			t.Errorf("with ALPN %q asked for a certificate: %t", tt.alpn, asked)
		}
	}
}

// The CA validates, though it shows no certificate.
func TestClientAuthLeavesACMEAlone(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	file := filepath.Join(t.TempDir(), "clients.pem")
	write(t, file, bundle((*authority)(nil).issue(t, "clients", true)))
	certs, err := NewCertificates(Config{
		Source: SourceACME, ACME: p.config, ClientAuth: ClientAuth{Mode: ClientAuthRequired, CAFile: file},
	}, []string{domain}, CertificateOptions{HTTPSPort: portOf(ln.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, ln, certs, PortOptions{}).serve()
	eventually(t, "a certificate", func() bool { return certs.Status().Ready })
	if got := r.talk(tls.Client(r.dial(), p.trusting(domain)), stun, 25); got != "turn secure=true tcp=true" {
		t.Errorf("TURN over TLS: %q", got)
	}
}

// What a reload changes holds for the next request, also of connections and
// sessions that began before.
func TestClientAuthChangesByReload(t *testing.T) {
	root, other := (*authority)(nil).issue(t, "clients", true), (*authority)(nil).issue(t, "others", true)
	r, cfg := startMutual(t, ClientAuthRequired, root)
	shows := r.clientConfig()
	shows.Certificates = []tls.Certificate{root.issue(t, "alice", false).identity()}
	shows.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	tr := &http.Transport{TLSClientConfig: shows.Clone(), ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	kept := &http.Client{Transport: tr}

	if got := r.page(kept); got != "200 hello alice, resumed=false" {
		t.Fatalf("alice: %q", got)
	}
	if got := r.visit(shows); got != "200 hello alice, resumed=true" {
		t.Errorf("her session: %q", got)
	}
	without := r.clientConfig()
	without.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	r.visit(without)
	without.Certificates = shows.Certificates
	if got := r.visit(without); got != "200 hello alice, resumed=false" {
		t.Errorf("session that began without a certificate: %q", got)
	}

	write(t, cfg.ClientAuth.CAFile, bundle(other))
	if err := r.certs.Reload(cfg, Secrets{}); err != nil {
		t.Fatal(err)
	}
	if got := r.page(kept); !strings.HasPrefix(got, "403") {
		t.Errorf("her open connection when others vouch: %q", got)
	}
	if got := r.visit(shows); !strings.HasPrefix(got, "403 ") {
		t.Errorf("her session when others vouch: %q", got)
	}
	write(t, cfg.ClientAuth.CAFile, []byte("rubbish"))
	if err := r.certs.Reload(cfg, Secrets{}); err == nil {
		t.Error("a file without a certificate was taken")
	}
	cfg.ClientAuth = ClientAuth{Mode: ClientAuthOff}
	if err := r.certs.Reload(cfg, Secrets{}); err != nil {
		t.Fatal(err)
	}
	if got := r.page(kept); got != "200 hello nobody, resumed=false" {
		t.Errorf("when it is off: %q", got)
	}
}

// The tools that operators use.
func TestClientAuthWithPrograms(t *testing.T) {
	root := (*authority)(nil).issue(t, "clients", true)
	alice := root.issue(t, "alice", false)
	r, _ := startMutual(t, ClientAuthRequired, root)
	cert, key := filepath.Join(t.TempDir(), "alice.pem"), filepath.Join(t.TempDir(), "alice.key")
	write(t, cert, bundle(alice))
	write(t, key, alice.keyPEM())
	for _, tt := range []struct{ want, program, args string }{
		{"hello alice", "curl", "-sk --noproxy * --http2 --cert CERT --key KEY https://ADDR/"},
		{"hello alice", "curl", "-sk --noproxy * --http1.1 --tls-max 1.2 --cert CERT --key KEY https://ADDR/"},
		{"shows no certificate", "curl", "-sk --noproxy * https://ADDR/"},
		{"Acceptable client certificate CA names\nCN = clients", "openssl", "s_client -connect ADDR"},
		{"No client certificate CA names sent", "openssl", "s_client -connect ADDR -alpn stun.turn"},
	} {
		t.Run(tt.program+" "+tt.args, func(t *testing.T) {
			if _, err := exec.LookPath(tt.program); err != nil {
				t.Skipf("NOT TESTED: %s is not installed", tt.program)
			}
			args := strings.NewReplacer("ADDR", r.addr, "CERT", cert, "KEY", key).Replace(tt.args)
			out, err := exec.Command(tt.program, strings.Fields(args)...).CombinedOutput()
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("want %q in: %s (%v)", tt.want, out, err)
			}
		})
	}
}
