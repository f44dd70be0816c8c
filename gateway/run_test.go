package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway/admin"
	"sallyport/sfu"
	"sallyport/sfu/wire"
)

// A quiet participant: nobody answers its offers.
type quiet struct{ closed chan struct{} }

func (q quiet) Answer(wire.Description)  {}
func (q quiet) Offer(wire.Description)   {}
func (q quiet) Candidate(wire.Candidate) {}
func (q quiet) Voice(bool)               {}
func (q quiet) Closed()                  { close(q.closed) }

func join(t *testing.T, g *testGateway, session string) (*sfu.Session, quiet) {
	t.Helper()
	q := quiet{make(chan struct{})}
	s, err := g.sfu.Join(sfu.Member{Group: "g", Call: "c", User: "u", Session: session, Channel: "ch"}, q)
	if err != nil {
		t.Fatal(err)
	}
	return s, q
}

func TestDrainWaitsForTheCallAndOnlyForIt(t *testing.T) {
	g := startGateway(t, nil)
	s, _ := join(t, g, "one")
	g.Drain()
	g.Drain() // twice is once
	if code, body := adminGet(t, g, "/readyz"); code != 503 || strings.TrimSpace(body) != admin.Draining {
		t.Errorf("/readyz while draining: %d %s", code, body)
	}
	if _, err := g.sfu.Join(sfu.Member{Group: "g", Call: "c", User: "u", Session: "two"}, quiet{make(chan struct{})}); !errors.Is(err, sfu.ErrDraining) {
		t.Errorf("join while draining: %v", err)
	}
	resp, err := http.Get("http://" + g.Addrs().API + "/system")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode < 500 {
		t.Errorf("/system while draining: %d", resp.StatusCode)
	}
	talk(t, g.Addrs().HTTPS, "/api/v4/websocket") // everything else goes on
	probeTURN(t, g, "tls")
	if g.sfu.Count() != 1 {
		t.Errorf("%d sessions", g.sfu.Count())
	}
	s.Leave()
	if err := g.wait(); err != nil {
		t.Errorf("Run after a drain: %v", err)
	}
	if _, err := net.Dial("tcp", g.Addrs().HTTPS); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port is still open: %v", err)
	}
}

func TestDrainBeforeRun(t *testing.T) {
	tg := &testGateway{log: &logLines{}}
	g, err := New(testConfig(startMattermost(t)), tg.options())
	if err != nil {
		t.Fatal(err)
	}
	if s := g.Status().State; s != admin.Starting {
		t.Errorf("before Run: %s", s)
	}
	g.Drain()
	if err := g.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if g.ready() || g.Status().State != admin.Draining {
		t.Errorf("afterwards: %s", g.Status().State)
	}
}

// TestDrainServesUntilTheEnd: while the WebSockets are closed one after the other
// everything else goes on, and whoever lost his may have a new one.
func TestDrainServesUntilTheEnd(t *testing.T) {
	g := startGateway(t, func(c *Config) { c.Drain.WebsocketSpread = 40 * time.Second })
	ended := make(chan error, 20)
	for range cap(ended) { // one every 2 s
		c := openedSocket(t, g)
		go func() {
			_, _, err := c.Read(t.Context())
			ended <- err
		}()
	}
	g.Drain()
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the first one to go: %v", err)
	}
	again := openedSocket(t, g)
	g.cancel()
	if _, _, err := again.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("one that was opened meanwhile: %v", err)
	}
	if err := g.wait(); err != nil {
		t.Error(err)
	}
}

// TestDrainWaitsForRequests: one that is under way ends, and as long as it lasts
// nobody else notices.
func TestDrainWaitsForRequests(t *testing.T) {
	g := startGateway(t, nil)
	c := client(nil, "http/1.1")
	defer c.CloseIdleConnections()
	slow := make(chan int, 1)
	go func() {
		resp, _ := ask(t, c, request(t, http.MethodGet, "https://"+g.Addrs().HTTPS+"/plugins/slow", ""))
		slow <- resp.StatusCode
	}()
	eventually(t, "it is under way", func() bool { return g.secure.early.Load().count() == 1 })
	g.Drain()
	eventually(t, "it is waited for", func() bool { return g.secure.early.Load().count() == 0 })
	talk(t, g.Addrs().HTTPS, "/api/v4/websocket")
	close(g.mm.stall)
	if status := <-slow; status != http.StatusOK {
		t.Errorf("it was answered %d", status)
	}
	if err := g.wait(); err != nil {
		t.Error(err)
	}
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func openedSocket(t *testing.T, g *testGateway) *websocket.Conn {
	t.Helper()
	c, err := openSocket(t, g.Addrs().HTTPS, "/api/v4/websocket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func TestDrainGivesUpInTime(t *testing.T) {
	g := startGateway(t, func(c *Config) { c.Drain.Timeout = 300 * time.Millisecond })
	_, q := join(t, g, "one")
	g.Drain()
	if err := g.wait(); err != nil {
		t.Error(err)
	}
	<-q.closed // the participant is told
	if len(g.log.with("drain timeout")) != 1 {
		t.Error("not logged")
	}
}

func TestCancelDuringDrainStopsAtOnce(t *testing.T) {
	g := startGateway(t, func(c *Config) { c.Drain = Drain{Timeout: time.Hour, WebsocketSpread: time.Hour} })
	_, q := join(t, g, "one")
	g.Drain()
	begin := time.Now()
	g.cancel()
	if err := g.wait(); err != nil {
		t.Error(err)
	}
	<-q.closed
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAFailingPartStopsAll(t *testing.T) {
	mm := startMattermost(t)
	tg := &testGateway{log: &logLines{}}
	g, err := New(testConfig(mm), tg.options())
	if err != nil {
		t.Fatal(err)
	}
	_ = g.sockets.admin.Close() // under its feet
	done := make(chan error, 1)
	go func() { done <- g.Run(context.Background()) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "admin: ") {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run goes on without its admin listener")
	}
}
