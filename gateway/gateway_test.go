package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway/admin"
	"sallyport/turn"
)

// TestOnePortForEverything is walk (a) with TURN under way on the same port.
func TestOnePortForEverything(t *testing.T) {
	noLeak(t, func() {
		t.Run("", func(t *testing.T) {
			g := startGateway(t, nil)
			https := g.Addrs().HTTPS
			for _, network := range []string{"udp", "tcp", "tls"} {
				probeTURN(t, g, network)
			}
			stop := keepProbing(t, g)
			for _, c := range []struct{ args, want string }{
				{"--http2", "200 2"}, {"--http1.1", "200 1.1"}, {"--no-alpn", "200 1.1"},
			} {
				if got := curl(t, c.args, "https://"+https+"/"); got != c.want {
					t.Errorf("curl %s: %s, want %s", c.args, got, c.want)
				}
			}
			for _, path := range []string{"/api/v4/websocket", "/api/v4/websocket/", "/plugins/focalboard/ws"} {
				talk(t, https, path)
			}
			conn := dialTLS(t, https, "h2")
			for _, s := range h2Settings(t, conn) {
				if s.ID == 8 { // SETTINGS_ENABLE_CONNECT_PROTOCOL
					t.Error("extended CONNECT is advertised")
				}
			}
			_ = conn.Close()
			plainHTTP(t, https, "https://localhost:"+portString(https)+"/x")
			plainHTTP(t, g.Addrs().HTTP, "https://localhost:"+portString(https)+"/x")
			if n := stop(); n == 0 {
				t.Error("TURN did not run meanwhile")
			}
		})
	})
}

func portString(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func dialTLS(t *testing.T, addr string, protos ...string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protos})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// probe allocates over network, as a client with a credential of the plugin's.
func probe(ctx context.Context, g *testGateway, network string) error {
	target := turn.ProbeTarget{Network: network, Address: g.Addrs().HTTPS}
	switch network {
	case "udp":
		target.Address = g.Addrs().UDP
	case "tls": // no ALPN, as browsers do
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}}
		target.Dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", target.Address) }
	}
	target.Username, target.Password = turn.Credentials([]byte(testTURNSecret), "probe", time.Now().Add(time.Hour))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := turn.Probe(ctx, target)
	return err
}

func probeTURN(t *testing.T, g *testGateway, network string) {
	t.Helper()
	if err := probe(t.Context(), g, network); err != nil {
		t.Errorf("TURN over %s: %v", network, err)
	}
}

// keepProbing runs TURN over TLS until stop is called, which returns how often
// it went well.
func keepProbing(t *testing.T, g *testGateway) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	count := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if err := probe(ctx, g, "tls"); err == nil {
				n++
			} else if ctx.Err() == nil {
				t.Errorf("TURN meanwhile: %v", err)
			}
		}
		count <- n
	}()
	return func() int { cancel(); return <-count }
}

// talk opens a WebSocket and echoes through it.
func talk(t *testing.T, addr, path string) {
	t.Helper()
	conn, err := openSocket(t, addr, path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	exchangeText(t, conn, "hello")
	_ = conn.Close(websocket.StatusNormalClosure, "")
}

// openSocket opens a WebSocket over a connection of its own.
func openSocket(t *testing.T, addr, path string) (*websocket.Conn, error) {
	c := client(nil, "http/1.1")
	defer c.CloseIdleConnections()
	conn, _, err := websocket.Dial(t.Context(), "wss://"+addr+path, &websocket.DialOptions{
		HTTPClient: c, HTTPHeader: http.Header{"Origin": {"https://" + addr}},
	})
	return conn, err
}

// plainHTTP asks for /x without TLS and must be sent to want.
func plainHTTP(t *testing.T, addr, want string) {
	t.Helper()
	c := client(nil, "http/1.1")
	defer c.CloseIdleConnections()
	status := http.StatusPermanentRedirect
	resp, _ := ask(t, c, request(t, http.MethodPost, "http://"+addr+"/x", "body"))
	if resp.StatusCode != status || resp.Header.Get("Location") != want {
		t.Errorf("http://%s: %d %q, want %d %q", addr, resp.StatusCode, resp.Header.Get("Location"), status, want)
	}
}

func adminGet(t *testing.T, g *testGateway, path string) (int, string) {
	t.Helper()
	c := client(nil, "http/1.1")
	defer c.CloseIdleConnections()
	resp, body := ask(t, c, request(t, http.MethodGet, "http://"+g.Addrs().Admin+path, ""))
	return resp.StatusCode, body
}

func TestAdminShowsTheGateway(t *testing.T) {
	g := startGateway(t, nil)
	probeTURN(t, g, "tls")
	if code, body := adminGet(t, g, "/readyz"); code != 200 {
		t.Errorf("/readyz: %d %s", code, body)
	}
	_, body := adminGet(t, g, "/status")
	var s admin.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != admin.Serving || s.Domain != "localhost" || len(s.Listeners) != 7 || !s.Certificate.Ready ||
		len(s.Upstreams) != 1 || !s.Upstreams[0].Up || !s.Media.Enabled || !s.TURN.Enabled {
		t.Errorf("status: %s", body)
	}
	_, metrics := adminGet(t, g, "/metrics")
	for _, name := range []string{
		"sallyport_build_info{", "sallyport_http_requests_total{", "sallyport_upstream_up{", "sallyport_ws_open ",
		"sallyport_config_reloads_total{", "rtcd_process_resident_memory_bytes ", "go_goroutines ", "sallyport_turn_", "sallyport_tls_", "sallyport_rtcd_dropped_messages_total ",
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
}

func TestPartsThatAreOff(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"turn": func(c *Config) { c.TURN.Enabled, c.TURN.SecretFile = false, "" },
		"sfu": func(c *Config) {
			c.SFU.Mode = ModeOff
			c.TURN.RelayTo = []string{"127.0.0.1:9"}
			c.SFU.API.Clients = nil
		},
		"http": func(c *Config) { c.Listen.HTTP = "" },
	} {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, edit)
			if got := curl(t, "https://"+g.Addrs().HTTPS+"/"); !strings.HasPrefix(got, "200 ") {
				t.Errorf("curl: %s", got)
			}
			if s := g.Status(); s.Media.Enabled == (name == "sfu") || s.TURN.Enabled == (name == "turn") {
				t.Errorf("status: %+v", s)
			}
			g.Drain()
			if err := g.wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTrustedProxiesAreManyClients: a load balancer in front may open as many
// connections at once as it likes, for as long as it is configured.
func TestTrustedProxiesAreManyClients(t *testing.T) {
	const many = 2048 + 1 // one more than anybody else may (tls.PortOptions.PerAddress)
	g := startGateway(t, func(c *Config) { c.Proxy.TrustedProxies, c.Limits.Exempt = []string{"127.0.0.0/8"}, nil })
	silent := func() (hangUp func()) {
		var all []net.Conn
		hangUp = func() {
			for _, c := range all {
				_ = c.Close()
			}
		}
		t.Cleanup(hangUp)
		for range many {
			c, err := net.Dial("tcp", g.Addrs().HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		return hangUp
	}
	hangUp := silent()
	_ = dialTLS(t, g.Addrs().HTTPS).Close()
	hangUp()
	next := g.config()
	next.Proxy.TrustedProxies = nil
	if _, err := g.Reload(next); err != nil {
		t.Fatal(err)
	}
	silent()
	if c, err := tls.Dial("tcp", g.Addrs().HTTPS, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}); err == nil {
		_ = c.Close()
		t.Error("after the reload the address still has no limit")
	}
}
