package gateway

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lock := make(chan struct{}, 1)
		all := []question{
			{"one", func() {}},
			{"other", func() { lock <- struct{}{}; <-lock }},
		}
		p := newPulse()
		take := func(want string) {
			t.Helper()
			got := ""
			if err := p.take(all, time.Second); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("error %q, want %q", got, want)
			}
		}
		take("")
		lock <- struct{}{}
		for range 3 {
			take("no answer from: other")
		}
		<-lock
		synctest.Wait()
		take("")
	})
}

// A gateway that is locked up says so to those who watch over it.
func TestHealthz(t *testing.T) {
	g := startGateway(t, nil)
	if code, body := adminGet(t, g, "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	g.mu.Lock()
	code, body := adminGet(t, g, "/healthz")
	g.mu.Unlock()
	if code != 500 || !strings.Contains(body, "no answer from: configuration") {
		t.Errorf("locked up: %d %q", code, body)
	}
	eventually(t, "it is well again", func() bool { code, _ := adminGet(t, g, "/healthz"); return code == 200 })
}
