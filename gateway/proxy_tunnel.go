package gateway

import (
	"bufio"
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

// goodbyeLimit is how long a client has to take what is left when its tunnel
// ends, and then to answer the Close frame: a connection that is closed while the
// client still sends is reset, and a reset takes along what was not read yet.
const goodbyeLimit = 2 * time.Second

// Why a tunnel ended: the label of sallyport_ws_closed_total.
const (
	endedByClient   = "client"
	endedByUpstream = "upstream"
	endedIdle       = "idle"
	endedByDrain    = "drain"
	endedByStop     = "stop"
)

var (
	errTunnelEnd = errors.New("tunnel ended")
	errBadSwitch = errors.New("upstream switched to a protocol nobody asked for")
)

// A tunnel is one WebSocket: two connections and a goroutine for each direction.
//
//	up:    client ─> upstream, until the client has ended, or answered a Close
//	down:  upstream ─> client, until either has ended; then goodbye, a short wait
//	       for up, and both connections are closed
//
// While nothing passes it holds no buffer, and nothing is left of the HTTP request
// that it was.
type tunnel struct {
	set      *tunnels
	node     *upstream // where it leads
	client   *leg
	upstream *leg
	handed   io.ReadWriteCloser // the body of the 101 answer, which is the upstream too
	leave    func()             // ends the count at the upstream
	idle     time.Duration
	timer    *time.Timer
	visit    visit // for the log

	active atomic.Int64 // when a byte last passed, Unix nanoseconds

	sent     frames      // upstream ─> client; belongs to down
	received frames      // client ─> upstream; belongs to up
	farewell atomic.Bool // the client has sent its Close frame, or ended
	over     atomic.Bool // down has ended: what up reads is of no use any more
	upEnded  chan struct{}

	mu  sync.Mutex // guards the following
	why string     // "" while it stands
}

// open makes a tunnel of the client's connection and the 101 answer resp.
func (s *tunnels) open(x *exchange, resp *http.Response) error {
	handed, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !x.upgrade || x.conn == nil || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return fmt.Errorf("%w: %q", errBadSwitch, resp.Header.Get("Upgrade"))
	}
	conn, rw, err := x.rec.Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection: %w", err)
	}
	t := newTunnel(s, conn, x.conn, handed, x.websocketIdle)
	t.node, t.leave, x.leave, t.visit = x.node, x.leave, nil, newVisit(x)
	early := make([]byte, rw.Reader.Buffered())
	_, _ = io.ReadFull(rw.Reader, early) // they are there
	s.add(t)
	t.begin(resp, rw.Writer)
	go t.up(early)
	go t.down()
	return nil
}

func newTunnel(s *tunnels, client, upstream net.Conn, handed io.ReadWriteCloser, idle time.Duration) *tunnel {
	t := &tunnel{
		set: s, client: newLeg(client), upstream: newLeg(upstream), handed: handed, idle: idle,
		leave: func() {}, upEnded: make(chan struct{}),
	}
	t.touch()
	t.timer = time.AfterFunc(idle, t.checkIdle)
	return t
}

// begin hands on the 101 answer and what the upstream sent right behind it.
func (t *tunnel) begin(resp *http.Response, to *bufio.Writer) {
	_ = t.client.SetWriteDeadline(time.Now().Add(clientPatience))
	_, _ = to.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = resp.Header.Write(to) // which keeps errors for Flush
	_, _ = to.WriteString("\r\n")
	if to.Flush() != nil {
		t.gone()
		return
	}
	// net/http keeps what it has read beyond the answer. With a deadline that is
	// over, that is all that can be read. Of an end, down will hear again.
	_ = t.upstream.SetReadDeadline(longAgo)
	b := make([]byte, 4<<10)
	for {
		n, err := t.handed.Read(b)
		if n > 0 && t.pass(b[:n]) != nil || err != nil {
			break
		}
	}
	t.upstream.lift()
	_ = t.client.SetWriteDeadline(time.Time{})
}

// down carries upstream ─> client, and ends the tunnel when either has ended.
func (t *tunnel) down() {
	_ = t.upstream.receive(t.pass)
	t.goodbye()
	t.blame(endedByUpstream)
	t.over.Store(true)
	_ = t.handed.Close()
	last := time.Now().Add(goodbyeLimit)
	if t.farewell.Load() {
		last = longAgo
	}
	t.client.readUntil(last)
	<-t.upEnded
	t.timer.Stop()
	_ = t.client.Close()
	t.leave()
	t.set.remove(t)
}

// pass hands b, of the upstream, to the client.
func (t *tunnel) pass(b []byte) error {
	t.touch()
	t.sent.pass(b)
	if _, err := t.client.Write(b); err != nil {
		t.gone()
		return err
	}
	if t.sent.closed {
		t.blame(endedByUpstream)
	}
	return nil
}

// goodbye tells the client to come back later (1012, service restart) if it is
// we who end the tunnel and no frame is half sent.
func (t *tunnel) goodbye() {
	if why := t.reason(); (why == endedByDrain || why == endedIdle) && t.sent.between() {
		_, _ = t.client.Write([]byte{0x80 | closeOpcode, 2, 1012 >> 8, 1012 & 0xff})
	}
}

// up carries client ─> upstream. It begins with early, which was read already.
func (t *tunnel) up(early []byte) {
	defer close(t.upEnded)
	if t.take(early) == nil {
		_ = t.client.receive(t.take)
	}
	t.gone()
}

// take hands b, of the client, to the upstream. When that is over, it waits for
// the client's Close frame only.
func (t *tunnel) take(b []byte) error {
	t.received.pass(b)
	if t.received.closed {
		t.blame(endedByClient)
		t.farewell.Store(true)
	}
	if !t.over.Load() {
		t.touch()
		if _, err := t.upstream.Write(b); err == nil {
			return nil
		}
		t.blame(endedByUpstream)
		_ = t.handed.Close() // down notices
	}
	if t.farewell.Load() {
		return errTunnelEnd
	}
	return nil
}

// gone notes that the client takes or sends nothing any more.
func (t *tunnel) gone() {
	t.blame(endedByClient)
	t.farewell.Store(true)
	_ = t.handed.Close() // down notices
}

// end takes the tunnel down from our side: down notices, says goodbye to the
// client and closes both connections.
func (t *tunnel) end(why string) {
	t.blame(why)
	_ = t.client.SetWriteDeadline(time.Now().Add(goodbyeLimit)) // a client that takes nothing must not hold us up
	_ = t.handed.Close()
}

// cut ends it without a word.
func (t *tunnel) cut() {
	t.blame(endedByStop)
	t.farewell.Store(true)
	_ = t.handed.Close()
	t.client.readUntil(longAgo)
	_ = t.client.SetWriteDeadline(longAgo)
}

func (t *tunnel) touch() { t.active.Store(time.Now().UnixNano()) }

func (t *tunnel) checkIdle() {
	quiet := time.Duration(time.Now().UnixNano() - t.active.Load())
	if quiet >= t.idle {
		t.end(endedIdle)
		return
	}
	t.timer.Reset(t.idle - quiet)
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
