package rtcd

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

const (
	maxFrame = 1 << 20 // bytes of a message, in and out

	// What may wait to be written to one connection. Beyond, it is closed.
	maxQueued      = 4096
	maxQueuedBytes = 16 << 20

	// What one client may send over all its connections, in units of a message
	// plus 4 KiB of it: some 20,000 small messages or 80 MiB a second. The plugin
	// lets each user send 10 messages a second. Whoever sends more is read more
	// slowly.
	unitsPerSecond = 20_000
	unitsAtOnce    = 40_000
	unitBytes      = 4 << 10

	writeTimeout = 10 * time.Second
	pingEvery    = 10 * time.Second
	pongWithin   = 10 * time.Second // so that silence ends a connection after 20 s
)

// A conn is one WebSocket of a client. Its reader is the goroutine that calls
// run, which also owns the writer and the pinger.
type conn struct {
	id     string
	client string
	ws     *websocket.Conn
	log    *slog.Logger
	ping   pingTimes
	pace   *rate.Limiter // of all connections of the client; set by conns.add

	out    chan []byte // frames to be written; never closed
	queued atomic.Int64
	done   chan struct{} // closed by stop
	once   sync.Once
}

// pingTimes are shorter in tests.
type pingTimes struct{ every, within time.Duration }

func newConn(ws *websocket.Conn, client string, ping pingTimes, log *slog.Logger) *conn {
	id := newConnID()
	c := &conn{
		id: id, client: client, ws: ws, ping: ping,
		log:  log.With("client", client, "conn", id),
		out:  make(chan []byte, maxQueued),
		done: make(chan struct{}),
	}
	ws.SetReadLimit(maxFrame)
	return c
}

// newConnID returns 26 letters and digits in z-base-32, 128 random bits.
func newConnID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding).EncodeToString(random[:])
}

// stop ends the connection from any goroutine. It does not wait.
func (c *conn) stop() {
	c.once.Do(func() { close(c.done) })
}

func (c *conn) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// send queues a frame. It returns false if the connection is gone, or is ended
// here because it does not keep up.
func (c *conn) send(frame []byte) bool {
	if !c.alive() {
		return false
	}
	if c.queued.Add(int64(len(frame))) <= maxQueuedBytes {
		select {
		case c.out <- frame:
			return true
		default:
		}
	}
	c.log.Warn("close connection that does not keep up", "queued", len(c.out), "bytes", c.queued.Load())
	c.stop()
	return false
}

// run reads until the connection ends and gives each binary frame to handle.
// It returns after the writer and the pinger have.
func (c *conn) run(handle func(frame []byte)) error {
	ctx, cancel := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	helpers.Go(func() { c.write(ctx) })
	helpers.Go(func() { c.keepAlive(ctx) })
	helpers.Go(func() { <-c.done; cancel() })
	err := c.read(ctx, handle)
	if errors.Is(err, websocket.ErrMessageTooBig) {
		// Wait for the peer to close: were we to leave bytes of it unread, it
		// might never see our close frame, for TCP would reset the connection.
		_ = c.ws.Close(websocket.StatusMessageTooBig, "message too big")
	}
	c.stop()
	_ = c.ws.CloseNow()
	helpers.Wait()
	return err
}

func (c *conn) read(ctx context.Context, handle func([]byte)) error {
	for {
		typ, frame, err := c.ws.Read(ctx)
		if err != nil {
			return err
		}
		if typ != websocket.MessageBinary {
			c.log.Debug("ignore text message", "bytes", len(frame))
			continue
		}
		if err := c.pace.WaitN(ctx, 1+len(frame)/unitBytes); err != nil {
			return err
		}
		handle(frame)
	}
}

func (c *conn) write(ctx context.Context) {
	for {
		select {
		case <-c.done:
			return
		case frame := <-c.out:
			c.queued.Add(-int64(len(frame)))
			frameCtx, cancel := context.WithTimeout(ctx, writeTimeout)
			err := c.ws.Write(frameCtx, websocket.MessageBinary, frame)
			cancel()
			if err != nil {
				c.log.Debug("write to connection", "err", err)
				c.stop()
				return
			}
		}
	}
}

func (c *conn) keepAlive(ctx context.Context) {
	tick := time.NewTicker(c.ping.every)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
			pingCtx, cancel := context.WithTimeout(ctx, c.ping.within)
			err := c.ws.Ping(pingCtx)
			cancel()
			if err != nil {
				c.log.Debug("no answer to ping", "err", err)
				c.stop()
				return
			}
		}
	}
}

// maxConns bounds the connections of one client. A node of Mattermost needs one.
const maxConns = 256

// conns are the living connections by client, oldest first.
type conns struct {
	pace func() *rate.Limiter // makes the limit of one client

	mu      sync.Mutex // guards the following
	stopped bool
	all     map[string][]*conn
}

func newConns() conns {
	pace := func() *rate.Limiter { return rate.NewLimiter(unitsPerSecond, unitsAtOnce) }
	return conns{pace: pace, all: make(map[string][]*conn)}
}

// add fails when the client has too many or the server has stopped.
func (s *conns) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || len(s.all[c.client]) >= maxConns {
		return false
	}
	if others := s.all[c.client]; len(others) > 0 {
		c.pace = others[0].pace
	} else {
		c.pace = s.pace()
	}
	s.all[c.client] = append(s.all[c.client], c)
	return true
}

func (s *conns) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[c.client] = slices.DeleteFunc(s.all[c.client], func(x *conn) bool { return x == c })
	if len(s.all[c.client]) == 0 {
		delete(s.all, c.client)
	}
}

// newest returns the living connection of a client that was opened last, or nil.
func (s *conns) newest(client string) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range slices.Backward(s.all[client]) {
		if c.alive() {
			return c
		}
	}
	return nil
}

// stopClient ends all connections of a client.
func (s *conns) stopClient(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all[client] {
		c.stop()
	}
}

// stopAll ends all connections and lets no new one in.
func (s *conns) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, all := range s.all {
		for _, c := range all {
			c.stop()
		}
	}
}
