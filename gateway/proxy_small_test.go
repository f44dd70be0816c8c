package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// post has answered r, a POST, by the upstream c, and returns the status and what
// of the body came.
func (c *counted) post(t *testing.T, client *http.Client, r *http.Request) (status int, body string) {
	t.Helper()
	got := make(chan *http.Response, 1)
	go func() {
		resp, err := client.Do(r)
		if err != nil {
			t.Error(err)
		}
		got <- resp
	}()
	conn := <-c.conns
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := io.ReadAll(req.Body)
	if _, err := io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"); err != nil {
		t.Error(err)
	}
	resp := <-got
	if resp == nil {
		return 0, string(whole)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, string(whole)
}

// A POST with a small body may go to another node: nobody has seen it.
func TestSmallBodiesGoToAnotherNode(t *testing.T) {
	down := startMattermost(t)
	down.stop()
	for _, size := range []int{0, 1, 4000, smallSize, smallSize + 1} {
		c := startCounted(t)
		rig := startProxy(t, func(cfg *Config) { cfg.Upstream = []string{down.url(), "http://" + c.ln.Addr().String()} })
		rig.both(func(t *testing.T, client *http.Client) {
			whole := strings.Repeat("x", size)
			r := request(t, http.MethodPost, rig.url("/"), whole)
			if status, got := c.post(t, client, r); status != http.StatusNoContent || got != whole {
				t.Errorf("%d bytes: status %d, %d bytes with Mattermost", size, status, len(got))
			}
		})
	}
}

// Mattermost is not asked before a small body is there, and not at all if the client
// leaves before.
func TestSmallBodiesAreWaitedFor(t *testing.T) {
	c := startCounted(t)
	rig := startProxy(t, func(cfg *Config) { cfg.Upstream = []string{"http://" + c.ln.Addr().String()} })
	for _, leaves := range []bool{false, true} {
		conn := rig.rawTLS(t, "http/1.1")
		mustWrite(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
		eventually(t, "the request begins", func() bool { return metric(rig.metrics.inFlight) == 1 })
		other := request(t, http.MethodPost, rig.url("/"), "whole")
		if _, got := c.post(t, rig.h2, other); got != "whole" {
			t.Errorf("Mattermost was asked for %q first", got)
		}
		if leaves {
			_ = conn.Close()
			eventually(t, "the request ends", func() bool { return metric(rig.metrics.inFlight) == 0 })
			break
		}
		mustWrite(t, conn, "half")
		up := <-c.conns
		req, err := http.ReadRequest(bufio.NewReader(up))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(req.Body); string(got) != "halfhalf" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		mustWrite(t, up, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("%v, %v", resp, err)
		}
		_ = conn.Close()
		eventually(t, "the request ends", func() bool { return metric(rig.metrics.inFlight) == 0 })
	}
	if len(c.conns) != 0 {
		t.Error("Mattermost was asked once more than needed")
	}
	if n := rig.settings.Load().pool.upstreams[0].strikes.Load(); n != 0 {
		t.Errorf("%d strikes for what the client did", n)
	}
}

// What Mattermost may have done is not done again.
func TestAPostIsNotSentAgain(t *testing.T) {
	c := startCounted(t)
	p, err := newPool([]string{"http://" + c.ln.Addr().String()}, Proxy{IdleTimeout: time.Hour}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.closeIdle()
	send := func() chan error {
		r := request(t, http.MethodPost, "http://x/", "")
		r.Body, r.ContentLength = newSmallBody([]byte("hello")), 5
		failed := make(chan error, 1)
		go func() {
			resp, u, err := p.send(r, nil)
			if err == nil {
				u.busy.Add(-1)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
			}
			failed <- err
		}()
		return failed
	}
	failed := send()
	conn := <-c.conns
	c.answer(t, conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") // it is kept
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	failed = send()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := <-failed; err == nil || len(c.conns) != 0 {
		t.Errorf("error %v, %d more connections", err, len(c.conns))
	}
}

// HTTP/2 can carry what does not fit into a line of HTTP/1. That is the client's
// fault, and no strike for Mattermost.
func TestURLsThatHTTP1CannotCarry(t *testing.T) {
	rig := startProxy(t, nil)
	for i := range 2 * strikesOut {
		r := request(t, http.MethodGet, rig.url("/"), "")
		r.URL.RawQuery = fmt.Sprintf("a=%d HTTP/1.1", i)
		if resp, _ := ask(t, rig.h2, r); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d, want 400", resp.StatusCode)
		}
	}
	if u := rig.settings.Load().pool.upstreams[0]; u.level() != healthy || u.strikes.Load() != 0 {
		t.Errorf("level %d, %d strikes", u.level(), u.strikes.Load())
	}
}
