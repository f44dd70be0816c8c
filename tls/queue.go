package tls

import (
	"context"
	"net"
	"sync"
)

// A queue is a net.Listener fed by a [Port]. Between push and Accept wait at
// most cap(conns) connections. Whoever closes it, the Port or the server that
// accepts from it, closes the connections that nobody accepted.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

func newQueue(addr net.Addr, size int) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn, size), done: make(chan struct{})}
}

// Accept returns the next connection, or net.ErrClosed after Close.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case <-q.done:
		return nil, q.closed()
	default:
	}
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, q.closed()
	}
}

func (q *queue) closed() error {
	return &net.OpError{Op: "accept", Net: q.addr.Network(), Addr: q.addr, Err: net.ErrClosed}
}

// Close ends Accept and closes what is queued. It never fails.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	q.drain()
	return nil
}

// Addr returns the address of the Port, a *net.TCPAddr.
func (q *queue) Addr() net.Addr { return q.addr }

// push gives c to the queue, waiting for room until ctx ends. It reports
// whether c now belongs to the queue; if not, the caller still owns it.
func (q *queue) push(ctx context.Context, c net.Conn) bool {
	select {
	case <-q.done: // first, since select takes any case that is ready
		return false
	default:
	}
	select {
	case <-q.done:
		return false
	case <-ctx.Done():
		return false
	case q.conns <- c:
	}
	select {
	case <-q.done: // closed meanwhile: its drain may have come before c
		q.drain()
	default:
	}
	return true
}

func (q *queue) drain() {
	for {
		select {
		case c := <-q.conns:
			c.Close()
		default:
			return
		}
	}
}
