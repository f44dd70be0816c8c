package doctor_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway"
	"sallyport/gateway/doctor"
	"sallyport/sfu/rtcd"
	"sallyport/turn"
)

const (
	domain     = "chat.example.com"
	turnSecret = "a secret of the TURN test server"
	configPath = "/api/v4/config/client"
	clientKey  = "the key of the Calls plugin in these tests"
)

// An installation is a whole gateway in front of a stand-in for Mattermost,
// with a certificate for domain, all on free ports of 127.0.0.1.
type installation struct {
	*gateway.Gateway
	mattermost *httptest.Server
	target     doctor.Target
	admin      string // base URL
	stop       func()
}

// A setup is what may be different about an installation.
type setup struct {
	config      func(*gateway.Config)
	files       func(a *authority) certificate // nil: a good one
	application http.Handler                   // nil: goodMattermost
}

func install(t *testing.T, s setup) *installation {
	t.Helper()
	dir := t.TempDir()
	if s.application == nil {
		s.application = goodMattermost()
	}
	in := &installation{mattermost: httptest.NewServer(s.application)}
	t.Cleanup(in.mattermost.Close)
	a := newAuthority(t)
	cert := a.issue(nil)
	if s.files != nil {
		cert = s.files(a)
	}
	cfg := testConfig(t, dir, in.mattermost.URL, cert)
	if s.config != nil {
		s.config(&cfg)
	}
	g, err := gateway.New(cfg, gateway.Options{Version: rtcd.Version{Number: "0.0.0-test"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	in.Gateway = g
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	in.stop = func() {
		cancel()
		if err, ok := <-ended; ok && err != nil {
			t.Errorf("Run: %v", err)
		}
		close(ended)
		in.stop = func() {}
	}
	t.Cleanup(func() { in.stop() })
	in.target = targetOf(cfg, g.Addrs(), a)
	in.admin = in.target.AdminURL
	in.target.Proc = kernel(t, 8<<20)
	waitReady(t, in.target.AdminURL)
	return in
}

func testConfig(t *testing.T, dir, upstream string, cert certificate) gateway.Config {
	cfg := gateway.Default()
	cfg.Domain, cfg.Upstream = domain, []string{upstream}
	cfg.Listen = gateway.Listen{HTTPS: "127.0.0.1:0", HTTP: "127.0.0.1:0", UDP: "127.0.0.1:0"}
	cfg.TLS.Source = gateway.SourceFiles
	cfg.TLS.CertFile, cfg.TLS.KeyFile = write(t, dir, "cert.pem", cert.chain), write(t, dir, "key.pem", cert.key)
	cfg.Proxy.Hold = 0
	cfg.TURN.SecretFile = write(t, dir, "turn-secret", []byte(turnSecret+"\n"))
	cfg.SFU.UDP, cfg.SFU.TCP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.SFU.API.Listen = "127.0.0.1:0"
	cfg.SFU.API.Clients = []rtcd.Client{{ID: "mattermost", KeyFile: write(t, dir, "client-key", []byte(clientKey))}}
	cfg.SFU.API.Store = ""
	cfg.Admin.Listen, cfg.Admin.Socket = "127.0.0.1:0", ""
	cfg.Proxy.Spool.Dir = ""
	return cfg
}

func targetOf(cfg gateway.Config, at gateway.Addrs, a *authority) doctor.Target {
	t := doctor.Target{
		Host: domain, Port: netip.MustParseAddrPort(at.HTTPS).Port(), HTTPSAddress: at.HTTPS, HTTPAddress: at.HTTP,
		UDPAddress: at.UDP, MediaUDP: at.MediaUDP, MediaTCP: at.MediaTCP,
		APIURL: "http://" + at.API, ClientID: "mattermost", ClientKey: clientKey,
		AdminURL: "http://" + at.Admin, Upstream: cfg.Upstream, Roots: a.pool(),
		LookupHost: lookup("127.0.0.1"), RelayTo: cfg.TURN.RelayTo, TLS13Only: cfg.TLS.MinVersion == "1.3",
	}
	t.TURNUsername, t.TURNPassword = turn.Credentials([]byte(turnSecret), "doctor", time.Now().Add(time.Hour))
	for _, f := range cfg.SecretFiles() {
		t.Secrets = append(t.Secrets, doctor.SecretFile{Key: f.Key, Name: f.Name})
	}
	return t
}

func lookup(addresses ...string) func(context.Context, string) ([]string, error) {
	return func(_ context.Context, host string) ([]string, error) {
		if len(addresses) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return addresses, nil
	}
}

// goodMattermost answers what the doctor asks of Mattermost.
func goodMattermost() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/system/ping", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"ActiveSearchBackend":"database","status":"OK"}`)
	})
	mux.HandleFunc("GET "+configPath, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"SiteURL":"https://`+r.Host+`","Version":"11.0.0"}`)
	})
	mux.HandleFunc("GET /api/v4/websocket", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil) // which compares Origin and Host
		if err != nil {
			return
		}
		_, _, _ = conn.Read(r.Context())
		_ = conn.CloseNow()
	})
	return mux
}

// mattermostWithout answers the given path in another way.
func mattermostWithout(path string, other http.HandlerFunc) http.Handler {
	good := goodMattermost()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			other(w, r)
			return
		}
		good.ServeHTTP(w, r)
	})
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, http.StatusText(code), code) }
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
}

// kernel is a /proc with the given limit of UDP buffers.
func kernel(t *testing.T, limit int) string {
	t.Helper()
	proc := t.TempDir()
	dir := filepath.Join(proc, "sys/net/core")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		write(t, dir, name, []byte(jsonOf(limit)+"\n"))
	}
	return proc
}

func write(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func jsonOf(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func waitReady(t *testing.T, admin string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := http.Get(admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v %v", resp, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// closedPort is an address of 127.0.0.1 that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// silentPort is an address that takes UDP packets and never answers, as behind
// a firewall.
func silentPort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.LocalAddr().String()
}

// noLeak fails the test if more goroutines live after f than before.
func noLeak(t *testing.T, f func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	f()
	deadline := time.Now().Add(30 * time.Second)
	for runtime.NumGoroutine() > before {
		http.DefaultClient.CloseIdleConnections()
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(10 * time.Millisecond) // the server sees the ends of connections later
	}
}

// drain takes the last upstream out of service, by the socket for commands.
func drain(t *testing.T, socket, upstream string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	resp, err := c.Post("http://x/upstreams/drain", "application/json", strings.NewReader(`{"upstream": "`+upstream+`", "last": true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("drain: %s", resp.Status)
	}
}
