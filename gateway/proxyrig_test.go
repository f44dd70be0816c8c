package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A proxyRig is the proxy with its HTTP server and nothing else of a gateway.
type proxyRig struct {
	*proxy
	t     *testing.T
	mm    *mattermost
	site  *site
	host  string // address of the HTTPS listener
	roots *x509.CertPool
	log   *logLines

	h1, h2 *http.Client
	stop   func() // ends the server in order; waits
	hurry  context.CancelFunc
}

func startProxy(t *testing.T, edit func(*Config)) *proxyRig {
	t.Helper()
	return startProxyTo(t, startMattermost(t), edit)
}

func startProxyTo(t *testing.T, mm *mattermost, edit func(*Config)) *proxyRig {
	t.Helper()
	rig := &proxyRig{t: t, mm: mm, log: &logLines{}}
	cfg := Default()
	cfg.Domain = "chat.example.com"
	cfg.Upstream = []string{rig.mm.url()}
	cfg.Proxy.Hold = 0
	cfg.Proxy.Spool.Dir = ""
	cfg.TLS.HSTS = 0
	if edit != nil {
		edit(&cfg)
	}
	pool, err := newPool(cfg.Upstream, cfg.Proxy, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSettings(cfg, pool)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(rig.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rig.proxy = newProxy(s, newMetrics(prometheus.NewRegistry()), logger)
	rig.site = newSite(newRoutes(handlers{
		proxy: rig.proxy, redirect: redirect(cfg.Domain, "443"), acme: func(h http.Handler) http.Handler { return h },
	}).at(doorHTTPS), logger)
	rig.site.server.MaxHeaderBytes = headerRoom * cfg.Proxy.MaxHeader
	rig.site.afterShutdown = func(hard context.Context) { rig.tunnels.end(hard, cfg.Drain.WebsocketSpread) }
	rig.serve()
	return rig
}

func (rig *proxyRig) serve() {
	cert, roots := testCertificate()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		rig.t.Fatal(err)
	}
	rig.host, rig.roots = ln.Addr().String(), roots
	ctx, cancel := context.WithCancel(context.Background())
	hard, hurry := context.WithCancel(context.Background())
	rig.hurry = hurry
	done := make(chan error, 1)
	go func() {
		done <- rig.site.run(ctx, hard, strictListener{shaken{tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"},
		})}, rig.metrics.malformed})
	}()
	rig.h1, rig.h2 = client(roots, "http/1.1"), client(roots, "h2")
	stopped := false
	rig.stop = func() {
		if stopped {
			return
		}
		stopped = true
		rig.h1.CloseIdleConnections()
		rig.h2.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			rig.t.Errorf("site.run: %v", err)
		}
		hurry()
		rig.settings.Load().pool.closeIdle()
	}
	rig.t.Cleanup(func() { hurry(); rig.stop() })
}

// shaken is a TLS listener that finishes the handshake, as that of tls.Port does.
type shaken struct{ net.Listener }

func (l shaken) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || c.(*tls.Conn).Handshake() == nil {
			return c, err
		}
		_ = c.Close()
	}
}

func (rig *proxyRig) url(path string) string { return "https://" + rig.host + path }

func (rig *proxyRig) get(path string, headers ...string) (*http.Response, string) {
	rig.t.Helper()
	return ask(rig.t, rig.h1, request(rig.t, http.MethodGet, rig.url(path), "", headers...))
}

// both runs f over HTTP/1.1 and HTTP/2.
func (rig *proxyRig) both(f func(t *testing.T, c *http.Client)) {
	for name, c := range map[string]*http.Client{"h1": rig.h1, "h2": rig.h2} {
		rig.t.Run(name, func(t *testing.T) { f(t, c) })
	}
}

// testCertificate is one for 127.0.0.1 and example.com, with its root.
func testCertificate() (tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
}

// client speaks one protocol, follows no redirect and decompresses nothing.
func client(roots *x509.CertPool, proto string) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: roots, InsecureSkipVerify: roots == nil},
		DisableCompression: true, Protocols: new(http.Protocols), ExpectContinueTimeout: 30 * time.Second,
	}
	tr.Protocols.SetHTTP1(proto == "http/1.1")
	tr.Protocols.SetHTTP2(proto == "h2")
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// eventually waits for cond, which some other goroutine makes true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(45 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// metric is the value of a counter or gauge.
func metric(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }

// rawTLS opens a TLS connection that speaks HTTP/1.1.
func (rig *proxyRig) rawTLS(t *testing.T, protos ...string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", rig.host, &tls.Config{RootCAs: rig.roots, NextProtos: protos})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

func mustWrite(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// traced notes in to the remote address of the connection that a request takes.
func traced(ctx context.Context, to *string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { *to = i.Conn.RemoteAddr().String() },
	})
}

// benchProxy is a proxy to one upstream that logs nothing.
func benchProxy(upstream string) (*proxy, error) {
	cfg := Default()
	cfg.Proxy.Spool.Dir = ""
	pool, err := newPool([]string{upstream}, cfg.Proxy, nil)
	if err != nil {
		return nil, err
	}
	s, err := newSettings(cfg, pool)
	if err != nil {
		return nil, err
	}
	return newProxy(s, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler)), nil
}

// nodeMetric is what a metric says of an upstream, -1 if it says nothing.
func nodeMetric(t *testing.T, c prometheus.Collector, name, upstream string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "upstream" && l.GetValue() == upstream {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	return -1
}
