package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logLines collects what is logged.
type logLines struct {
	mu  sync.Mutex // guards the following
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that contain text.
func (l *logLines) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func mirrored(t *testing.T, c *http.Client, r *http.Request) seen {
	t.Helper()
	resp, body := ask(t, c, r)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	var s seen
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// mirroredOn is what came of the request that was written to conn.
func mirroredOn(t *testing.T, conn io.Reader) (got seen) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestHeadersThatClientsMayNotWrite(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		r := request(t, http.MethodGet, rig.url("/plugins/mirror/a%2Fb//c?x=1;y=2&bad=%zz"), "",
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "7.7.7.7", "X-Real-IP", "6.6.6.6",
			"X-Forwarded-Proto", "http", "X-Forwarded-Host", "evil.example", "X-Forwarded-Port", "1", "Forwarded", "for=6.6.6.6",
			"X-Request-Id", "made-up", "X-SSL-Client-Cert", "pem", "X-SSL-Client-Cert-Subject-DN", "CN=root", "X_Real_IP", "6.6.6.6",
			"Accept-Encoding", "br", "Cookie", "MMAUTHTOKEN=1")
		r.Host = "chat.example.com:8443"
		got := mirrored(t, c, r)
		want := http.Header{
			"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}, "X-Forwarded-Proto": {"https"},
			"X-Forwarded-Host": {"chat.example.com:8443"}, "Accept-Encoding": {"br"}, "Cookie": {"MMAUTHTOKEN=1"},
			"User-Agent": {"Go-http-client/1.1"},
		}
		if c == rig.h2 {
			want.Set("User-Agent", "Go-http-client/2.0")
		}
		if id := got.Header.Get(requestIDHeader); id == "" || id == "made-up" {
			t.Errorf("the id of the request is %q", id)
		}
		got.Header.Del(requestIDHeader)
		if d := cmp.Diff(want, got.Header); d != "" {
			t.Errorf("headers at Mattermost (-want +got):\n%s", d)
		}
		if got.Host != "chat.example.com:8443" {
			t.Errorf("Host = %q", got.Host)
		}
		if want := "/plugins/mirror/a%2Fb//c?x=1;y=2&bad=%zz"; got.URI != want {
			t.Errorf("URI = %q, want %q", got.URI, want)
		}
	})
}

func TestNoUserAgentIsInvented(t *testing.T) {
	rig := startProxy(t, nil)
	got := mirrored(t, rig.h1, request(t, http.MethodGet, rig.url("/plugins/mirror/"), "", "User-Agent", ""))
	for _, name := range []string{"User-Agent", "Accept-Encoding"} {
		if v, ok := got.Header[name]; ok {
			t.Errorf("%s = %q, which the client did not send", name, v)
		}
	}
}

func TestTrustedProxiesAreReadFromTheRight(t *testing.T) {
	trusted, err := parsePrefixes([]string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, peer string
		chain      []string
		want       string
	}{
		{"stranger's chain is ignored", "203.0.113.9:5", []string{"1.1.1.1"}, "203.0.113.9"},
		{"one trusted hop", "10.1.1.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"what a client wrote is left behind", "10.1.1.1:5", []string{"6.6.6.6, 198.51.100.1"}, "198.51.100.1"},
		{"two trusted hops", "10.1.1.1:5", []string{"6.6.6.6, 198.51.100.1, 192.0.2.7"}, "198.51.100.1"},
		{"several header lines are one list", "10.1.1.1:5", []string{"6.6.6.6", "198.51.100.1", "10.9.9.9"}, "198.51.100.1"},
		{"all trusted: the first of them", "10.1.1.1:5", []string{"10.2.2.2, 10.3.3.3"}, "10.2.2.2"},
		{"no chain", "10.1.1.1:5", nil, "10.1.1.1"},
		{"garbage stops the reading", "10.1.1.1:5", []string{"198.51.100.1, unknown, 10.3.3.3"}, "10.3.3.3"},
		{"with ports", "10.1.1.1:5", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 in brackets with port", "[2001:db8::1]:5", []string{"[2a00::5]:99"}, "2a00::5"},
		{"IPv4 written as IPv6", "[::ffff:10.1.1.1]:5", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"a zone is nobody's business", "[fe80::1%eth0]:5", nil, "fe80::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.chain}}
			if got := clientAddr(r, trusted); got != netip.MustParseAddr(c.want) {
				t.Errorf("client = %s, want %s", got, c.want)
			}
		})
	}
}

func TestTrustedProxyEndToEnd(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.TrustedProxies = []string{"127.0.0.1"} })
	got := mirrored(t, rig.h1, request(t, http.MethodGet, rig.url("/plugins/mirror/"), "", "X-Forwarded-For", "6.6.6.6, 198.51.100.1"))
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip"} {
		if v := got.Header.Get(name); v != "198.51.100.1" {
			t.Errorf("%s = %q", name, v)
		}
	}
}

