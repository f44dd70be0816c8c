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

	// kernelShare is how many bytes the kernel should keep that it has not sent yet,
	// and how many are made ready for a connection that does not keep up: neither
	// can be overtaken by voice any more. Less would cost wide links a part of what
	// they carry.
	kernelShare = 2 << 10

	// coalesceFrom is how many bytes must wait for several frames to share a TLS
	// record. There are clients (coturn's) that take a record for a message and
	// lose what follows the first; they never send so much that this much waits,
	// not even on a busy machine.
	coalesceFrom = 16 << 10
)

// A stream is one TCP or TLS connection. Its reader is the goroutine of run; the
// shard's goroutine calls promote and demote; anybody sends.
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

	wire    *wire          // what conn writes to; nil: writing waits
	writing sync.Mutex     // held by who writes; for good once the stream has ended
	later   sync.WaitGroup // the goroutine that waits for the connection, if one has to
}

// run serves the connection until it ends or ctx does, and closes it. When run
// returns, the shard has been told.
func (s *stream) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	s.read()
	s.out.end()
	s.shard.post(event{s.client, connectionGone}) // first: TLS says goodbye, which may take seconds
	_ = s.conn.Close()
	s.writing.Lock()
	s.later.Wait()
}

func (s *stream) read() {
	if s.conn.SetReadDeadline(time.Now().Add(s.patience)) != nil {
		return
	}
	f := newFramer(s.conn)
	var media *haul // of what was read at once
	defer func() { media.release() }()
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
		if isChannelData(b) {
			if media == nil {
				media = newHaul()
			}
			if media.add(s.client, b) {
				if !f.ready() {
					media.release()
					media = nil
				}
				continue
			}
		}
		media.release()
		media = nil
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

// send queues one frame and writes it, without waiting for the connection. If
// that does not keep up the frame is dropped, or what has waited longer, and no
// part of it is sent.
func (s *stream) send(b []byte, _ netip.AddrPort) {
	if s.out.put(b) {
		s.flush()
	}
}

// flush writes what waits, on whatever goroutine it is called: many frames in one
// write on TCP; on TLS a record for each, several only if many wait. Once the
// kernel takes no more a goroutine waits in our place. Who finds somebody else
// writing leaves, for that one looks again after it has finished.
func (s *stream) flush() {
	for s.out.waiting() > 0 && s.writing.TryLock() {
		if s.wire == nil || !s.writeNow() {
			s.later.Go(s.writeLater)
			return
		}
		s.writing.Unlock()
	}
}

// writeNow writes until nothing waits any more or the kernel takes no more, which
// is false. It needs s.writing.
func (s *stream) writeNow() bool {
	s.wire.hold()
	for {
		more := s.fill(writeChunk)
		switch all, err := s.wire.send(); {
		case err != nil:
			s.fail()
			return true
		case !all:
			return false
		case !more:
			return true
		}
		s.wire.hold()
	}
}

// writeLater waits for the connection until nothing waits any more. It needs
// s.writing and gives it back.
func (s *stream) writeLater() {
	if s.wire != nil {
		s.pushAll()
	} else {
		for more := true; more; more = s.seal(writeChunk) {
			_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		}
	}
	s.writing.Unlock()
	s.flush()
}

func (s *stream) pushAll() {
	for {
		if s.wire.push() != nil {
			s.fail()
			return
		}
		s.fill(kernelShare)
		if s.wire.waiting() == 0 {
			_, _ = s.wire.send() // what TLS has said meanwhile
			return
		}
	}
}

// fail ends a connection that cannot be written to.
func (s *stream) fail() {
	s.out.end()
	_ = s.conn.Close() // ends the reader, which ends us
}

// chunks are buffers for what is being written. Connections that have nothing
// to send hold none.
var chunks = sync.Pool{New: func() any { return new([writeChunk]byte) }}

// fill makes about so many bytes of what waits ready to be sent, and tells whether
// more may wait. It needs s.writing.
func (s *stream) fill(most int) bool {
	for s.wire.waiting() < most {
		if !s.seal(most - s.wire.waiting()) {
			return false
		}
	}
	return true
}

// seal makes one write of what waits, so many bytes at most or one frame, and tells
// whether there was anything. It needs s.writing.
func (s *stream) seal(most int) bool {
	chunk := chunks.Get().(*[writeChunk]byte)
	defer chunks.Put(chunk)
	frames := writeChunk // as many as fit
	if s.records && s.out.waiting() < coalesceFrom {
		frames = 1
	}
	b := s.out.take(chunk[:0], most, frames)
	if len(b) == 0 {
		return false
	}
	if _, err := s.conn.Write(b); err != nil {
		s.fail()
		return false
	}
	return true
}
