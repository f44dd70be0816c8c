package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A witness is an upstream that keeps every byte it gets, and answers 200 to
// each head.
type witness struct {
	ln net.Listener

	mu  sync.Mutex // guards the following
	got strings.Builder
}

func startWitness(t *testing.T) *witness {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{ln: ln}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
			conns.Go(func() {
				defer stop()
				w.answer(c)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	return w
}

func (w *witness) answer(c net.Conn) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		text := string(buf[:n])
		if strings.HasPrefix(text, "GET /api/v4/system/ping ") { // a probe of the proxy's own
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		w.mu.Lock()
		w.got.WriteString(text)
		w.mu.Unlock()
		if err != nil {
			return
		}
		for range strings.Count(text, " HTTP/1.1\r\n") {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
}

// take returns what came since the last time.
func (w *witness) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.got.Reset()
	return w.got.String()
}

// startStrict runs a whole gateway in front of a witness. ways dial its two
// ports for HTTP/1.
func startStrict(t *testing.T) (g *testGateway, w *witness, ways map[string]func(*testing.T) net.Conn) {
	t.Helper()
	w = startWitness(t)
	g = startGateway(t, func(c *Config) { c.Upstream = []string{"http://" + w.ln.Addr().String()} })
	dial := func(t *testing.T, addr string, over func(net.Conn) net.Conn) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return over(c)
	}
	inTLS := func(protos ...string) func(net.Conn) net.Conn {
		return func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protos})
		}
	}
	bare := func(c net.Conn) net.Conn { return c }
	return g, w, map[string]func(*testing.T) net.Conn{
		"443":              func(t *testing.T) net.Conn { return dial(t, g.Addrs().HTTPS, inTLS("http/1.1")) },
		"443 without ALPN": func(t *testing.T) net.Conn { return dial(t, g.Addrs().HTTPS, inTLS()) },
		"443 without TLS":  func(t *testing.T) net.Conn { return dial(t, g.Addrs().HTTPS, bare) },
		"80":               func(t *testing.T) net.Conn { return dial(t, g.Addrs().HTTP, bare) },
	}
}

// statuses reads answers until the connection ends.
func statuses(t *testing.T, c net.Conn, method string) (all []int) {
	t.Helper()
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return all
		}
		if err != nil {
			t.Fatalf("after %v: %v", all, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		all = append(all, resp.StatusCode)
	}
}

// What two parsers could understand differently is refused on every port, and
// Mattermost gets not one byte of it.
func TestMalformedRequestsAreNotForwarded(t *testing.T) {
	g, w, ways := startStrict(t)
	const smuggled = "GET /smuggled HTTP/1.1\nHost: x\n\n"
	for way, dial := range ways {
		want := "[400]"
		for name, request := range malformedRequests {
			before := metric(g.metrics.malformed)
			c := dial(t)
			// A port that first looks whether it is HTTP closes what is none.
			outer := (way == "80" || way == "443 without TLS") && strings.IndexAny(request, "\r§") == 0
			mustWrite(t, c, onWire(request+smuggled))
			if got := fmt.Sprint(statuses(t, c, "GET")); got != want && !outer {
				t.Errorf("%s, %s: answers %s, want %s", way, name, got, want)
			}
			if got := w.take(); got != "" {
				t.Errorf("%s, %s: upstream got %q", way, name, got)
			}
			if counted := metric(g.metrics.malformed) - before; counted != 1 && !outer {
				t.Errorf("%s, %s: counted %v times", way, name, counted)
			}
			_ = c.Close()
		}
	}
}

func TestSoundRequestsPass(t *testing.T) {
	_, w, ways := startStrict(t)
	for way, dial := range ways {
		if way == "80" || way == "443 without TLS" {
			continue // redirects only
		}
		for name, request := range soundRequests {
			if name == "line after body" {
				request.wire = "POST / HTTP/1.1\nHost: x\nContent-Length: 1\n\ny\n"
				request.heads = 1
			}
			for _, size := range []int{1, 4096} {
				c := dial(t)
				go func() { // answers begin before all is written
					for p := onWire(request.wire); p != ""; p = p[min(size, len(p)):] {
						_, _ = io.WriteString(c, p[:min(size, len(p))])
					}
					_, _ = io.WriteString(c, onWire("GET /last HTTP/1.1\nHost: x\nConnection: close\n\n"))
				}()
				got := statuses(t, c, "GET")
				want := make([]int, request.heads+1)
				for i := range want {
					want[i] = http.StatusOK
				}
				if strings.Contains(request.wire, "HTTP/1.0") {
					want = want[:1] // HTTP/1.0 ends the connection
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, %s by %d: answers %v, want %v", way, name, size, got, want)
				}
				_ = c.Close()
			}
		}
	}
	_ = w.take()
}

// A good request is answered, whatever comes behind it.
func TestMalformedRequestBehindAGoodOne(t *testing.T) {
	_, w, ways := startStrict(t)
	for _, name := range []string{"CL.TE", "bare LF everywhere", "chunk size with LF"} {
		c := ways["443"](t)
		mustWrite(t, c, onWire("GET /good HTTP/1.1\nHost: x\n\n"+malformedRequests[name]))
		if got := fmt.Sprint(statuses(t, c, "GET")); got != "[200 400]" {
			t.Errorf("%s: answers %s", name, got)
		}
		if got := w.take(); strings.Count(got, " HTTP/1.1\r\n") != 1 || !strings.HasPrefix(got, "GET /good ") {
			t.Errorf("%s: upstream got %q", name, got)
		}
	}
}

// Of a body that turns out to be malformed while it streams, no more is passed
// on, and Mattermost does not see its end.
func TestMalformedLateInABody(t *testing.T) {
	g, w, ways := startStrict(t)
	c := ways["443"](t)
	mustWrite(t, c, onWire("POST /late HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nhello\n"))
	got := ""
	eventually(t, "the first chunk arrives", func() bool {
		got += w.take()
		return strings.Contains(got, "hello")
	})
	mustWrite(t, c, onWire("5§world\n0\n\n"))
	_ = statuses(t, c, "POST") // 200 already, or 400
	eventually(t, "the fault is counted", func() bool { return metric(g.metrics.malformed) == 1 })
	if got += w.take(); strings.Contains(got, "world") || strings.Contains(got, "\r\n0\r\n") {
		t.Errorf("upstream got %q", got)
	}
}

// What a WebSocket carries is no HTTP.
func TestStrictnessEndsWithAnUpgrade(t *testing.T) {
	g := startGateway(t, nil)
	c, err := tls.Dial("tcp", g.Addrs().HTTPS, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	mustWrite(t, c, "GET /api/v4/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	for range 3 {
		mustWrite(t, c, "\x81\x82\x00\x00\x00\x00\n\x00") // a masked text frame, by a mask of zeros
		echoed := make([]byte, 4)
		if _, err := io.ReadFull(r, echoed); err != nil || string(echoed) != "\x81\x02\n\x00" {
			t.Fatalf("got %q, %v", echoed, err)
		}
	}
	if n := metric(g.metrics.malformed); n != 0 {
		t.Errorf("%v malformed requests counted", n)
	}
}
