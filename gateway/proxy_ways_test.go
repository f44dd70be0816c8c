package gateway

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// Mattermost believes the leftmost address: it must be ours to write.
func TestMattermostLearnsTheClientsAddress(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		_, _ = ask(t, c, request(t, http.MethodGet, rig.url("/"), "", "X-Forwarded-For", "192.0.2.1, 198.51.100.1"))
		if got := rig.mm.clientIP(); got != "127.0.0.1" {
			t.Errorf("Mattermost takes the client for %s", got)
		}
	})
}

// What Mattermost finds too large is its answer, to the byte, and the log names
// the setting.
func TestTooLargeForMattermost(t *testing.T) {
	mm := startMattermostWith(t, func(w *ways) { w.maxFile = 1 << 20 })
	rig := startProxyTo(t, mm, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		resp, text := ask(t, c, request(t, http.MethodPost, rig.url("/api/v4/files"), strings.Repeat("x", 3<<20)))
		var got struct {
			ID         string `json:"id"`
			StatusCode int    `json:"status_code"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || resp.StatusCode != 413 || got.StatusCode != 413 || !strings.HasPrefix(got.ID, "api.file.") {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	})
	if n := metric(rig.metrics.tooLarge); n != 2 {
		t.Errorf("%v counted", n)
	}
	if lines := rig.log.with("setting=FileSettings.MaxFileSize length=3145728"); len(lines) != 2 {
		t.Errorf("logged: %q", rig.log.with("too large"))
	}
}

// A SiteURL with a path is Mattermost's affair: what it does below that path it
// does through us.
func TestSiteURLWithAPath(t *testing.T) {
	mm := startMattermostWith(t, func(w *ways) { w.sub, w.siteURL = "/chat", "https://chat.example.com/chat" })
	rig := startProxyTo(t, mm, func(c *Config) {
		c.Proxy.HealthPath = "/chat/api/v4/system/ping"
		c.Proxy.Spool.Dir = t.TempDir()
	})
	pool := rig.settings.Load().pool
	if err := pool.probe(t.Context(), pool.upstreams[0], "chat.example.com"); err != nil {
		t.Errorf("probe: %v", err)
	}
	rig.both(func(t *testing.T, c *http.Client) {
		at := func(method, path, body string, headers ...string) (*http.Response, string) {
			r := request(t, method, rig.url(path), body, headers...)
			r.Host = "chat.example.com"
			return ask(t, c, r)
		}
		if resp, _ := at("GET", "/", ""); resp.StatusCode != 302 || resp.Header.Get("Location") != "/chat" {
			t.Errorf("/: %d to %q", resp.StatusCode, resp.Header.Get("Location"))
		}
		if resp, body := at("GET", "/chat/", ""); resp.StatusCode != 200 || !strings.Contains(body, "Mattermost") {
			t.Errorf("/chat/: %d %q", resp.StatusCode, body)
		}
		if _, body := at("GET", "/chat/api/v4/system/ping", ""); !strings.Contains(body, `"status":"OK"`) {
			t.Errorf("ping: %q", body)
		}
		if resp, body := at("GET", "/chat/api/v4/files/1", "", "Range", "bytes=10-19"); resp.StatusCode != 206 || body != "abcdef0123" {
			t.Errorf("range: %d %q", resp.StatusCode, body)
		}
		if resp, body := at("POST", "/chat/api/v4/files", strings.Repeat("x", 2<<20)); resp.StatusCode != 201 || !strings.Contains(body, `"Bytes":2097152`) {
			t.Errorf("upload: %d %q", resp.StatusCode, body)
		}
	})
	for origin, want := range map[string]int{"https://chat.example.com": 101, "https://evil.example.com": 403} {
		conn, resp, err := websocket.Dial(t.Context(), rig.url("/chat/api/v4/websocket"), &websocket.DialOptions{
			HTTPClient: rig.h1, HTTPHeader: http.Header{"Origin": {origin}}, Host: "chat.example.com",
		})
		if resp == nil || resp.StatusCode != want {
			t.Errorf("WebSocket of %s: %v, %v", origin, resp, err)
		}
		if err == nil {
			_ = conn.CloseNow()
		}
	}
}

// Told to stop, Mattermost gives what is under way one second, and is back a
// little later: a page that took longer comes all the same.
func TestMattermostStopsInOrder(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.Hold = 20 * time.Second })
	answered := make(chan int, 2)
	for _, c := range []*http.Client{rig.h1, rig.h2} {
		go func() {
			resp, err := c.Do(request(t, http.MethodGet, rig.url("/plugins/slow"), ""))
			if err != nil {
				answered <- 0
				return
			}
			_ = resp.Body.Close()
			answered <- resp.StatusCode
		}()
	}
	eventually(t, "both are under way", func() bool { return metric(rig.metrics.inFlight) == 2 })
	rig.mm.shutdown()
	close(rig.mm.stall)
	rig.mm.start()
	for range 2 {
		if status := <-answered; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}

// Compression is between the client and Mattermost.
func TestCompressionIsMattermostsAffair(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		for _, accept := range []string{"", "identity", "gzip, br"} {
			r := request(t, http.MethodGet, rig.url("/api/v4/config/client"), "")
			if accept != "" {
				r.Header.Set("Accept-Encoding", accept)
			}
			resp, body := ask(t, c, r)
			if packed := strings.Contains(accept, "gzip"); packed != (resp.Header.Get("Content-Encoding") == "gzip") || resp.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("accept %q: %v", accept, resp.Header)
			} else if packed {
				z, err := gzip.NewReader(strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				plain, _ := io.ReadAll(z)
				body = string(plain)
			}
			if !strings.Contains(body, `"Version":"11.0.0"`) {
				t.Errorf("accept %q: %.50q", accept, body)
			}
		}
	})
}

// Events of a plugin arrive one by one, whether or not anybody says how long
// the answer will be.
func TestServerSentEvents(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.Spool.Dir = t.TempDir() })
	rig.both(func(t *testing.T, c *http.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := c.Do(request(t, http.MethodGet, rig.url("/plugins/ai/stream"), "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for _, want := range []string{"0", "1", "2"} {
			line, err := lines.ReadString('\n')
			if _, _ = lines.ReadString('\n'); err != nil || line != "data: "+want+"\n" {
				t.Fatalf("%q, %v, want %s", line, err, want)
			}
		}
	})
}

// What Connection names belongs to one connection (RFC 9110, 7.6.1); but it
// cannot name away what we write.
func TestHeadersOfOneConnection(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "GET /plugins/mirror/ HTTP/1.1\r\nHost: chat\r\nConnection: X-Hop, x-forwarded-for ,X-Forwarded-Proto\r\nConnection: X-Other\r\n"+
		"X-Hop: 1\r\nX-Other: 1\r\nX-Kept: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip\r\n\r\n")
	got := mirroredOn(t, conn)
	for _, name := range []string{"X-Hop", "X-Other", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("%s: %q came through", name, v)
		}
	}
	if h := got.Header; h.Get("X-Kept") != "1" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("Mattermost got %v", h)
	}
	up := startUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "5")
	})
	rig = startProxy(t, func(c *Config) { c.Upstream = []string{up} })
	rig.both(func(t *testing.T, c *http.Client) {
		if resp, _ := ask(t, c, request(t, http.MethodGet, rig.url("/"), "")); resp.Header.Get("X-Hop")+resp.Header.Get("Keep-Alive")+resp.Header.Get("Connection") != "" {
			t.Errorf("the client got %v", resp.Header)
		}
	})
}

// startUpstream serves h in place of Mattermost.
func startUpstream(t *testing.T, h http.HandlerFunc) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + ln.Addr().String()
}

// pipes is a listener whose connections are in memory: time in them is virtual.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// Mattermost closes a connection on which nothing was asked for 60 s. We let go
// of it before, so no POST, which cannot be sent twice, meets the closing one,
// however long the pause was.
func TestPostsNeverMeetAClosingConnection(t *testing.T) {
	t.Run("small", func(t *testing.T) { postsNeverMeetAClosingConnection(t, true) })
	t.Run("large", func(t *testing.T) { postsNeverMeetAClosingConnection(t, false) })
}

func postsNeverMeetAClosingConnection(t *testing.T, small bool) {
	synctest.Test(t, func(t *testing.T) {
		p, err := newPool([]string{"http://mattermost"}, defaultProxy(), nil)
		if err != nil {
			t.Fatal(err)
		}
		mm, dials := make(pipes), 0
		dial := func() (net.Conn, error) {
			dials++
			ours, theirs := net.Pipe()
			mm <- theirs
			return ours, nil
		}
		p.transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return dial() }
		p.quick.dial = func(context.Context, *upstream) (net.Conn, error) { return dial() }
		server := &http.Server{IdleTimeout: mattermostIdle, ReadTimeout: 300 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		})}
		go func() { _ = server.Serve(mm) }()
		for pause := 44 * time.Second; pause < 61*time.Second; pause += 50 * time.Millisecond {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/api/v4/posts", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			if small {
				r.Body = newSmallBody([]byte("hello"))
			}
			resp, _, err := p.send(r, nil)
			if err != nil {
				t.Fatalf("after a pause of %s: %v", pause, err)
			}
			_ = resp.Body.Close()
			time.Sleep(pause)
		}
		if dials < 2 || dials > 340-19 { // the first 20 pauses are shorter than 45 s
			t.Errorf("%d dials for 340 requests", dials)
		}
		p.closeIdle()
		_ = server.Close()
	})
}
