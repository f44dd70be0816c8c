package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A counted upstream counts connections and lets a test speak on each.
type counted struct {
	ln    net.Listener
	conns chan net.Conn
}

func startCounted(t *testing.T) *counted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{ln, make(chan net.Conn, 16)}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			c.conns <- conn
		}
	}()
	return c
}

// answer reads a request from conn and writes text.
func (c *counted) answer(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		t.Errorf("read request: %v", err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Error(err)
	}
}

const okHi = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

// get asks the pool and delivers the body, or "error".
func (c *counted) get(t *testing.T, p *pool) chan string {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.ln.Addr().String()+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		resp, u, err := p.send(req, nil)
		if err != nil {
			t.Error(err)
			got <- "error"
			return
		}
		defer u.busy.Add(-1)
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		got <- string(body)
	}()
	return got
}

func TestConnectionsAreUsedAgainUntilTheyEnd(t *testing.T) {
	c := startCounted(t)
	p, err := newPool([]string{"http://" + c.ln.Addr().String()}, Proxy{IdleTimeout: time.Hour}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.closeIdle()
	got := c.get(t, p)
	first := <-c.conns
	c.answer(t, first, okHi)
	if body := <-got; body != "hi" {
		t.Fatalf("first: %q", body)
	}
	got = c.get(t, p)
	c.answer(t, first, "HTTP/1.1 103 Early Hints\r\n\r\n"+okHi)
	if body := <-got; body != "hi" {
		t.Fatalf("on the same connection: %q", body)
	}
	got = c.get(t, p)
	_, _ = http.ReadRequest(bufio.NewReader(first))
	_ = first.Close() // between request and answer
	second := <-c.conns
	c.answer(t, second, okHi+"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") // an answer nobody asked for
	if body := <-got; body != "hi" {
		t.Fatalf("on a new connection: %q", body)
	}
	got = c.get(t, p)
	c.answer(t, <-c.conns, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
	if body := <-got; body != "hi" {
		t.Errorf("behind an answer that nobody asked for: %q", body)
	}
	if len(c.conns) != 0 {
		t.Error("one more connection than needed")
	}
}

func TestKeptConnectionsAreClosedInTime(t *testing.T) {
	c := startCounted(t)
	p, err := newPool([]string{"http://" + c.ln.Addr().String()}, Proxy{IdleTimeout: 50 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := c.get(t, p)
	conn := <-c.conns
	c.answer(t, conn, okHi)
	<-got
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("kept connection: %v, want its end", err)
	}
}

func TestALeavingClientEndsItsRequest(t *testing.T) {
	c := startCounted(t)
	p := newTestPool(t, "http://"+c.ln.Addr().String())
	for _, begun := range []bool{false, true} {
		ctx, leave := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
		failed := make(chan error, 1)
		go func() {
			resp, u, err := p.send(req, nil)
			if err == nil {
				u.busy.Add(-1)
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			failed <- err
		}()
		conn := <-c.conns
		if begun {
			c.answer(t, conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
		}
		leave()
		if err := <-failed; err == nil {
			t.Errorf("begun %t: no error", begun)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, conn); err != nil && timedOut(err) {
			t.Errorf("begun %t: the upstream's connection is still open", begun)
		}
	}
}
