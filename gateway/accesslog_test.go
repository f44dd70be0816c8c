package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// told are the lines of a message at level info.
func (rig *proxyRig) told(msg string) (lines []string) {
	for _, line := range rig.log.with(`msg="` + msg + `"`) {
		if strings.Contains(line, "level=INFO") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestAccessLog(t *testing.T) {
	for _, c := range []struct {
		access       string
		sample, want int // lines
	}{{"off", 1, 0}, {"errors", 1, 2}, {"all", 1, 26}, {"all", 8, 2 + 8 + 2}} { // two of sixteen that went well, what was not found, errors
		rig := startProxy(t, func(cfg *Config) { cfg.Log.Access, cfg.Log.Sample = c.access, c.sample })
		for range 8 {
			rig.get("/")
			rig.get("/nowhere")
			rig.get("/static/main.js")
		}
		rig.mm.stop()
		rig.get("/")
		rig.get("/")
		lines := func() int { return len(rig.log.with(`msg="http request"`)) }
		eventually(t, "a line for each at level debug", func() bool { return lines() == 26 })
		if got := len(rig.told("http request")); got != c.want {
			t.Errorf("%s, one of %d: %d lines, want %d", c.access, c.sample, got, c.want)
		}
	}
}

// A line says who, what, how much, and by whom; what clients write has no more
// room in it than it needs.
func TestAccessLogLine(t *testing.T) {
	rig := startProxy(t, func(cfg *Config) { cfg.Log.Access = accessAll })
	long := strings.Repeat("x", 4000)
	r := request(t, http.MethodPost, rig.url("/plugins/mirror/?token=hunter2&x="+long), "12345", "User-Agent", "agent "+long)
	resp, body := ask(t, rig.h2, r)
	var seen seen
	if err := json.Unmarshal([]byte(body), &seen); err != nil {
		t.Fatal(err)
	}
	id := resp.Header.Get("X-Request-Id")
	eventually(t, "a line", func() bool { return len(rig.told("http request")) == 1 })
	line := rig.told("http request")[0]
	for _, want := range []string{
		"remote=127.0.0.1", "method=POST", "path=\"/plugins/mirror/?token=***&x=xxx", "proto=HTTP/2.0", "status=200", "received=5",
		"upstream=" + rig.mm.addr, "agent=\"agent xxx", "id=" + seen.Header.Get("X-Request-Id"), "request=" + id,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if len(line) > 2000 {
		t.Errorf("the line has %d bytes", len(line))
	}
	if resp, _ := rig.get("/plugins/trailers"); resp.Header.Get("X-Request-Id") == "" {
		t.Error("neither Mattermost nor we gave the client an id")
	}
}

// Only a trusted proxy may give a request its id, and only a sound one.
func TestRequestIDs(t *testing.T) {
	for _, c := range []struct {
		trusted, id string
		kept        bool
	}{
		{"", "abc", false}, {"127.0.0.1", "abc-1.2_3", true}, {"127.0.0.2", "abc", false},
		{"127.0.0.1", "a b", false}, {"127.0.0.1", strings.Repeat("a", 65), false}, {"127.0.0.1", "", false},
	} {
		rig := startProxy(t, func(cfg *Config) {
			if c.trusted != "" {
				cfg.Proxy.TrustedProxies = []string{c.trusted}
			}
		})
		_, body := rig.get("/plugins/mirror/", "X-Request-Id", c.id)
		var seen seen
		if err := json.Unmarshal([]byte(body), &seen); err != nil {
			t.Fatal(err)
		}
		if got := seen.Header.Get("X-Request-Id"); got == "" || (got == c.id) != c.kept {
			t.Errorf("%q from a client, %q trusted: Mattermost got %q", c.id, c.trusted, got)
		}
	}
}

func TestWebSocketsInTheLog(t *testing.T) {
	rig := startProxy(t, func(cfg *Config) { cfg.Log.Access = accessAll })
	conn, _, err := websocket.Dial(t.Context(), "wss"+strings.TrimPrefix(rig.url("/api/v4/websocket"), "https"), &websocket.DialOptions{HTTPClient: rig.h1})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	eventually(t, "a line", func() bool { return len(rig.told("websocket closed")) == 1 })
	line := rig.told("websocket closed")[0]
	for _, want := range []string{"remote=127.0.0.1", "reason=client", "duration=", "id=", "upstream=" + rig.mm.addr} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
}
