package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// However many requests fail or handshakes are refused, the log above debug
// level stays short, and says how much it leaves out.
func TestStrangersCannotFillTheLog(t *testing.T) {
	rig := startProxy(t, nil)
	began := time.Now()
	const times = 60
	foreign := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Origin", "https://elsewhere.example.com"}
	for range times {
		if resp, _ := rig.get("/api/v4/websocket", foreign...); resp.StatusCode != http.StatusForbidden {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	rig.mm.stop()
	for range times {
		if resp, _ := rig.get("/"); resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	for _, kind := range []string{"websocket handshake refused", "http request"} {
		var lines []string
		for _, line := range rig.log.with(kind) {
			if strings.Contains(line, "level=INFO") {
				lines = append(lines, line)
			}
		}
		most := lineBurst + lineRate*int(time.Since(began)/time.Second+1)
		if n := len(lines); n == 0 || n > most {
			t.Errorf("%s: %d lines of %d, want at most %d", kind, n, times, most)
		}
	}
}

func TestRarelySaysWhatItLeftOut(t *testing.T) {
	r := newRarely()
	for range lineBurst {
		if also, ok := r.allow(); !ok || also != nil {
			t.Fatalf("%v, %v", also, ok)
		}
	}
	r.limit.SetLimit(0) // time stands still
	for range 3 {
		if _, ok := r.allow(); ok {
			t.Fatal("allowed")
		}
	}
	r.limit.SetBurst(1)
	r.limit.SetLimit(1e9)
	var also []any
	eventually(t, "the next line", func() (ok bool) { also, ok = r.allow(); return ok })
	if len(also) != 2 || also[0] != "suppressed" || also[1].(int64) < 3 {
		t.Errorf("says %v", also)
	}
}
