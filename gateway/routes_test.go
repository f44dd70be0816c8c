package gateway

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func TestRedirectsLeadHome(t *testing.T) {
	for _, c := range []struct {
		name, domain, port, request string
		status                      int
		location                    string
	}{
		{"a page", "chat.example.com", "443", "GET /a/b?c=d HTTP/1.1", 301, "https://chat.example.com/a/b?c=d"},
		{"HEAD", "chat.example.com", "443", "HEAD / HTTP/1.1", 301, "https://chat.example.com/"},
		{"a post keeps its method", "chat.example.com", "443", "POST /api HTTP/1.1", 308, "https://chat.example.com/api"},
		{"another port", "chat.example.com", "8443", "GET / HTTP/1.1", 301, "https://chat.example.com:8443/"},
		{"an absolute target names nobody else", "chat.example.com", "443", "GET http://evil.example/x HTTP/1.1", 301, "https://chat.example.com/x"},
		{"nor do two slashes", "chat.example.com", "443", "GET //evil.example/x HTTP/1.1", 301, "https://chat.example.com//evil.example/x"},
		{"nor an at sign", "chat.example.com", "443", "GET /@evil.example HTTP/1.1", 301, "https://chat.example.com/@evil.example"},
		{"the whole server", "chat.example.com", "443", "OPTIONS * HTTP/1.1", 308, "https://chat.example.com/"},
		{"IPv6", "2001:db8::1", "443", "GET / HTTP/1.1", 301, "https://[2001:db8::1]/"},
		{"CONNECT", "chat.example.com", "443", "CONNECT evil.example:443 HTTP/1.1", 405, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.request + "\r\nHost: evil.example\r\n\r\n")))
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			redirect(c.domain, c.port).ServeHTTP(w, r)
			if w.Code != c.status || w.Header().Get("Location") != c.location {
				t.Errorf("%d %q, want %d %q", w.Code, w.Header().Get("Location"), c.status, c.location)
			}
		})
	}
}

func TestRoutesTakeTheFirstThatFits(t *testing.T) {
	say := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
	}
	rs := routes{
		{doorHTTPS, "calls.example.com", "/", say("host")},
		{doorHTTPS, "", "/own/", say("path")},
		{doorHTTPS, "", "/", say("rest")},
		{doorPlain, "", "/only", say("plain")},
	}
	for _, c := range []struct {
		door       door
		host, path string
		want       string
	}{
		{doorHTTPS, "Calls.example.com:443", "/own/", "host"},
		{doorHTTPS, "chat.example.com", "/own/x", "path"},
		{doorHTTPS, "chat.example.com", "/own", "rest"},
		{doorPlain, "chat.example.com", "/", "404 page not found\n"},
		{doorHTTP, "chat.example.com", "/only", "404 page not found\n"},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		rs.at(c.door).ServeHTTP(w, r)
		if w.Body.String() != c.want {
			t.Errorf("%s %s%s: %q, want %q", c.door, c.host, c.path, w.Body.String(), c.want)
		}
	}
}

// A browser that is told of extended CONNECT opens WebSockets over HTTP/2,
// which Mattermost cannot answer (RFC 8441).
func TestExtendedConnectIsNotAdvertised(t *testing.T) {
	rig := startProxy(t, nil)
	settings := h2Settings(t, rig.rawTLS(t, "h2"))
	for _, s := range settings {
		if s.ID == http2.SettingEnableConnectProtocol {
			t.Errorf("advertised: %v", s)
		}
	}
	if len(settings) == 0 {
		t.Error("no settings at all: not the frame we meant to read")
	}
}

// Each stream may hold a buffer and a connection to Mattermost, so how many a
// client may have is said and not left to the library.
func TestStreamsOfOneConnection(t *testing.T) {
	rig := startProxy(t, nil)
	want := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}
	if all := h2Settings(t, rig.rawTLS(t, "h2")); !slices.Contains(all, want) {
		t.Errorf("%v is not among %v", want, all)
	}
}

// h2Settings is what an HTTP/2 server announces first.
func h2Settings(t *testing.T, conn *tls.Conn) []http2.Setting {
	t.Helper()
	if proto := conn.ConnectionState().NegotiatedProtocol; proto != "h2" {
		t.Fatalf("ALPN gave %q", proto)
	}
	mustWrite(t, conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("first frame: %v", frame)
	}
	var all []http2.Setting
	if err := settings.ForeachSetting(func(s http2.Setting) error { all = append(all, s); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// curl runs the real one against url and returns "status protocol".
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("SKIPPED: no curl on this machine, so nothing is proved about it: apt-get install curl")
	}
	args = append([]string{"--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}"}, args...)
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v: %s", args, err, out)
	}
	return string(out)
}

// Asking for the handler of HTTP-01 is what offers that challenge to the CA, and
// then the ACME library opens port 80 if we have not.
func TestNoHTTPListenerNoHTTPChallenge(t *testing.T) {
	for listen, want := range map[string]int{"": 0, "127.0.0.1:0": 1} {
		cfg := testConfig(startMattermost(t))
		cfg.Domain = "chat.example.com"
		cfg.TLS.Source, cfg.TLS.ACME.Storage = SourceACME, t.TempDir()
		cfg.Listen.HTTP = listen
		tg := &testGateway{log: &logLines{}}
		g, err := New(cfg, tg.options())
		if err != nil {
			t.Fatal(err)
		}
		doors := 0
		for _, r := range g.routes(cfg) {
			if r.door == doorHTTP {
				doors++
			}
		}
		if doors != want {
			t.Errorf("listen.http %q: %d routes for it, want %d", listen, doors, want)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}
