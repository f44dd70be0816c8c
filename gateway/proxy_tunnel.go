package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tunnelIdle is twice the 60 s after which Mattermost pings a WebSocket.
	tunnelIdle   = 120 * time.Second
	tunnelBuffer = 4 << 10         // for each direction, for as long as the tunnel stands
	goodbyeLimit = 2 * time.Second // for a client to take what is left when its tunnel ends
)

// Why a tunnel ended: the label of sallyport_ws_closed_total.
const (
	endedByClient   = "client"
	endedByUpstream = "upstream"
	endedIdle       = "idle"
	endedByDrain    = "drain"
	endedByStop     = "stop"
)

var (
	errTunnelOver = errors.New("websocket tunnel ended")
	errBadSwitch  = errors.New("upstream switched to a protocol nobody asked for")
)

// tunnels is the set of open WebSockets. They outlive http.Server.Shutdown, so
// somebody has to know them.
type tunnels struct {
	metrics *metrics
	idle    time.Duration

	mu   sync.Mutex // guards the following
	live map[*tunnel]struct{}
}

func newTunnels(m *metrics) *tunnels {
	return &tunnels{metrics: m, idle: tunnelIdle, live: map[*tunnel]struct{}{}}
}

// A tunnel is the upstream's half of a WebSocket. It stands in for the body of
// the 101 answer, so that httputil, which does the copying, calls
//
//	ReadFrom(client)   in one goroutine: client ─> upstream
//	WriteTo(client)    in another:       upstream ─> client
//	Close              when either has ended or the request was cancelled
//
// and every byte passes through here, to keep the idle timer at bay.
type tunnel struct {
	set      *tunnels
	node     *upstream // where it leads
	upstream io.ReadWriteCloser
	timer    *time.Timer
	frames   frames // of upstream ─> client; belongs to WriteTo

	active atomic.Int64 // when a byte last passed, Unix nanoseconds

	mu     sync.Mutex // guards the following
	client net.Conn   // nil until WriteTo has begun
	why    string     // "" while it stands
	closed bool
}

// open makes the 101 answer a tunnel.
func (s *tunnels) open(x *exchange, resp *http.Response) error {
	rwc, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !x.upgrade || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return fmt.Errorf("%w: %q", errBadSwitch, resp.Header.Get("Upgrade"))
	}
	t := &tunnel{set: s, node: x.node, upstream: rwc}
	t.touch()
	t.timer = time.AfterFunc(s.idle, t.checkIdle)
	s.mu.Lock()
	s.live[t] = struct{}{}
	s.mu.Unlock()
	s.metrics.wsOpened.Inc()
	s.metrics.wsOpen.Inc()
	resp.Body = t
	return nil
}

// count is how many tunnels stand.
func (s *tunnels) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// end closes all tunnels, evenly over spread so that the clients do not come
// back in one rush; at once when hard ends. It does not wait for them to be gone.
func (s *tunnels) end(hard context.Context, spread time.Duration) {
	all := s.to(nil)
	begin := time.Now()
	for i, t := range all {
		due := begin.Add(spread * time.Duration(i+1) / time.Duration(len(all)))
		select {
		case <-hard.Done():
		case <-time.After(time.Until(due)):
		}
		t.end(endedByDrain)
	}
}

// to lists the tunnels to u, or all if u is nil.
func (s *tunnels) to(u *upstream) []*tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*tunnel, 0, len(s.live))
	for t := range s.live {
		if u == nil || t.node == u {
			all = append(all, t)
		}
	}
	return all
}

func (t *tunnel) touch() { t.active.Store(time.Now().UnixNano()) }

func (t *tunnel) checkIdle() {
	quiet := time.Duration(time.Now().UnixNano() - t.active.Load())
	if quiet >= t.set.idle {
		t.end(endedIdle)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.timer.Reset(t.set.idle - quiet)
	}
}

