package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// freeze stops the clock of limits: their buckets fill up no more.
func (rig *proxyRig) freeze() { rig.limiter.now = func() time.Duration { return 0 } }

// exchangeFor is that of a request.
func (rig *proxyRig) exchangeFor(r *http.Request) *exchange {
	s := rig.settings.Load()
	return &exchange{settings: s, client: clientAddr(r, s.trusted)}
}

// At nine, 500 people behind one address open the web app and log in, some with
// a mistyped password, all within the same instant: nobody is turned away.
func TestOfficeMeetsNoLimit(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Limits.Exempt = nil })
	rig.freeze()
	page := httptest.NewRequest(http.MethodGet, "/static/main.js", nil)
	login := httptest.NewRequest(http.MethodPost, "/api/v4/users/login", nil)
	for user := range 500 {
		for range 100 {
			if rig.guarded(httptest.NewRecorder(), page, rig.exchangeFor(page)) {
				t.Fatalf("user %d: page refused", user)
			}
		}
		for range 4 {
			if rig.guarded(httptest.NewRecorder(), login, rig.exchangeFor(login)) {
				t.Fatalf("user %d: login refused", user)
			}
		}
	}
	refused := 0
	for range 10 { // somebody guesses
		if rig.guarded(httptest.NewRecorder(), login, rig.exchangeFor(login)) {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 10 further logins were refused", refused)
	}
}

