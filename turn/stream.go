package turn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// strangerTime is how long a connection may live without an allocation.
	strangerTime = 10 * time.Second

	// outboxSize is how many bytes may wait for a slow connection: enough for
	// a key frame, or a quarter of a second at 8 Mbit/s.
	outboxSize = 256 << 10

	// outboxIdle is the buffer a connection keeps while it has nothing to send.
	outboxIdle = 16 << 10

	// One write takes at most writeChunk bytes and writeTime; slower clients
	// are cut off.
	writeChunk = 16 << 10
	writeTime  = 10 * time.Second
)

// A stream is one TCP or TLS connection. Its reader and its writer are
// goroutines of run; the shard's goroutine calls promote and demote; anybody
// sends.
type stream struct {
	conn     net.Conn
	network  netip.Addr // it counts for in the lobby
	client   *client
	shard    *shard
	lobby    *lobby
	drops    *drops
	patience time.Duration // strangerTime, less in tests
	single   bool          // one frame per write

	allocated atomic.Bool // larger frames allowed, out of the lobby
	wake      chan struct{}
	done      chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the following
	pending []byte     // whole frames, to be written
	ended   bool
}

// run serves the connection until it ends or ctx does, and closes it. When run
// returns, the shard has been told.
func (s *stream) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(s.write)
	s.read()
	s.mu.Lock()
	s.ended, s.pending = true, nil
	s.mu.Unlock()
	close(s.done)
	_ = s.conn.Close()
	writer.Wait()
	s.shard.post(event{s.client, connectionGone})
}

func (s *stream) read() {
	if s.conn.SetReadDeadline(time.Now().Add(s.patience)) != nil {
		return
	}
	f := newFramer(s.conn)
	for {
		limit := uint32(maxStrangerFrame)
		if s.allocated.Load() {
			limit = maxFrame
		}
		skipped := f.oversized
		b, err := f.next(limit)
		if f.oversized > skipped {
			s.drops.oversize.Add(float64(f.oversized - skipped))
		}
		if err != nil {
			if errors.Is(err, errNotTURN) || errors.Is(err, errFrameTooLong) {
				s.drops.malformed.Inc()
			}
			return
		}
		p := packetOf(b)
		p.client, p.source = s.client, s.client.source
		if !s.shard.frame(p) {
			return
		}
	}
}

// promote frees the connection from the limits of strangers.
func (s *stream) promote() {
	if s.allocated.CompareAndSwap(false, true) {
		s.lobby.leave(s.network)
		_ = s.conn.SetReadDeadline(time.Time{})
	}
}

// demote makes it a stranger again: it has to allocate anew or go.
func (s *stream) demote() {
	if s.allocated.CompareAndSwap(true, false) {
		s.lobby.rejoin(s.network)
		_ = s.conn.SetReadDeadline(time.Now().Add(s.patience))
	}
}

// send queues one frame. If the connection does not keep up it is dropped, and
// no part of it is sent.
func (s *stream) send(b []byte, _ netip.AddrPort) {
	s.mu.Lock()
	fits := !s.ended && len(s.pending)+len(b) <= outboxSize
	if fits {
		s.pending = append(s.pending, b...)
	}
	ended := s.ended
	s.mu.Unlock()
	switch {
	case fits:
		select {
		case s.wake <- struct{}{}:
		default: // the writer has yet to take what is already there
		}
	case !ended:
		s.drops.stream.Inc()
	}
}

// write sends what send queued, until the connection ends: many frames in one
// write on TCP; on TLS one frame in one record, because there are clients
// (coturn's) that take a record for a message and lose what follows the first.
func (s *stream) write() {
	var writing []byte
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		s.mu.Lock()
		writing, s.pending = s.pending, writing[:0]
		s.mu.Unlock()
		for rest := writing; len(rest) > 0; {
			n := min(len(rest), writeChunk)
			if s.single {
				n = frameLength(rest)
			}
			_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime))
			if _, err := s.conn.Write(rest[:n]); err != nil {
				_ = s.conn.Close() // ends the reader, which ends us
				<-s.done
				return
			}
			rest = rest[n:]
		}
		if cap(writing) > outboxIdle {
			writing = nil
		}
	}
}
