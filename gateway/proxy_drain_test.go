package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway/admin"
)

// watched runs the part that probes and empties upstreams for as long as the test.
func (rig *proxyRig) watched(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rig.watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
}

func TestDrainOfOneUpstream(t *testing.T) {
	one, two := startMattermost(t), startMattermost(t)
	rig := startProxy(t, func(c *Config) {
		c.Upstream = []string{one.url(), two.url()}
		c.Drain.WebsocketSpread = 200 * time.Millisecond
	})
	rig.watched(t)
	ups := rig.settings.Load().pool.upstreams
	var conns []*websocket.Conn
	for range 6 {
		conns = append(conns, rig.dial(t, "/api/v4/websocket"))
	}
	slow := make(chan *http.Response, 2)
	for range 2 { // one on each
		go func() {
			resp, _ := ask(t, rig.h1, request(t, http.MethodGet, rig.url("/plugins/slow"), ""))
			slow <- resp
		}()
	}
	eventually(t, "both are busy", func() bool { return ups[0].busy.Load() == 1 && ups[1].busy.Load() == 1 })

	if err := rig.setDrained(one.url()+"/", true, false); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, len(conns))
	for _, c := range conns {
		go func() {
			_, _, err := c.Read(t.Context())
			ended <- err
		}()
	}
	for range 3 {
		if err := <-ended; websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("a WebSocket of the drained upstream: %v", err)
		}
	}
	eventually(t, "no WebSocket is left there", func() bool { return ups[0].open.Load() == 0 })
	if n := ups[1].open.Load(); n != 3 {
		t.Errorf("%d WebSockets are left on the other one", n)
	}
	for range 6 { // clients come back, and all else goes on
		conns = append(conns, rig.dial(t, "/api/v4/websocket"))
		rig.get("/")
	}
	if a, b := ups[0].open.Load(), ups[1].open.Load(); a != 0 || b != 9 {
		t.Errorf("%d and %d WebSockets", a, b)
	}
	if n := ups[0].busy.Load(); n != 1 {
		t.Errorf("%d requests under way on the drained one, not the one it had", n)
	}
	close(one.stall)
	if resp := <-slow; resp.StatusCode != http.StatusOK {
		t.Errorf("the request under way was answered %d", resp.StatusCode)
	}
	close(two.stall)
	<-slow
	if s := rig.upstreams()[0]; s.State != admin.UpstreamDrained || !s.Up {
		t.Errorf("status: %+v", s)
	}
	if nodeMetric(t, rig.metrics.nodes, "sallyport_upstream_drained", one.addr) != 1 {
		t.Error("sallyport_upstream_drained is not 1")
	}

	if err := rig.setDrained(two.url(), true, false); !errors.Is(err, errLastUpstream) {
		t.Errorf("the last one may be drained: %v", err)
	}
	if err := rig.setDrained("http://mattermost", true, false); err == nil {
		t.Error("an unknown one may be drained")
	}
	if err := rig.setDrained(one.addr, false, false); err != nil {
		t.Fatal(err)
	}
	conns = append(conns, rig.dial(t, "/api/v4/websocket"))
	if n := ups[0].open.Load(); n != 1 {
		t.Error("the one that was put back gets no WebSocket")
	}
	for _, c := range conns {
		_ = c.CloseNow()
	}
}

// When every upstream is drained, nobody waits for one, and users are told that
// it is no failure; even those who have waited since the last one went away.
func TestAllUpstreamsDrained(t *testing.T) {
	one, two := startMattermost(t), startMattermost(t)
	rig := startProxy(t, func(c *Config) {
		c.Upstream = []string{one.url(), two.url()}
		c.Proxy.Hold = time.Hour
	})
	if err := rig.setDrained(one.url(), true, false); err != nil {
		t.Fatal(err)
	}
	two.stop()
	waited := make(chan *http.Response, 1)
	go func() {
		resp, _ := ask(t, rig.h2, request(t, http.MethodPost, rig.url("/api/v4/posts"), "{}"))
		waited <- resp
	}()
	eventually(t, "a request waits for the second one", func() bool { return metric(rig.metrics.heldNow) == 1 })
	if err := rig.setDrained(two.url(), true, true); err != nil {
		t.Fatal(err)
	}
	if resp := <-waited; resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "30" {
		t.Errorf("what has waited was answered %s, %v", resp.Status, resp.Header)
	}
	rig.both(func(t *testing.T, c *http.Client) {
		resp, page := ask(t, c, request(t, http.MethodGet, rig.url("/"), "", "Accept", "text/html"))
		if resp.StatusCode != 503 || !strings.Contains(page, "under maintenance") || !strings.Contains(page, `http-equiv="refresh" content="30"`) {
			t.Errorf("%s %s", resp.Status, page)
		}
		if _, body := ask(t, c, request(t, http.MethodPut, rig.url("/api/v4/users/me"), "{}")); !strings.Contains(body, `"id":"sallyport.upstream.maintenance"`) {
			t.Error(body)
		}
	})
	if _, err := rig.tryDial(t, "/api/v4/websocket"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a WebSocket: %v", err)
	}
	if got := metric(rig.metrics.maintained); got != 6 {
		t.Errorf("sallyport_upstream_maintenance_total is %v", got)
	}
	if got := metric(rig.metrics.held); got != 1 {
		t.Errorf("%v requests had to wait", got)
	}
	if len(rig.log.with("every upstream is drained: users are told")) != 1 || len(rig.log.with(`err="every upstream is drained"`)) != 6 {
		t.Errorf("log:\n%s", rig.log.with("drained"))
	}
	if err := rig.setDrained(one.url(), false, false); err != nil {
		t.Fatal(err)
	}
	if resp, _ := rig.get("/"); resp.StatusCode != http.StatusOK {
		t.Errorf("after undrain: %s", resp.Status)
	}
}

