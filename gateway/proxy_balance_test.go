package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func newTestPool(t *testing.T, urls ...string) *pool {
	t.Helper()
	p, err := newPool(urls, Proxy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The share of a node that is down goes to all others, and not to the next one.
func TestRequestsAreSharedEvenly(t *testing.T) {
	p := newTestPool(t, "http://a", "http://b", "http://c", "http://d")
	share := func() map[string]int {
		n := map[string]int{}
		for range 120 {
			n[p.inTurn(nil).name]++
		}
		return n
	}
	for name, n := range share() {
		if n != 30 {
			t.Errorf("all up: %s has %d of 120", name, n)
		}
	}
	p.upstreams[1].failed(&dialError{net.ErrClosed})
	for name, n := range share() {
		if n != 40 || name == "b" {
			t.Errorf("b is down: %s has %d of 120", name, n)
		}
	}
}

func TestWebSocketsGoWhereFewestAre(t *testing.T) {
	p := newTestPool(t, "http://a", "http://b", "http://c")
	var wait sync.WaitGroup
	leaves := make([]func(), 30)
	for i := range leaves {
		wait.Go(func() {
			var err error
			if leaves[i], err = p.webSocket(t.Context(), func(*upstream) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, u := range p.upstreams {
		if n := u.open.Load(); n != 10 {
			t.Errorf("%s has %d of 30", u.name, n)
		}
	}
	p.upstreams[2].open.Store(3)
	for range 7 {
		if _, err := p.webSocket(t.Context(), func(u *upstream) error {
			if u.name != "c" {
				t.Errorf("on %s, which has %d", u.name, u.open.Load())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, leave := range leaves {
			leave()
		}
	}
	for i, want := range []int32{0, 0, 0} {
		if n := p.upstreams[i].open.Load(); n != want {
			t.Errorf("%d left on %s", n, p.upstreams[i].name)
		}
	}
}

func TestWebSocketFindsAnotherUpstream(t *testing.T) {
	p := newTestPool(t, "http://a", "http://b", "http://c")
	failures := map[string]error{"a": &dialError{net.ErrClosed}, "b": io.ErrUnexpectedEOF}
	for range 3 {
		if _, err := p.webSocket(t.Context(), func(u *upstream) error { return failures[u.name] }); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c := &p.upstreams[0].open, &p.upstreams[1].open, &p.upstreams[2].open; a.Load() != 0 || b.Load() != 0 || c.Load() != 3 {
		t.Errorf("open: %d %d %d", a.Load(), b.Load(), c.Load())
	}
	failures["c"] = context.DeadlineExceeded // somebody's patience is not tried twice
	if leave, err := p.webSocket(t.Context(), func(*upstream) error { return failures["c"] }); leave != nil || !errors.Is(err, failures["c"]) {
		t.Errorf("%v", err)
	}
}

// A WebSocket of a client counts where it is, and no longer when it has ended or
// was refused.
func TestWebSocketsAreCountedByUpstream(t *testing.T) {
	one, two := startMattermost(t), startMattermost(t)
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{one.url(), two.url()} })
	ups := rig.settings.Load().pool.upstreams
	open := func(a, b int32) func() bool {
		return func() bool { return ups[0].open.Load() == a && ups[1].open.Load() == b }
	}
	var conns []*websocket.Conn
	for range 4 {
		conns = append(conns, rig.dial(t, "/api/v4/websocket"))
	}
	eventually(t, "two on each", open(2, 2))
	if resp, _ := rig.get("/plugins/gone/ws", "Connection", "Upgrade", "Upgrade", "websocket"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
	eventually(t, "the refused one is forgotten", open(2, 2))
	for _, c := range conns {
		_ = c.Close(websocket.StatusNormalClosure, "")
	}
	eventually(t, "none", open(0, 0))
}

// A connection that breaks before the answer costs no pause if there is another
// upstream.
func TestBrokenConnectionIsRetriedElsewhereAtOnce(t *testing.T) {
	good := startMattermost(t)
	p := newTestPool(t, dyingOnce(t, 1000), good.url()) // hold is 0: nobody waits
	for range 20 {
		resp, _, err := p.send(request(t, http.MethodGet, "http://x/", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if u := p.upstreams[0]; u.level() != ill || u.reason.Load() == nil {
		t.Errorf("it broke off every time, but is in state %d", u.level())
	}
}

func TestBadAnswersInARowMakeSuspect(t *testing.T) {
	u := &upstream{}
	for range 10 * strikesOut {
		u.answered(http.StatusBadGateway, 0)
		u.answered(http.StatusInternalServerError, 0) // an answer of Mattermost's own
	}
	if u.level() != healthy {
		t.Error("avoided, although every other answer was good")
	}
	for range strikesOut {
		u.answered(http.StatusServiceUnavailable, 0)
	}
	if u.level() != ill {
		t.Error("not avoided")
	}
	u.suspect.Store(time.Now().Add(-time.Second).UnixNano())
	if u.level() != healthy {
		t.Error("avoided beyond its time")
	}
}

func TestUpstreamOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isWebSocket(r) {
			echo(w, r)
			return
		}
		_, _ = io.WriteString(w, "local "+r.Host)
	}))
	server.Listener = ln
	server.Start()
	defer server.Close()
	other := startMattermost(t)
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{"unix:" + path, other.url()} })
	local := 0
	for range 4 {
		if resp, body := rig.get("/"); resp.StatusCode == 200 && body == "local "+rig.host {
			local++
		}
	}
	if local != 2 {
		t.Errorf("%d of 4 answers came from the socket", local)
	}
	other.stop()
	c := rig.dial(t, "/ws")
	exchangeText(t, c, "hello")
	_ = c.Close(websocket.StatusNormalClosure, "")
	if err := rig.settings.Load().pool.probe(t.Context(), rig.settings.Load().pool.upstreams[0], "x"); err != nil {
		t.Errorf("probe: %v", err)
	}
}

// A node whose certificate nobody vouches for cannot be asked for anything: that
// is as good as not reaching it.
func TestUntrustedUpstreamIsAway(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	p := newTestPool(t, secure.URL, "http://"+secure.Listener.Addr().String())
	if _, err := p.dial(t.Context(), p.upstreams[0]); !isDial(err) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("over https: %v", err)
	}
	conn, err := p.dial(t.Context(), p.upstreams[1])
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestUpstreamAddresses(t *testing.T) {
	for raw, want := range map[string]string{
		"http://mattermost": "mattermost:80", "https://mattermost/": "mattermost:443", "http://mattermost:8065": "mattermost:8065",
		"http://[::1]": "[::1]:80", "https://[::1]:8065": "[::1]:8065", "unix:/run/x.sock": "2f72756e2f782e736f636b.unix:80",
	} {
		u, err := newUpstream(raw)
		if err != nil || u.address() != want {
			t.Errorf("%s: %v, %v", raw, u, err)
		}
	}
}
