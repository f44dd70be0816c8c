package admin

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func sample() Status {
	return Status{
		State: Serving, Version: "1.2.3", Domain: "chat.example.com", Started: time.Unix(1700000000, 0).UTC(),
		Listeners:   []Listener{{Key: "listen.https", Network: "tcp", Address: "[::]:443"}},
		Certificate: Certificate{Source: "acme", Names: []string{"chat.example.com"}, Ready: true, Issuer: "R11", NotAfter: time.Unix(1700000000, 0).UTC(), DaysLeft: 3, Expiry: []Expiry{{"chat.example.com", time.Unix(1700000000, 0).UTC()}, {"new.example.com", time.Time{}}}, Error: "no <route>"},
		Upstreams:   []Upstream{{URL: "http://127.0.0.1:8065", State: UpstreamDown, Error: "connection refused", WebSockets: 3}},
		WebSockets:  7,
		Media:       Media{Enabled: true, Addresses: []string{"203.0.113.5:8443"}, Calls: 1, Sessions: 2, Paths: map[string]int{"udp": 1, "relay": 1}},
		TURN:        TURN{Enabled: true, Allocations: map[string]int{"tls": 1}, Suspects: []Suspect{{Credential: "1700000000:alice", Addresses: 9, Unanswered: 1 << 21, Allocations: 2, Last: time.Unix(1700000000, 0).UTC()}}},
	}
}

// start runs a server and returns its URL and what Ready says.
func start(t *testing.T) (string, *atomic.Bool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready := new(atomic.Bool)
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_test"})
	reg.MustRegister(g)
	s := New(Options{Metrics: reg, Status: sample, Ready: ready.Load})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), ready
}

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHealthAndReadiness(t *testing.T) {
	url, ready := start(t)
	if code, _ := get(t, url+"/healthz", ""); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, _ := get(t, url+"/readyz", ""); code != 503 {
		t.Errorf("/readyz before serving: %d", code)
	}
	ready.Store(true)
	if code, _ := get(t, url+"/readyz", ""); code != 200 {
		t.Errorf("/readyz: %d", code)
	}
}

func TestStatusIsTheStruct(t *testing.T) {
	url, _ := start(t)
	_, body := get(t, url+"/status", "")
	var got Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample(), got); d != "" {
		t.Error(d)
	}
}

func TestPageShowsTheStruct(t *testing.T) {
	url, _ := start(t)
	_, body := get(t, url+"/", "")
	for _, want := range []string{
		"chat.example.com", "serving", "1.2.3", "[::]:443", "connection refused", "down", "3 days left", "no &lt;route&gt;", "relay", "tls", "1700000000:alice", "from 9 addresses", "2097152 bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(body, "ZgotmplZ") {
		t.Error("page has a value in a place that cannot hold it")
	}
}

func TestMetricsAndProfiles(t *testing.T) {
	url, _ := start(t)
	if _, body := get(t, url+"/metrics", ""); !strings.Contains(body, "sallyport_test 0") {
		t.Errorf("/metrics: %s", body)
	}
	if code, body := get(t, url+"/debug/pprof/goroutine?debug=1", ""); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d", code)
	}
	if code, _ := get(t, url+"/nowhere", ""); code != 404 {
		t.Errorf("/nowhere: %d", code)
	}
}

func TestForeignNamesAreRefused(t *testing.T) {
	url, _ := start(t)
	for host, want := range map[string]int{
		"localhost:9443": 200, "127.0.0.1": 200, "[::1]:9443": 200, "evil.example": 403, "evil.example:9443": 403, "192.0.2.1": 403,
	} {
		if code, _ := get(t, url+"/healthz", host); code != want {
			t.Errorf("Host %s: %d, want %d", host, code, want)
		}
	}
}

// A page whose own name resolves to the listener's address gets nothing, also
// where the listener is not on loopback. Tools ask by address.
func TestForeignNamesAreRefusedOnPrivateAddresses(t *testing.T) {
	h := guard(&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9443}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"10.1.2.3:9443": 200, "10.1.2.3": 200, "192.168.0.1:80": 200, "[fd00::1]:9443": 200, "[fd00::1]": 200, "localhost:9443": 200,
		"evil.example": 403, "evil.example:9443": 403, "10.1.2.3.evil.example": 403, "": 403,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}

func TestOtherSitesStartNoProfiles(t *testing.T) {
	url, _ := start(t)
	for site, want := range map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/pprof/goroutine?debug=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Sec-Fetch-Site %q: %d, want %d", site, resp.StatusCode, want)
		}
	}
}
