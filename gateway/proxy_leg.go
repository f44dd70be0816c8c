package gateway

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A leg is one of the two connections of a tunnel. Reading it takes memory only
// while there is something to read.
type leg struct {
	net.Conn
	raw     syscall.RawConn // of the socket; nil: reading waits in Read, with a buffer
	layered bool            // bytes may be kept between socket and Read, as in TLS

	mu   sync.Mutex // guards the following, and the deadline of reading
	last time.Time  // after which nothing is read any more; zero: for ever
}

func newLeg(c net.Conn) *leg {
	l := &leg{Conn: c}
	for {
		if s, ok := c.(syscall.Conn); ok {
			if l.raw, _ = s.SyscallConn(); l.raw != nil {
				endUnacknowledged(l.raw, peerLost)
			}
			return l
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return l
		}
		l.layered = true
		c = below.NetConn()
	}
}

// wait returns when the socket has something to read, its end included.
func (l *leg) wait() error {
	if l.raw == nil {
		return nil
	}
	waited := false
	return l.raw.Read(func(fd uintptr) bool {
		if waited {
			return true
		}
		waited = true
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN && err != syscall.EINTR
	})
}

// tunnelBuffer is what a direction holds while bytes pass: room for one TLS
// record.
const tunnelBuffer = 16 << 10

var tunnelBuffers = sync.Pool{New: func() any { return new([tunnelBuffer]byte) }}

// receive waits for bytes and hands them to take, as long as there are any. It
// returns the error of reading, or that of take.
func (l *leg) receive(take func([]byte) error) error {
	if l.layered && l.raw != nil { // what came along with the handshake may be above the socket already
		if err := l.burst(take, true); err != nil {
			return err
		}
	}
	for {
		if err := l.wait(); err != nil {
			return err
		}
		if err := l.burst(take, false); err != nil {
			return err
		}
	}
}

// burst reads what there is; only what lies above the socket, if above is set.
func (l *leg) burst(take func([]byte) error, above bool) error {
	buf := tunnelBuffers.Get().(*[tunnelBuffer]byte)
	defer tunnelBuffers.Put(buf)
	for ; ; above = true {
		n, err := l.read(buf[:], above)
		if n > 0 {
			if failed := take(buf[:n]); failed != nil {
				return failed
			}
		}
		if above && errors.Is(err, os.ErrDeadlineExceeded) {
			if n == 0 {
				return nil
			}
			continue
		}
		if err != nil || !l.layered || l.raw == nil {
			return err
		}
	}
}

// read is Read; with above, it does not wait: the socket says nothing of what lies
// above it, but a deadline that is over makes Read return that.
func (l *leg) read(b []byte, above bool) (int, error) {
	if !above {
		return l.Read(b)
	}
	defer l.lift()
	_ = l.SetReadDeadline(longAgo) // fails only on a closed connection, as Read will find out
	return l.Read(b)
}

// lift ends a deadline that was set for one Read.
func (l *leg) lift() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.SetReadDeadline(l.last)
}

// readUntil ends reading at the given time, for good.
func (l *leg) readUntil(last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = last
	_ = l.SetReadDeadline(last)
}

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)
