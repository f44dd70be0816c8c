package sfu

import (
	"net"
	"net/netip"
	"sync"
)

// maxDatagram is the largest datagram the SFU handles, in bytes: an Ethernet
// frame's payload. rtcd's limit for RTP is 1460 (rtcd protocol §4.13).
const maxDatagram = 1500

// A datagram is one received packet in a pooled buffer.
type datagram struct {
	buf  [maxDatagram]byte
	n    int
	from net.Addr       // of push
	at   netip.AddrPort // of pushFrom
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// A queue hands datagrams from a socket's reader to one session's ICE agent. It
// holds at most its capacity; when full it drops the oldest, because late media
// is worth less than fresh media, and nobody waits for a slow session.
type queue struct {
	mu     sync.Mutex
	ready  sync.Cond
	ring   []*datagram // grows up to capacity: most queues stay nearly empty
	head   int         // index of the oldest
	count  int
	closed bool
	drops  uint64
	unused []byte // the buffer of who waits in pop; nil while nobody does

	capacity int
}

// firstRing is how many datagrams a queue has room for at first.
const firstRing = 8

func newQueue(capacity int) *queue {
	q := &queue{ring: make([]*datagram, min(firstRing, capacity)), capacity: capacity}
	q.ready.L = &q.mu
	return q
}

// push copies p into the queue and reports whether nothing was lost.
func (q *queue) push(p []byte, from net.Addr) bool {
	return q.put(p, from, netip.AddrPort{})
}

// pushFrom is push for those who call popFrom.
func (q *queue) pushFrom(p []byte, from netip.AddrPort) bool { return q.put(p, nil, from) }

func (q *queue) put(p []byte, from net.Addr, at netip.AddrPort) bool {
	d := datagrams.Get().(*datagram)
	d.n, d.from, d.at = copy(d.buf[:], p), from, at

	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		datagrams.Put(d)
		return false
	}
	if q.count == len(q.ring) && q.count < q.capacity {
		q.grow()
	}
	full := q.count == len(q.ring)
	if full {
		datagrams.Put(q.ring[q.head])
		q.head = (q.head + 1) % len(q.ring)
		q.count--
		q.drops++
	}
	q.ring[(q.head+q.count)%len(q.ring)] = d
	q.count++
	q.ready.Signal()
	return !full
}

// grow doubles the ring. It needs q.mu.
func (q *queue) grow() {
	next := make([]*datagram, min(2*len(q.ring), q.capacity))
	for i := range q.count {
		next[i] = q.ring[(q.head+i)%len(q.ring)]
	}
	q.ring, q.head = next, 0
}

// pop copies the oldest datagram into p, waiting for one. It returns
// net.ErrClosed once the queue is closed.
func (q *queue) pop(p []byte) (int, net.Addr, error) {
	d := q.next(p)
	if d == nil {
		return 0, nil, net.ErrClosed
	}
	n, from := copy(p, d.buf[:d.n]), d.from
	d.from = nil
	datagrams.Put(d)
	return n, from, nil
}

// popFrom is pop of what came with pushFrom.
func (q *queue) popFrom(p []byte) (int, netip.AddrPort, error) {
	d := q.next(p)
	if d == nil {
		return 0, netip.AddrPort{}, net.ErrClosed
	}
	n, at := copy(p, d.buf[:d.n]), d.at
	datagrams.Put(d)
	return n, at, nil
}

// next waits for the oldest datagram, which is to go into p, and takes it out. nil:
// closed.
func (q *queue) next(p []byte) *datagram {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count == 0 && !q.closed {
		q.unused = p
		q.ready.Wait()
	}
	q.unused = nil
	if q.closed {
		return nil
	}
	d := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) % len(q.ring)
	q.count--
	return d
}

// close wakes the reader and gives the buffers back.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	for ; q.count > 0; q.count-- {
		datagrams.Put(q.ring[q.head])
		q.ring[q.head] = nil
		q.head = (q.head + 1) % len(q.ring)
	}
	q.ready.Broadcast()
}

// empty reports whether pop would wait.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count == 0
}
