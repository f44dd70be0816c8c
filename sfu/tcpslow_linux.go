package sfu

import (
	"cmp"
	"errors"
	"net"
	"syscall"
)

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of tcp(7), which package syscall lacks.
const tcpNotSentLowat = 25

// keepShort returns what writes to c so that the kernel takes no more than it can
// send soon: what it has taken, voice cannot overtake. And CUBIC gives way when a
// link gets narrow, where BBR, which is the default on some machines, believes for
// ten round trips in what the link once carried, and loses everything it sends
// meanwhile. Best effort: without it voice is later on a slow way.
func keepShort(c net.Conn) *shortWriter {
	w := &shortWriter{conn: c}
	if under, ok := c.(interface{ NetConn() net.Conn }); ok { // of the shared port
		c = under.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return w
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return w
	}
	if raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, tcpShort)
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, "cubic")
	}) == nil {
		w.raw, w.send = raw, w.trySend
	}
	return w
}

// A shortWriter writes to a TCP connection. The kernel looks at how much it holds
// only when it begins a new buffer, and joins to the last one, up to 64 KiB,
// whatever is written before that has been sent. So it is told of an end every so
// often, behind which it begins a new one.
type shortWriter struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn it is
	open int             // bytes since the last end
	slow bool            // it had to wait for room

	// One write's, here so that it allocates nothing.
	send   func(fd uintptr) bool // trySend
	rest   []byte                // not sent yet
	flags  int
	failed error
}

// most is how much should be written at once.
func (w *shortWriter) most() int {
	if w.slow {
		return tcpShort
	}
	return tcpBatch
}

// Write implements io.Writer, for one goroutine.
func (w *shortWriter) Write(b []byte) (int, error) {
	if w.raw == nil {
		return w.conn.Write(b)
	}
	w.rest, w.flags, w.failed, w.slow = b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, nil, false
	if w.open += len(b); w.open >= tcpShort {
		w.flags |= syscall.MSG_EOR
		w.open = 0
	}
	err := w.raw.Write(w.send)
	sent := len(b) - len(w.rest)
	w.rest = nil
	return sent, cmp.Or(w.failed, err)
}

// trySend is for syscall.RawConn.Write, which calls it again when there is room.
func (w *shortWriter) trySend(fd uintptr) (done bool) {
	for len(w.rest) > 0 && w.failed == nil {
		n, err := syscall.SendmsgN(int(fd), w.rest, nil, nil, w.flags)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			w.slow = true
			return false
		case err == nil:
			w.rest = w.rest[n:]
		case !errors.Is(err, syscall.EINTR):
			w.failed = err
		}
	}
	return true
}
