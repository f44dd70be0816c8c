package turn

import (
	"cmp"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// wireLimit bounds what TLS itself may have to say to a client that does not
// listen: nothing is written for it, so only it is hurt.
const wireLimit = 64 << 10

var errDeaf = errors.New("write: the other side does not read")

// A wire is where the bytes of a connection leave, those that TLS has made of our
// frames: it gives the kernel what it takes without waiting, so that anybody's
// goroutine may write. Who holds it collects several writes for one system call,
// and sends them; what others write meanwhile, TLS itself, goes along.
type wire struct {
	tcp  *net.TCPConn
	raw  syscall.RawConn
	call func(fd uintptr) // w.attempt, made once

	mu   sync.Mutex // guards the following
	held bool
	buf  *[]byte // what waits, from sent on; nil: nothing
	sent int
	open int   // bytes since the kernel was told of an end
	err  error // of call
}

// wires are buffers of what is being written. Connections that have nothing to
// send hold none.
var wires = sync.Pool{New: func() any {
	b := make([]byte, 0, writeChunk+writeChunk/2)
	return &b
}}

// A diverter is a connection that lets somebody else read from the one underneath and
// write to it.
type diverter interface {
	NetConn() net.Conn
	Divert(from io.Reader, to io.Writer)
}

// newWire returns the wire of a connection, which from now on writes to it, and
// reads from an inlet; nil if that is not possible. Nobody may use it meanwhile.
func newWire(conn net.Conn) *wire {
	if !canTry {
		return nil
	}
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		d, ok := conn.(diverter)
		if tcp, is := inner.NetConn().(*net.TCPConn); ok && is {
			raw, err := tcp.SyscallConn()
			if err != nil {
				return nil
			}
			w := &wire{tcp: tcp, raw: raw}
			w.call = w.attempt
			d.Divert(newInlet(raw), w)
			return w
		}
		conn = inner.NetConn()
	}
}

// Write keeps b for who holds the wire. If nobody does, b is TLS's own, an alert
// or the like: it is sent as far as possible, the rest with what comes next.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buf == nil {
		w.buf = wires.Get().(*[]byte)
	}
	if len(*w.buf)-w.sent > wireLimit {
		return 0, errDeaf
	}
	*w.buf = append(*w.buf, b...)
	if !w.held {
		if _, err := w.try(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// hold makes Write collect. One holds a wire at a time.
func (w *wire) hold() {
	w.mu.Lock()
	w.held = true
	w.mu.Unlock()
}

// waiting is how many bytes have been collected and not been taken.
func (w *wire) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buf == nil {
		return 0
	}
	return len(*w.buf) - w.sent
}

// send gives the kernel what it takes now. If that is all the wire is not held
// any more.
func (w *wire) send() (all bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all, err = w.try(); all {
		w.held = false
	}
	return all, err
}

// push waits until the kernel has taken all, a while at most. The wire stays
// held.
func (w *wire) push() error {
	_ = w.tcp.SetWriteDeadline(time.Now().Add(writeTime))
	var failed error
	err := w.raw.Write(func(fd uintptr) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.buf != nil {
			w.attempt(fd)
		}
		failed = w.err
		return w.buf == nil || failed != nil
	})
	return cmp.Or(err, failed)
}

// try needs w.mu.
func (w *wire) try() (all bool, err error) {
	if w.buf == nil {
		return true, nil
	}
	if err := w.raw.Control(w.call); err != nil {
		return false, err
	}
	return w.buf == nil, w.err
}

// attempt is called with the socket, if something waits. It needs w.mu.
//
// The kernel looks at how much it holds only when it begins a new buffer, and joins
// to the last one, up to 64 KiB, whatever is written before that has been sent. So
// it is told of an end every so often, behind which it begins a new one.
func (w *wire) attempt(fd uintptr) {
	b := (*w.buf)[w.sent:]
	last := w.open+len(b) >= kernelShare
	n, err := trySend(fd, b, last)
	w.sent += n
	w.open += n
	w.err = err
	if n < len(b) {
		return
	}
	if last {
		w.open = 0
	}
	giveBack(w.buf)
	w.buf, w.sent = nil, 0
}

func giveBack(buf *[]byte) {
	if cap(*buf) > 4*writeChunk {
		return
	}
	*buf = (*buf)[:0]
	wires.Put(buf)
}
