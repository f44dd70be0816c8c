package sfu

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A tcpMuxConn is what one session's ICE agent sees of its TCP connections on one
// advertised address.
type tcpMuxConn struct {
	mux   *tcpMux
	ufrag string
	addr  netip.AddrPort // as advertised when it was made
	in    *queue

	roles  roleWatch
	tap    *tapSlot
	closed atomic.Bool

	mu    sync.RWMutex // guards peers
	peers map[netip.AddrPort]*tcpPeer
}

// A tcpPeer is one TCP connection with its writer.
type tcpPeer struct {
	net.Conn
	remote *net.TCPAddr
	out    *tcpQueue
}

// join adds a TCP connection to the session.
func (c *tcpMuxConn) join(nc net.Conn) (*tcpPeer, bool) {
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil, false
	}
	p := &tcpPeer{Conn: nc, remote: remote, out: newTCPQueue(c.mux.drops)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() || len(c.peers) >= maxSessionTCP {
		return nil, false
	}
	c.peers[localAddrPort(remote)] = p
	return p, true
}

func (c *tcpMuxConn) part(p *tcpPeer) {
	p.out.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := localAddrPort(p.remote); c.peers[at] == p {
		delete(c.peers, at)
	}
}

// take gives the agent what came from a remote address. p may be changed until
// the end of the batch.
func (c *tcpMuxConn) take(r *reader, p []byte, from *net.TCPAddr) {
	if r != nil && c.tap.takes(r, p) {
		return
	}
	if isBindingError(p) { // of no use to the agent as it is
		p = c.roles.refusal(p)
	}
	if p != nil && !c.in.push(p, from) {
		c.mux.drops("queue_full")
	}
}

// write sends what is queued, as one write for what waits together, until the
// queue is closed or the connection fails.
func (p *tcpPeer) write() {
	to := keepShort(p.Conn)
	buf := make([]byte, 0, tcpBatch)
	for {
		var more bool
		if buf, more = p.out.next(buf[:0], to.most()); !more {
			return
		}
		_ = p.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := to.Write(buf); err != nil {
			_ = p.Close() // ends the reader, which removes the peer
			return
		}
	}
}

// ReadFrom returns the next datagram. It implements net.PacketConn.
func (c *tcpMuxConn) ReadFrom(p []byte) (int, net.Addr, error) { return c.in.pop(p) }

// WriteTo queues p for the TCP connection from that remote address. It never
// blocks: when the connection is slow, its oldest video is lost. It
// implements net.PacketConn.
func (c *tcpMuxConn) WriteTo(p []byte, to net.Addr) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	c.mu.RLock()
	peer := c.peers[localAddrPort(to)]
	c.mu.RUnlock()
	if peer == nil {
		return 0, fmt.Errorf("send to %s: %w", to, io.ErrNoProgress) // not ErrClosedPipe: the agent has other candidates
	}
	pass, request := c.roles.outgoing(p)
	if request != nil {
		c.take(nil, request, peer.remote)
	}
	if !pass {
		return len(p), nil
	}
	if !c.tap.sends(p) {
		return len(p), nil
	}
	if !peer.out.push(p, peer.remote) {
		c.mux.drops("tcp_slow")
	}
	return len(p), nil
}

// Close ends the session's TCP connections. It implements net.PacketConn.
func (c *tcpMuxConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.in.close()
	c.mux.forget(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		p.out.close()
		_ = p.Conn.Close()
	}
	return nil
}

// LocalAddr is the advertised address. It implements net.PacketConn.
func (c *tcpMuxConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.addr) }

// SetDeadline does nothing: reads end with Close and writes do not block. It
// implements net.PacketConn.
func (c *tcpMuxConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is like SetDeadline.
func (c *tcpMuxConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is like SetDeadline.
func (c *tcpMuxConn) SetWriteDeadline(time.Time) error { return nil }

// readFrame reads one RFC 4571 frame into buf and returns its length. A frame
// larger than buf is an error: the stream cannot be trusted after it.
func readFrame(r io.Reader, buf []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 || n > len(buf) {
		return 0, fmt.Errorf("frame of %d bytes: want 1 to %d", n, len(buf))
	}
	return io.ReadFull(r, buf[:n])
}

// nextFrame returns the next RFC 4571 frame of those that have been received
// whole, in the place where it is: it is valid until more is received.
func nextFrame(r *bufio.Reader) ([]byte, bool) {
	if r.Buffered() < 2 {
		return nil, false
	}
	head, _ := r.Peek(2)
	n := int(binary.BigEndian.Uint16(head))
	if n == 0 || n > maxDatagram || r.Buffered() < 2+n { // readFrame sees to it
		return nil, false
	}
	frame, _ := r.Peek(2 + n)
	_, _ = r.Discard(2 + n)
	return frame[2:], true
}