func TestOnlyWebSocketIsSwitchedTo(t *testing.T) {
	rig := startProxy(t, nil)
	for _, protocol := range []string{"h2c", "TLS/1.0"} {
		got := mirrored(t, rig.h1, request(t, http.MethodGet, rig.url("/plugins/mirror/"), "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", protocol, "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"))
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if v, ok := got.Header[name]; ok {
				t.Errorf("%s: %s = %q reached Mattermost", protocol, name, v)
			}
		}
	}
}

func TestHSTSIsSetOnce(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.TLS.HSTS = Default().TLS.HSTS })
	for path, want := range map[string]string{"/": "max-age=15768000", "/plugins/strict": "max-age=1"} {
		resp, _ := rig.get(path)
		if got := resp.Header["Strict-Transport-Security"]; !cmp.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	off := startProxy(t, nil)
	if resp, _ := off.get("/"); resp.Header.Get("Strict-Transport-Security") != "" {
		t.Error("HSTS although tls.hsts is 0")
	}
	warned := startProxy(t, func(c *Config) { c.TLS.HSTS, c.TLS.Source = Default().TLS.HSTS, SourceSelfSigned })
	if resp, _ := warned.get("/"); resp.Header.Get("Strict-Transport-Security") != "" {
		t.Error("HSTS with a certificate that browsers warn of")
	}
}

func TestMattermostDownGivesAPageWithTheRequestID(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.TLS.HSTS = Default().TLS.HSTS })
	rig.mm.stop()
	rig.both(func(t *testing.T, c *http.Client) {
		resp, body := ask(t, c, request(t, http.MethodGet, rig.url("/town-square"), "", "Accept", "text/html,*/*"))
		id := resp.Header.Get("X-Request-Id")
		if resp.StatusCode != http.StatusBadGateway || len(id) != 26 || !strings.Contains(body, id) || !strings.Contains(body, "<title>") {
			t.Errorf("status %d, id %q, body:\n%s", resp.StatusCode, id, body)
		}
		if resp.Header.Get("Strict-Transport-Security") == "" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers: %v", resp.Header)
		}
		for _, src := range []string{"src=", "href=", "url("} {
			if strings.Contains(body, src) {
				t.Errorf("page is not self-contained: %s", src)
			}
		}
		if lines := rig.log.with(id); len(lines) != 1 || !strings.Contains(lines[0], "dial upstream") {
			t.Errorf("the id leads to %q in the log", lines)
		}
	})
}

func TestMattermostDownAnswersProgramsInTheirLanguage(t *testing.T) {
	rig := startProxy(t, nil)
	rig.mm.stop()
	for _, r := range []*http.Request{
		request(t, http.MethodPost, rig.url("/api/v4/posts"), "{}"),
		request(t, http.MethodGet, rig.url("/plugins/x"), "", "Accept", "application/json"),
	} {
		resp, body := ask(t, rig.h2, r)
		var got struct {
			ID      string `json:"id"`
			Message string `json:"message"`
			Request string `json:"request_id"`
			Status  int    `json:"status_code"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if got.Status != 502 || got.ID == "" || got.Message == "" || got.Request != resp.Header.Get("X-Request-Id") || resp.StatusCode != 502 {
			t.Errorf("status %d, %+v", resp.StatusCode, got)
		}
	}
}

func TestMaxBody(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.MaxBody = 1000 })
	rig.both(func(t *testing.T, c *http.Client) {
		small := strings.Repeat("x", 1000)
		if got := mirrored(t, c, request(t, http.MethodPost, rig.url("/plugins/mirror/"), small)); got.Body != small {
			t.Errorf("body of %d bytes arrived", len(got.Body))
		}
		if resp, _ := ask(t, c, request(t, http.MethodPost, rig.url("/plugins/mirror/"), small+"x")); resp.StatusCode != 413 {
			t.Errorf("declared length: status %d", resp.StatusCode)
		}
		unknown := request(t, http.MethodPost, rig.url("/plugins/mirror/"), small+"x")
		unknown.ContentLength = -1
		if resp, _ := ask(t, c, unknown); resp.StatusCode != 413 {
			t.Errorf("unknown length: status %d", resp.StatusCode)
		}
	})
}

func TestMethodConnectIsRefused(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n")
	line := make([]byte, len("HTTP/1.1 405"))
	if _, err := conn.Read(line); err != nil || string(line) != "HTTP/1.1 405" {
		t.Errorf("%q %v", line, err)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	rig := startProxy(t, nil)
	rig.get("/")
	rig.get("/nowhere")
	r := request(t, "PROPFIND", rig.url("/nowhere"), "")
	ask(t, rig.h1, r)
	m := rig.metrics.requests
	eventually(t, "counters", func() bool {
		return metric(m["GET"]["2xx"]) == 1 && metric(m["GET"]["4xx"]) == 1 && metric(m[otherMethod]["4xx"]) == 1
	})
	eventually(t, "nothing in flight", func() bool { return metric(rig.metrics.inFlight) == 0 })
}
