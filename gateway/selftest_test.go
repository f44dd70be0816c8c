package gateway

import (
	"strings"
	"testing"
	"time"

	"sallyport/gateway/admin"
)

// results waits for a self-test of every transport that ended as wanted.
func (tg *testGateway) results(t *testing.T, since time.Time, ok bool) []admin.SelfTest {
	t.Helper()
	var got []admin.SelfTest
	eventually(t, "self-tests", func() bool {
		got = tg.Status().SelfTests
		for _, r := range got {
			if r.At.Before(since) || r.OK != ok {
				return false
			}
		}
		return len(got) == 3
	})
	return got
}

// The gateway goes its own way, through the public port and back from the SFU,
// tells the result, and leaves nothing behind.
func TestSelfTest(t *testing.T) {
	g := startGatewayWith(t, nil, func(o *Options) { o.SelfTest = 100 * time.Millisecond })
	for i, r := range g.results(t, time.Time{}, true) {
		if want := []string{"tcp", "tls", "udp"}[i]; r.Transport != want || r.Took <= 0 {
			t.Errorf("result %+v, want one of %s", r, want)
		}
	}
	code, ready := adminGet(t, g, "/readyz")
	if code != 200 || strings.Count(ready, ": ok in") != 3 || !strings.HasPrefix(ready, "ready\n") {
		t.Errorf("/readyz: %d %q", code, ready)
	}
	_, metrics := adminGet(t, g, "/metrics")
	for _, want := range []string{
		`sallyport_selftest_up{transport="tls"} 1`, `sallyport_selftest_up{transport="udp"} 1`,
		`sallyport_selftest_seconds{stage="roundtrip",transport="tls"} `, `sallyport_selftest_runs_total{result="ok",transport="tcp"} `,
		`sallyport_selftest_last_timestamp_seconds{transport="tls"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if sessions := g.Status().Media.Sessions; sessions != 0 {
		t.Errorf("%d sessions", sessions)
	}

	// A relay that leads nowhere is noticed, though every socket still answers.
	if err := g.hairpin.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.results(t, time.Now(), false) {
		if !strings.Contains(r.Error, "through the relay") {
			t.Errorf("self-test over %s: %s", r.Transport, r.Error)
		}
	}
	code, ready = adminGet(t, g, "/readyz")
	if code != 200 || strings.Count(ready, "FAILED") != 3 {
		t.Errorf("/readyz: %d %q", code, ready)
	}
	if lines := g.log.with("self-test failed"); len(lines) != 3 {
		t.Errorf("%d lines about it: %v", len(lines), lines)
	}
}

// Without an SFU of ours allocating is all there is to test.
func TestSelfTestWithoutSFU(t *testing.T) {
	g := startGatewayWith(t, func(c *Config) {
		c.SFU.Mode = ModeOff
		c.TURN.RelayTo = []string{"192.0.2.1:8443"}
		c.Listen.UDP = ""
	}, func(o *Options) { o.SelfTest = 50 * time.Millisecond })
	eventually(t, "self-tests", func() bool { return len(g.Status().SelfTests) == 2 })
	for _, r := range g.Status().SelfTests {
		if !r.OK {
			t.Errorf("%+v", r)
		}
	}
}

func TestNearest(t *testing.T) {
	for in, want := range map[string]string{
		"0.0.0.0:443": "127.0.0.1:443", "[::]:443": "127.0.0.1:443", "192.0.2.1:443": "192.0.2.1:443", "[2001:db8::1]:443": "[2001:db8::1]:443",
	} {
		if got := nearest(in); got != want {
			t.Errorf("%s is reached at %s, want %s", in, got, want)
		}
	}
}
