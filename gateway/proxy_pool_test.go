package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestARestartOfMattermostIsNotSeen(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.Hold = 20 * time.Second })
	rig.get("/") // so that there is a connection to lose
	rig.mm.stop()
	type answer struct {
		status int
		body   string
		err    error
	}
	const n = 20
	answers := make(chan answer, 2*n)
	send := func(c *http.Client, method, body string) {
		resp, err := c.Do(request(t, method, rig.url("/plugins/mirror/"), body))
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer func() { _ = resp.Body.Close() }()
		got, err := io.ReadAll(resp.Body)
		answers <- answer{resp.StatusCode, string(got), err}
	}
	for i := range n {
		go send([]*http.Client{rig.h1, rig.h2}[i%2], http.MethodGet, "")
	}
	up := rig.settings.Load().pool.upstreams[0]
	eventually(t, "upstream seen as down", func() bool { return up.level() != healthy })
	// Not earlier: a POST into the connection that is just dying may have been
	// carried out, so it must fail.
	for i := range n {
		go send([]*http.Client{rig.h1, rig.h2}[i%2], http.MethodPost, "keep me")
	}
	eventually(t, "all requests wait", func() bool { return metric(rig.metrics.inFlight) == 2*n })
	if nodeMetric(t, rig.metrics.nodes, "sallyport_upstream_up", up.name) != 0 {
		t.Error("sallyport_upstream_up is not 0")
	}
	time.AfterFunc(1200*time.Millisecond, rig.mm.start)
	posts := 0
	for range 2 * n {
		a := <-answers
		if a.err != nil || a.status != http.StatusOK {
			t.Errorf("%d %v", a.status, a.err)
		}
		if strings.Contains(a.body, `"Body":"keep me"`) {
			posts++
		}
	}
	if posts != n {
		t.Errorf("%d of %d POSTs arrived with their body", posts, n)
	}
	if nodeMetric(t, rig.metrics.nodes, "sallyport_upstream_up", up.name) != 1 {
		t.Error("sallyport_upstream_up is not 1 again")
	}
}

// The same while requests come and go without pause, some of them under way
// when the process dies.
func TestNoRequestFailsDuringARestart(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.Hold = 20 * time.Second })
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var good atomic.Int64
	for i := range 8 {
		wait.Go(func() {
			c := []*http.Client{rig.h1, rig.h2}[i%2]
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Do(request(t, http.MethodGet, rig.url("/"), ""))
				if err != nil {
					t.Errorf("request: %v", err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("status %d, %v, log: %s", resp.StatusCode, err, rig.log.with(" status=502 "))
				}
				_ = resp.Body.Close()
				good.Add(1)
			}
		})
	}
	for range 3 {
		before := good.Load()
		eventually(t, "requests succeed", func() bool { return good.Load() > before+50 })
		rig.mm.stop()
		eventually(t, "the upstream is down", func() bool { return rig.settings.Load().pool.upstreams[0].level() != healthy })
		rig.mm.start()
	}
	before := good.Load()
	eventually(t, "requests succeed again", func() bool { return good.Load() > before+50 })
	close(stop)
	wait.Wait()
}

func TestHoldEndsWithAPage(t *testing.T) {
	const hold = 600 * time.Millisecond
	rig := startProxy(t, func(c *Config) { c.Proxy.Hold = hold })
	rig.mm.stop()
	begin := time.Now()
	resp, _ := rig.get("/")
	if took := time.Since(begin); resp.StatusCode != http.StatusBadGateway || took < hold {
		t.Errorf("status %d after %s", resp.StatusCode, took)
	}
}

func TestHeldRequestEndsWithItsClient(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.Hold = time.Hour })
	rig.mm.stop()
	ctx, cancel := context.WithCancel(t.Context())
	r := request(t, http.MethodGet, rig.url("/"), "").WithContext(ctx)
	done := make(chan error, 1)
	go func() {
		resp, err := rig.h2.Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	eventually(t, "request is held", func() bool { return metric(rig.metrics.inFlight) == 1 })
	cancel()
	<-done
	eventually(t, "request is gone", func() bool { return metric(rig.metrics.inFlight) == 0 })
}

