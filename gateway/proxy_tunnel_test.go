package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dial opens a WebSocket through the proxy with the Origin a browser would send.
func (rig *proxyRig) dial(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	c, err := rig.tryDial(t, path)
	if err != nil {
		t.Fatalf("dial %s: %v", path, err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func (rig *proxyRig) tryDial(t *testing.T, path string) (*websocket.Conn, error) {
	c, resp, err := websocket.Dial(t.Context(), "wss://"+rig.host+path, &websocket.DialOptions{
		HTTPClient: rig.h1, HTTPHeader: http.Header{"Origin": {"https://" + rig.host}},
	})
	if resp != nil && resp.Body != nil && err != nil {
		_ = resp.Body.Close()
	}
	return c, err
}

func exchangeText(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != text {
		t.Fatalf("echo of %d bytes: %d bytes, %v", len(text), len(got), err)
	}
}

func TestWebSocketOnAnyPath(t *testing.T) {
	rig := startProxy(t, nil)
	for _, path := range []string{
		"/api/v4/websocket?connection_id=a&sequence_number=3", "/api/v4/websocket/", "/plugins/focalboard/ws",
	} {
		c := rig.dial(t, path)
		c.SetReadLimit(1 << 20)
		exchangeText(t, c, "hello")
		exchangeText(t, c, strings.Repeat("x", 300<<10))
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("%s: close: %v", path, err)
		}
	}
	eventually(t, "three opened, three closed", func() bool {
		m := rig.metrics
		closed := metric(m.wsClosed.WithLabelValues(endedByClient)) + metric(m.wsClosed.WithLabelValues(endedByUpstream))
		return metric(m.wsOpened) == 3 && closed == 3 && metric(m.wsOpen) == 0
	})
	eventually(t, "101 counted, nothing in flight", func() bool {
		return metric(rig.metrics.requests["GET"]["1xx"]) == 3 && metric(rig.metrics.inFlight) == 0
	})
}

func TestWhoEndedAWebSocketIsCounted(t *testing.T) {
	rig := startProxy(t, nil)
	_ = rig.dial(t, "/api/v4/websocket").CloseNow()
	eventually(t, "ended by the client", func() bool {
		return metric(rig.metrics.wsClosed.WithLabelValues(endedByClient)) == 1
	})
	c := rig.dial(t, "/api/v4/websocket")
	exchangeText(t, c, "hello")
	if err := c.Write(t.Context(), websocket.MessageText, []byte("bye")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("Mattermost's close frame: %v", err)
	}
}

func TestRefusedHandshakePassesThrough(t *testing.T) {
	rig := startProxy(t, nil)
	_, resp, err := websocket.Dial(t.Context(), "wss://"+rig.host+"/plugins/gone/ws", &websocket.DialOptions{HTTPClient: rig.h1})
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden || resp.Header.Get("X-Request-Id") != "upstream-id" {
		t.Fatalf("%v, %+v", err, resp)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "blocked origin\n" {
		t.Errorf("body %q %v", body, err)
	}
	if lines := rig.log.with("websocket handshake refused"); len(lines) != 1 || !strings.Contains(lines[0], "status=403") || !strings.Contains(lines[0], "request=upstream-id") || !strings.Contains(lines[0], `reason="blocked origin"`) {
		t.Errorf("log: %q", lines)
	}
	// Mattermost compares Origin with Host: a foreign one must fail there.
	_, resp, err = websocket.Dial(t.Context(), "wss://"+rig.host+"/api/v4/websocket", &websocket.DialOptions{
		HTTPClient: rig.h1, HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
	})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %v %v", err, resp)
	}
	if n := rig.tunnels.count(); n != 0 {
		t.Errorf("%d tunnels", n)
	}
}

func TestWebSocketWithMattermostDown(t *testing.T) {
	rig := startProxy(t, nil)
	rig.mm.stop()
	_, resp, err := websocket.Dial(t.Context(), "wss://"+rig.host+"/api/v4/websocket", &websocket.DialOptions{HTTPClient: rig.h1})
	if err == nil || resp.StatusCode != http.StatusBadGateway || resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("%v %+v", err, resp)
	}
}

func TestIdleWebSocketEnds(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.WebsocketIdle = 3 * time.Second })
	c := rig.dial(t, "/api/v4/websocket")
	exchangeText(t, c, "still here")
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("idle: %v", err)
	}
	eventually(t, "counted as idle", func() bool { return metric(rig.metrics.wsClosed.WithLabelValues(endedIdle)) == 1 })
}

func TestDrainClosesWebSocketsOverTheSpread(t *testing.T) {
	const spread = 400 * time.Millisecond
	var gap time.Duration
	for range 3 { // who stands still meanwhile sees them all at once
		if gap = drainOver(t, spread); gap >= spread/2 {
			return
		}
	}
	t.Errorf("all within %s of a spread of %s", gap, spread)
}

// drainOver returns what lies between the first and the last end of a WebSocket.
func drainOver(t *testing.T, spread time.Duration) time.Duration {
	t.Helper()
	const n = 8
	rig := startProxy(t, func(c *Config) { c.Drain.WebsocketSpread = spread })
	type ending struct {
		at  time.Time
		err error
	}
	ended := make(chan ending, n)
	for range n {
		c := rig.dial(t, "/api/v4/websocket")
		exchangeText(t, c, "hello")
		go func() {
			_, _, err := c.Read(context.Background())
			ended <- ending{time.Now(), err}
		}()
	}
	begin := time.Now()
	rig.stop()
	var first, last time.Time
	for range n {
		e := <-ended
		if websocket.CloseStatus(e.err) != websocket.StatusServiceRestart {
			t.Errorf("ended with %v", e.err)
		}
		if first.IsZero() || e.at.Before(first) {
			first = e.at
		}
		if e.at.After(last) {
			last = e.at
		}
	}
	if took := time.Since(begin); took < spread {
		t.Errorf("stopped after %s, before the spread of %s was over", took, spread)
	}
	eventually(t, "all counted as drained", func() bool {
		return metric(rig.metrics.wsClosed.WithLabelValues(endedByDrain)) == n
	})
	return last.Sub(first)
}

func TestStopInAHurryWaitsForNobody(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Drain.WebsocketSpread = time.Hour })
	c := rig.dial(t, "/api/v4/websocket")
	exchangeText(t, c, "hello")
	answered := make(chan error, 1)
	go func() {
		resp, err := rig.h1.Do(request(t, http.MethodGet, rig.url("/plugins/slow"), ""))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		answered <- err
	}()
	eventually(t, "request in flight", func() bool { return metric(rig.metrics.inFlight) == 1 })
	rig.hurry()
	begin := time.Now()
	rig.stop()
	if took := time.Since(begin); took > 10*stopLimit {
		t.Errorf("took %s", took)
	}
	if err := <-answered; err == nil {
		t.Error("the slow request was answered by nobody knows whom")
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("WebSocket still open")
	}
	close(rig.mm.stall)
}