// end takes the tunnel down from our side: WriteTo notices, says goodbye to the
// client and returns, which makes httputil close both connections.
func (t *tunnel) end(why string) {
	t.blame(why)
	t.mu.Lock()
	client := t.client
	t.mu.Unlock()
	if client != nil { // a client that takes nothing must not hold us up
		_ = client.SetWriteDeadline(time.Now().Add(goodbyeLimit))
	}
	_ = t.upstream.Close()
}

// blame records why the tunnel ended; the first reason stands.
func (t *tunnel) blame(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why == "" {
		t.why = why
	}
}

func (t *tunnel) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

// WriteTo copies upstream ─> client until one of them ends. It never returns a
// nil error: httputil would keep half a WebSocket open.
func (t *tunnel) WriteTo(client io.Writer) (int64, error) {
	if c, ok := client.(net.Conn); ok {
		t.mu.Lock()
		t.client = c
		t.mu.Unlock()
	}
	buf := make([]byte, tunnelBuffer)
	var sum int64
	for {
		n, err := t.upstream.Read(buf)
		if n > 0 {
			t.touch()
			t.frames.pass(buf[:n])
			if _, err := client.Write(buf[:n]); err != nil {
				t.blame(endedByClient)
				return sum, err
			}
			sum += int64(n)
		}
		if err != nil {
			t.goodbye(client)
			t.blame(endedByUpstream)
			return sum, errTunnelOver
		}
	}
}

// goodbye tells the client to come back later (1012, service restart) if it is
// we who end the tunnel and no frame is half sent.
func (t *tunnel) goodbye(client io.Writer) {
	if why := t.reason(); (why == endedByDrain || why == endedIdle) && t.frames.between() {
		_, _ = client.Write([]byte{0x88, 2, 1012 >> 8, 1012 & 0xff})
	}
}

// ReadFrom copies client ─> upstream until one of them ends.
func (t *tunnel) ReadFrom(client io.Reader) (int64, error) {
	buf := make([]byte, tunnelBuffer)
	var sum int64
	for {
		n, err := client.Read(buf)
		if n > 0 {
			t.touch()
			if _, err := t.upstream.Write(buf[:n]); err != nil {
				t.blame(endedByUpstream)
				return sum, err
			}
			sum += int64(n)
		}
		if err != nil {
			t.blame(endedByClient)
			return sum, errTunnelOver
		}
	}
}

// Read implements io.Reader for completeness; httputil uses WriteTo.
func (t *tunnel) Read(p []byte) (int, error) { return t.upstream.Read(p) }

// Write implements io.Writer for completeness; httputil uses ReadFrom.
func (t *tunnel) Write(p []byte) (int, error) { return t.upstream.Write(p) }

// Close implements io.Closer. It may be called more than once.
func (t *tunnel) Close() error {
	t.blame(endedByStop)
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.timer.Stop()
	t.mu.Unlock()
	if first {
		t.set.mu.Lock()
		delete(t.set.live, t)
		t.set.mu.Unlock()
		t.set.metrics.wsOpen.Dec()
		t.set.metrics.wsClosed.WithLabelValues(t.reason()).Inc()
	}
	return t.upstream.Close()
}

// frames follows the frame headers of one direction of a WebSocket (RFC 6455
// section 5.2) without looking at payloads: its zero value is between frames.
type frames struct {
	header [14]byte
	have   int    // bytes of header seen
	left   uint64 // bytes of payload to come
}

func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if size, payload := f.parse(); f.have >= 2 && f.have == size {
			f.have, f.left = 0, payload
		}
	}
}

// parse returns the header's length and, once all of it is there, the payload's.
func (f *frames) parse() (size int, payload uint64) {
	size, payload = 2, uint64(f.header[1]&0x7f)
	switch payload {
	case 126:
		size, payload = 4, uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		size, payload = 10, binary.BigEndian.Uint64(f.header[2:])
	}
	if f.header[1]&0x80 != 0 {
		size += 4 // masking key
	}
	return size, payload
}