// A reload may leave those alone that are drained: then it says what that means.
func TestReloadThatLeavesTheDrained(t *testing.T) {
	other := startMattermost(t)
	tg := startGateway(t, func(c *Config) { c.Upstream = append(c.Upstream, other.url()) })
	if err := tg.proxy.setDrained(other.url(), true, false); err != nil {
		t.Fatal(err)
	}
	cfg := tg.config()
	cfg.Upstream = []string{other.url()}
	const line = "every upstream is drained"
	if n := len(tg.log.with(line)); n != 0 {
		t.Errorf("%d warnings before", n)
	}
	if _, err := tg.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if n := len(tg.log.with(line)); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// A reload that keeps an upstream keeps what is known about it; one that drops it
// lets the requests under way end, and its metrics go.
func TestReloadOfUpstreams(t *testing.T) {
	one, two, three := startMattermost(t), startMattermost(t), startMattermost(t)
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{one.url(), two.url()} })
	if err := rig.setDrained(two.url(), true, false); err != nil {
		t.Fatal(err)
	}
	slow := make(chan *http.Response, 1)
	go func() {
		resp, _ := ask(t, rig.h1, request(t, http.MethodGet, rig.url("/plugins/slow"), ""))
		slow <- resp
	}()
	c := rig.dial(t, "/api/v4/websocket")
	first := rig.settings.Load().pool.upstreams[0]
	eventually(t, "it is busy", func() bool { return first.busy.Load() == 1 })

	cfg := Default()
	cfg.Upstream = []string{two.url(), three.url()}
	pool, err := newPool(cfg.Upstream, cfg.Proxy, rig.settings.Load().pool.upstreams)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSettings(cfg, pool)
	if err != nil {
		t.Fatal(err)
	}
	rig.use(s)
	for range 4 {
		rig.get("/")
	}
	for name, want := range map[string]float64{one.addr: -1, two.addr: 0, three.addr: 4} {
		if n := nodeMetric(t, rig.metrics.answers, "sallyport_upstream_requests_total", name); want < 0 && n != want {
			t.Errorf("%s is gone, its metrics are not: %v", name, n)
		}
		if n := metric(rig.metrics.answers.WithLabelValues(name, "2xx")); want >= 0 && n != want {
			t.Errorf("%s answered %v", name, n)
		}
	}
	if rig.upstreams()[0].State != admin.UpstreamDrained {
		t.Error("a reload has put back what was drained")
	}
	exchangeText(t, c, "still here")
	close(one.stall)
	if resp := <-slow; resp.StatusCode != http.StatusOK {
		t.Errorf("the request under way was answered %d", resp.StatusCode)
	}
}

// The ping must be answered 200, twice in a row not is ill, and its costly form is
// never asked for.
func TestPingDecidesHealth(t *testing.T) {
	var status atomic.Int64
	var asked atomic.Value
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Host + " " + r.RequestURI)
		w.WriteHeader(int(status.Load()))
	}))
	defer node.Close()
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{node.URL} })
	pool, misses := rig.settings.Load().pool, map[*upstream]int{}
	u := pool.upstreams[0]
	for i, step := range []struct {
		status int
		want   int32
	}{{200, healthy}, {500, healthy}, {503, ill}, {404, ill}, {200, healthy}, {503, healthy}, {200, healthy}} {
		status.Store(int64(step.status))
		judge(pool.upstreams, []error{pool.probe(t.Context(), u, "chat.example.com")}, misses)
		if u.level() != step.want {
			t.Errorf("step %d: answer %d makes it %d", i, step.status, u.level())
		}
	}
	if got := asked.Load(); got != "chat.example.com /api/v4/system/ping" {
		t.Errorf("asked for %s", got)
	}
	status.Store(500)
	for range probeMisses {
		judge(pool.upstreams, []error{pool.probe(t.Context(), u, "x")}, misses)
	}
	if s := rig.upstreams()[0]; s.State != admin.UpstreamIll || s.Error != "bad answer to the health check /api/v4/system/ping: 500 Internal Server Error" {
		t.Errorf("status: %+v", s)
	}
	if resp, _ := rig.get("/"); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("the only one there is, ill or not, is not asked: %d", resp.StatusCode)
	}
}
