package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// client asks without looking at certificates: all of this is on one machine.
var client = &http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}, Timeout: 5 * time.Second}

func insecure(protos ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protos}
}

// opening is how many WebSockets open at once.
const opening = 16

// A holder keeps WebSockets open and says nothing.
type holder struct {
	addr  string
	ended atomic.Int64 // of those that nobody closed

	mu    sync.Mutex // guards the following
	conns []net.Conn
}

func newHolder(addr string) *holder { return &holder{addr: addr} }

// grow opens WebSockets until there are n.
func (h *holder) grow(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opening)
	for range n - len(h.conns) {
		group.Go(func() error {
			c, err := h.open(ctx)
			if err != nil {
				return fmt.Errorf("open a WebSocket: %w", err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.conns = append(h.conns, c)
			return nil
		})
	}
	return group.Wait()
}

func (h *holder) open(ctx context.Context) (net.Conn, error) {
	d := tls.Dialer{Config: insecure("http/1.1")}
	c, err := d.DialContext(ctx, "tcp", h.addr)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "GET /api/v4/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://localhost\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"+
		"Cookie: MMAUTHTOKEN=abcdefghijklmnopqrstuvwxyz; MMUSERID=abcdefghijklmnopqrstuvwxyz\r\n\r\n")
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		var resp *http.Response
		resp, err = http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = errors.New(resp.Status)
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	go h.watch(c)
	return c, nil
}

// watch notices the end of c.
func (h *holder) watch(c net.Conn) {
	_, err := io.Copy(io.Discard, c)
	if !errors.Is(err, net.ErrClosed) {
		h.ended.Add(1)
	}
}

// lost is how many have ended.
func (h *holder) lost() int { return int(h.ended.Load()) }

func (h *holder) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		_ = c.(*tls.Conn).NetConn().Close()
	}
}
