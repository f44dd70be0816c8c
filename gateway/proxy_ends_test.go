package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// breakingOff answers every request with half of what it announces.
func breakingOff(t *testing.T, head string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, head)
		_ = c.Close()
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + ln.Addr().String()
}

// An upstream that dies in the middle of an answer is a failure of ours to
// whoever looks at the counters, although the client got a 200.
func TestAnswersThatBreakOffAreCounted(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			rig := startProxy(t, func(c *Config) { c.Upstream = []string{breakingOff(t, head)} })
			rig.both(func(t *testing.T, c *http.Client) {
				before := metric(rig.metrics.requests["GET"]["5xx"])
				resp, err := c.Do(request(t, http.MethodGet, rig.url("/"), ""))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				if err == nil {
					t.Error("half an answer looks whole to the client")
				}
				eventually(t, "a 5xx is counted", func() bool { return metric(rig.metrics.requests["GET"]["5xx"]) == before+1 })
			})
			if n := metric(rig.metrics.broken); n != 2 {
				t.Errorf("%v broken answers counted", n)
			}
			if n := metric(rig.metrics.requests["GET"]["2xx"]); n != 0 {
				t.Errorf("%v counted as 2xx", n)
			}
			if lines := rig.log.with("level=INFO"); len(lines) == 0 || !strings.Contains(lines[0], errBrokenOff.Error()) {
				t.Errorf("logged: %q", lines)
			}
		})
	}
}

// A client that has left is nobody's failure.
func TestClientsThatLeaveAreNoFailure(t *testing.T) {
	t.Run("held", func(t *testing.T) {
		rig := startProxy(t, func(c *Config) { c.Proxy.Hold = time.Hour })
		rig.mm.stop()
		rig.both(func(t *testing.T, c *http.Client) {
			before := metric(rig.metrics.requests["GET"]["none"])
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			left := make(chan struct{})
			go func() {
				defer close(left)
				if resp, err := c.Do(request(t, http.MethodGet, rig.url("/"), "").WithContext(ctx)); err == nil {
					_ = resp.Body.Close()
				}
			}()
			eventually(t, "request is held", func() bool { return metric(rig.metrics.inFlight) == 1 })
			cancel()
			<-left
			eventually(t, "counted as none", func() bool { return metric(rig.metrics.requests["GET"]["none"]) == before+1 })
		})
	})
	t.Run("in an upload", func(t *testing.T) {
		rig := startProxy(t, nil)
		for i, size := range []string{"Content-Length: 100000\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
			conn := rig.rawTLS(t, "http/1.1")
			mustWrite(t, conn, "POST /api/v4/uploads/1 HTTP/1.1\r\nHost: x\r\n"+size)
			if got := <-rig.mm.bodies; got != "half" {
				t.Fatalf("Mattermost got %q", got)
			}
			_ = conn.Close()
			eventually(t, "counted as none", func() bool { return metric(rig.metrics.requests["POST"]["none"]) == float64(i+1) })
		}
		if lines := rig.log.with("level=INFO"); len(lines) > 0 {
			t.Errorf("logged: %q", lines)
		}
	})
}

// Programs get errors they can read, also where SiteURL has a path.
func TestProgramsGetJSON(t *testing.T) {
	for path, want := range map[string]bool{
		"/api/v4/users": true, "/api/unknown": true, "/chat/api/v4/users": true, "/a/b/api/v4/system/ping": true,
		"/": false, "/team/channels/api": false, "/chat/login": false,
	} {
		if got := wantsJSON(request(t, http.MethodGet, "https://x"+path, "", "Accept", "*/*")); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
