package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPanicIsLoggedWhereSomebodyLooks(t *testing.T) {
	for name, c := range map[string]struct {
		value any
		want  bool // a line
	}{
		"mistake": {"index out of range", true},
		"abort":   {http.ErrAbortHandler, false}, // how a proxy ends an answer that broke off
	} {
		t.Run(name, func(t *testing.T) {
			log := &logLines{}
			s := newSite(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(c.value) }),
				slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError})))
			func() {
				defer func() {
					if v := recover(); v != http.ErrAbortHandler {
						t.Errorf("panics with %v, want http.ErrAbortHandler", v)
					}
				}()
				s.server.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/hooks/secret", nil))
			}()
			lines := strings.Join(log.with(""), "")
			if got := strings.Contains(lines, "index out of range"); got != c.want {
				t.Errorf("log %q", lines)
			}
			if strings.Contains(lines, "secret") {
				t.Errorf("the log has the webhook's id: %q", lines)
			}
		})
	}
}

// TestTraceIsRefused: what a browser keeps from scripts, an answer to TRACE
// would show them.
func TestTraceIsRefused(t *testing.T) {
	rig := startProxy(t, nil)
	for _, c := range []*http.Client{rig.h1, rig.h2} {
		if resp, body := ask(t, c, request(t, http.MethodTrace, rig.url("/plugins/mirror/x"), "", "Cookie", "a=b")); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d %s", resp.Proto, resp.StatusCode, body)
		}
	}
}