func TestWaitingRequestsDialTogether(t *testing.T) {
	var dials atomic.Int64
	p, err := newPool([]string{"http://mattermost.invalid"}, Proxy{Hold: time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.quick.dial = func(context.Context, *upstream) (net.Conn, error) {
		dials.Add(1)
		return nil, &dialError{net.ErrClosed}
	}
	p.upstreams[0].failed(&dialError{net.ErrClosed})
	var wait sync.WaitGroup
	for range 200 {
		wait.Go(func() {
			if _, _, err := p.send(httptest.NewRequest(http.MethodGet, "/", nil), nil); err == nil {
				t.Error("answered by nobody")
			}
		})
	}
	wait.Wait()
	// One each 225 ms in 1 s, and one for a scheduler that is late.
	if n := dials.Load(); n < 1 || n > 6 {
		t.Errorf("%d dials for 200 waiting requests", n)
	}
}

func TestSeveralUpstreams(t *testing.T) {
	one, two := startMattermost(t), startMattermost(t)
	served := map[string]int{}
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{one.url(), two.url()} })
	hit := func() string { // which one answered
		resp, u, err := rig.settings.Load().pool.send(request(t, http.MethodGet, "http://x/", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return u.host
	}
	for range 10 {
		served[hit()]++
	}
	if served[one.addr] != 5 || served[two.addr] != 5 {
		t.Errorf("not in turn: %v", served)
	}
	one.stop()
	for range 10 {
		if to := hit(); to != two.addr {
			t.Errorf("answered by %s", to)
		}
	}
	ups := rig.settings.Load().pool.upstreams
	eventually(t, "one is seen as down", func() bool { return ups[0].level() != healthy })
	one.start()
	judge(ups, []error{rig.settings.Load().pool.probe(t.Context(), ups[0], "x"), nil}, map[*upstream]int{})
	if ups[0].level() != healthy {
		t.Error("the probe did not see it come back")
	}
}

func TestProbeNeedsTwoSlowAnswers(t *testing.T) {
	u, misses := &upstream{}, map[*upstream]int{}
	judge([]*upstream{u}, []error{context.DeadlineExceeded}, misses)
	if u.level() != healthy {
		t.Error("down after one slow answer")
	}
	judge([]*upstream{u}, []error{nil}, misses)
	judge([]*upstream{u}, []error{context.DeadlineExceeded}, misses)
	if u.level() != healthy {
		t.Error("down after two slow answers with a good one between")
	}
	judge([]*upstream{u}, []error{context.DeadlineExceeded}, misses)
	if u.level() == healthy {
		t.Error("up after two slow answers")
	}
	v := &upstream{}
	judge([]*upstream{v}, []error{&dialError{net.ErrClosed}}, misses)
	if v.level() == healthy {
		t.Error("up although it cannot be dialled")
	}
	if len(misses) != 1 {
		t.Errorf("%d upstreams remembered, one is in use", len(misses))
	}
}

// A Mattermost that is slow to answer probes is better than none: its users get
// their pages as fast as it gives them, and it counts as up again when a probe
// says so, not with each of those pages.
func TestSlowUpstreamIsUsedIfThereIsNoOther(t *testing.T) {
	slow, other := startMattermost(t), startMattermost(t)
	rig := startProxy(t, func(c *Config) {
		c.Proxy.Hold = time.Minute
		c.Upstream = []string{slow.url(), other.url()}
	})
	ups, misses := rig.settings.Load().pool.upstreams, map[*upstream]int{}
	other.stop()
	for range probeMisses {
		judge(ups, []error{context.DeadlineExceeded, &dialError{net.ErrClosed}}, misses)
	}
	for range 10 { // at once after the probe: one that is away would not be tried yet
		ups[0].failed(context.DeadlineExceeded)
		ups[1].failed(&dialError{net.ErrClosed})
		r := request(t, http.MethodGet, "http://x/", "")
		resp, _, err := rig.settings.Load().pool.send(r, nil)
		if err != nil {
			t.Fatalf("a slow upstream is treated as if it were away: %v", err)
		}
		_ = resp.Body.Close()
	}
	if ups[0].level() == healthy {
		t.Error("up again because of answers, although no probe found it quick")
	}
	judge(ups, []error{nil, &dialError{net.ErrClosed}}, misses)
	if ups[0].level() != healthy {
		t.Error("down although a probe found it quick")
	}
}

// dyingOnce accepts, lets the first connections die before they answer, and
// serves the rest.
func dyingOnce(t *testing.T, dead int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rest := &handOver{Listener: ln, dead: dead}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive") })}
	go func() { _ = server.Serve(rest) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + ln.Addr().String()
}

type handOver struct {
	net.Listener
	dead int
}

func (h *handOver) Accept() (net.Conn, error) {
	for {
		c, err := h.Listener.Accept()
		if err != nil || h.dead == 0 {
			return c, err
		}
		h.dead--
		_, _ = c.Read(make([]byte, 1)) // the request has been sent
		_ = c.Close()
	}
}

func TestBrokenConnectionsAreRetriedIfThatIsSafe(t *testing.T) {
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodPost: 502} {
		rig := startProxy(t, func(c *Config) {
			c.Proxy.Hold = 10 * time.Second
			c.Upstream = []string{dyingOnce(t, 2)}
		})
		body := ""
		if method == http.MethodPost {
			body = "order one pizza"
		}
		if resp, _ := ask(t, rig.h1, request(t, method, rig.url("/"), body)); resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", method, resp.StatusCode, want)
		}
	}
}

func TestUpstreamsThatCannotBe(t *testing.T) {
	for _, urls := range [][]string{nil, {"127.0.0.1:8065"}, {"ftp://x"}, {"http://"}, {"http://%zz"}} {
		if _, err := newPool(urls, Proxy{}, nil); err == nil {
			t.Errorf("%q: no error", urls)
		}
	}
}