func TestRequestsBeyondTheLimit(t *testing.T) {
	for _, path := range []string{"/api/v4/users/me", "/"} {
		rig := startProxy(t, func(c *Config) { c.Limits.RequestsBurst, c.Limits.Exempt = 6, nil })
		rig.freeze()
		for range 3 {
			rig.both(func(t *testing.T, c *http.Client) {
				if resp, _ := ask(t, c, request(t, http.MethodGet, rig.url("/"), "")); resp.StatusCode != http.StatusOK {
					t.Fatalf("status %d", resp.StatusCode)
				}
			})
		}
		rig.both(func(t *testing.T, c *http.Client) {
			resp, body := ask(t, c, request(t, http.MethodPost, rig.url(path), "body"))
			if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
			}
			if path == "/" {
				if !strings.Contains(body, "<title>Too many requests") {
					t.Errorf("page: %s", body)
				}
				return
			}
			var answer struct {
				ID      string `json:"id"`
				Request string `json:"request_id"`
				Status  int    `json:"status_code"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != 429 || answer.Request == "" || answer.ID != "sallyport.limit.reached" {
				t.Errorf("answer %s: %v", body, err)
			}
		})
		if n := metric(rig.metrics.limited.WithLabelValues("requests")); n != 2 {
			t.Errorf("counted %v", n)
		}
		if len(rig.log.with("limit=limits.requests")) == 0 {
			t.Error("not a word in the log")
		}
		other := client(rig.roots, "h2") // of a neighbour
		other.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(ctx, network, addr)
		}
		if resp, _ := ask(t, other, request(t, http.MethodGet, rig.url("/"), "")); resp.StatusCode != http.StatusOK {
			t.Errorf("another address: status %d", resp.StatusCode)
		}
		other.CloseIdleConnections()
	}
}

// Behind a trusted proxy the limit is the client's, whom the proxy names, and
// not the proxy's own.
func TestLimitsLookThroughTrustedProxies(t *testing.T) {
	rig := startProxy(t, func(c *Config) {
		c.Limits.RequestsBurst = 1
		c.Proxy.TrustedProxies = []string{"127.0.0.1"}
		c.Limits.Exempt = []string{"192.0.2.0/28"}
	})
	rig.freeze()
	for _, step := range []struct {
		client string
		want   int
	}{
		{"192.0.2.100", 200}, {"192.0.2.100", 429}, {"192.0.2.101", 200},
		{"2001:db8::1", 200}, {"2001:db8::2", 429}, {"2001:db8:0:1::1", 200}, // a /64 is one
		{"192.0.2.1", 200}, {"192.0.2.1", 200}, // exempt
		{"", 200}, {"", 200}, // the proxy itself
	} {
		var headers []string
		if step.client != "" {
			headers = []string{"X-Forwarded-For", "203.0.113.7, " + step.client}
		}
		if resp, _ := rig.get("/", headers...); resp.StatusCode != step.want {
			t.Errorf("%s: status %d, want %d", step.client, resp.StatusCode, step.want)
		}
	}
}

func TestLogins(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.SitePath = "/Chat" })
	for request, want := range map[string]bool{
		"POST /api/v4/users/login":                 true,
		"POST /api/v4/users/login/type":            true,
		"POST /api/v4/users/%6cogin":               true,
		"POST /api/v4//users/x/../login/":          true,
		"POST /API/v4/users/login":                 false,
		"POST /chat/api/v4/users/login":            true,
		"POST /CHAT%2Fapi/v4/users/login":          true,
		"POST /api/v4/users/mfa":                   true,
		"POST /api/v4/users/password/reset":        true,
		"POST /api/v4/users/email/verify":          true,
		"PUT /api/v4/users/abc/password":           true,
		"PUT /api/v4/users/abc/mfa":                true,
		"POST /oauth/access_token":                 true,
		"POST /oauth/authorize?client_id=a":        true,
		"POST /login/sso/saml":                     true,
		"GET /oauth/authorize?client_id=a":         false,
		"GET /api/v4/users/login":                  false,
		"POST /api/v4/users/logins":                false,
		"POST /api/v4/users/ids":                   false,
		"POST /api/v4/posts":                       false,
		"PUT /api/v4/users/abc/preferences":        false,
		"POST /hooks/abc":                          false,
		"POST /other/api/v4/users/login":           false,
		"POST /chatter/api/v4/users/login":         false,
		"POST /api/v4/users/status/ids?x=../login": false,
	} {
		method, target, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, target, nil)
		if got := isLogin(r.Method, rig.exchangeFor(r).seen(r)); got != want {
			t.Errorf("%s: %v", request, got)
		}
	}
}

// The limits are on the way of every request.
func TestLimitsAllocateNothing(t *testing.T) {
	rig := startProxy(t, nil)
	r := httptest.NewRequest(http.MethodPost, "/api/v4/posts", nil)
	x := rig.exchangeFor(r)
	if n := testing.AllocsPerRun(100, func() { rig.guarded(nil, r, x) }); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
}

func TestLongURLs(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Proxy.MaxURL = 100 })
	for length, want := range map[int]int{100: 200, 101: 414, 60000: 414} {
		path := fmt.Sprintf("/plugins/mirror/?%0*d", length-len("/plugins/mirror/?"), 0)
		rig.both(func(t *testing.T, c *http.Client) {
			resp, _ := ask(t, c, request(t, http.MethodGet, rig.url(path), ""))
			if resp.StatusCode != want {
				t.Errorf("%d bytes: status %d, want %d", len(path), resp.StatusCode, want)
			}
		})
	}
	if n := metric(rig.metrics.limited.WithLabelValues("url")); n != 4 {
		t.Errorf("counted %v", n)
	}
}

func BenchmarkLimits(b *testing.B) {
	p, err := benchProxy("http://127.0.0.1:1")
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v4/posts", nil)
	s := p.settings.Load()
	x := &exchange{settings: s, client: clientAddr(r, nil)}
	var now time.Duration
	p.limiter.now = func() time.Duration { now += time.Second; return now } // nobody is turned away
	b.ReportAllocs()
	for b.Loop() {
		p.guarded(nil, r, x)
	}
}

// A reload changes limits.
func TestReloadOfLimits(t *testing.T) {
	g := startGateway(t, nil)
	g.proxy.limiter.now = func() time.Duration { return 0 }
	c := client(nil, "h2")
	defer c.CloseIdleConnections()
	for burst, want := range map[int]int{2: 429, 5: 200} {
		next := g.config()
		next.Limits = Limits{Requests: 1, RequestsBurst: burst}
		if c, err := g.Reload(next); err != nil || len(c.Applied) == 0 || len(c.Restart) != 0 {
			t.Fatalf("%+v %v", c, err)
		}
		g.proxy.limiter.requests = newBuckets()
		for i := range 3 {
			resp, _ := ask(t, c, request(t, http.MethodGet, "https://"+g.Addrs().HTTPS+"/", ""))
			if i == 2 && resp.StatusCode != want || i < 2 && resp.StatusCode != 200 {
				t.Errorf("burst %d, request %d: status %d", burst, i, resp.StatusCode)
			}
		}
	}
}
