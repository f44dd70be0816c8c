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

	// One write takes at most writeChunk bytes, one TLS record, and writeTime;
	// slower clients are cut off. More would delay what is urgent.
	writeChunk = 8 << 10
	writeTime  = 10 * time.Second

	// coalesceFrom is how many bytes must wait for several frames to share a TLS
	// record. There are clients (coturn's) that take a record for a message and
	// lose what follows the first; they never send so much that this much waits,
	// not even on a busy machine.
	coalesceFrom = 16 << 10
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
	out      *outbox
	patience time.Duration // strangerTime, less in tests
	records  bool          // a write is a TLS record

	allocated atomic.Bool // larger frames allowed, out of the lobby
	wake      chan struct{}
	done      chan struct{} // closed when the reader has ended
}

// run serves the connection until it ends or ctx does, and closes it. When run
// returns, the shard has been told.
func (s *stream) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(s.write)
	s.read()
	s.out.end()
	close(s.done)
	s.shard.post(event{s.client, connectionGone}) // first: TLS says goodbye, which may take seconds
	_ = s.conn.Close()
	writer.Wait()
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

// send queues one frame. If the connection does not keep up it is dropped, or
// what has waited longer, and no part of it is sent.
func (s *stream) send(b []byte, _ netip.AddrPort) {
	if !s.out.put(b) {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default: // the writer has yet to take what is already there
	}
}

// write sends what send queued, until the connection ends: many frames in one
// write on TCP; on TLS only if many wait.
func (s *stream) write() {
	keepShort(s.conn)
	for {
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
		if !s.flush() {
			_ = s.conn.Close() // ends the reader, which ends us
			<-s.done
			return
		}
	}
}

// chunks are buffers for what is being written. Connections that have nothing
// to send hold none.
var chunks = sync.Pool{New: func() any { return new([writeChunk]byte) }}

// flush writes all that waits; false if that failed.
func (s *stream) flush() bool {
	chunk := chunks.Get().(*[writeChunk]byte)
	defer chunks.Put(chunk)
	for {
		frames := writeChunk // as many as fit
		if s.records && s.out.waiting() < coalesceFrom {
			frames = 1
		}
		b := s.out.take(chunk[:0], writeChunk, frames)
		if len(b) == 0 {
			return true
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := s.conn.Write(b); err != nil {
			return false
		}
	}
}
