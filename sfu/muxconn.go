package sfu

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A muxConn is what one session's ICE agent sees of the media sockets behind one
// advertised address. Its ReadFrom is called by the agent alone; WriteTo by the
// agent and by everything that sends through it.
type muxConn struct {
	mux   *mux
	ufrag string
	addr  netip.AddrPort // as advertised when it was made
	ways  []*muxSocket   // where it may write, in the order to be tried
	in    *queue

	roles  roleWatch
	tap    *tapSlot
	closed atomic.Bool

	mu    sync.RWMutex // guards paths; taken before a muxSocket's
	paths map[netip.AddrPort]*muxPath
}

// A muxPath is a remote address and the socket that leads to it.
type muxPath struct {
	socket *muxSocket
	remote *net.UDPAddr
	routed bool         // the socket delivers what comes back to us
	way    *way         // to remote; nil until somebody wants it
	heard  atomic.Int64 // Unix nanoseconds of the last STUN request from there, or of something authentic; 0 = never
}

// replace puts next in the place of a path. It needs c.mu.
func (c *muxConn) replace(from netip.AddrPort, next *muxPath) {
	if old := c.paths[from]; old != nil {
		next.heard.Store(old.heard.Load())
		if next.way = old.way; next.way != nil {
			next.way.socket.Store(next.socket)
		}
	}
	c.paths[from] = next
}

// room makes room for one more path. One that was never heard goes first, and then
// the one that has been silent longest, if that is long. It needs c.mu.
func (c *muxConn) room(now int64) bool {
	if len(c.paths) < maxRoutes {
		return true
	}
	var at netip.AddrPort
	var p *muxPath
	for a, x := range c.paths {
		if p == nil || x.heard.Load() < p.heard.Load() {
			at, p = a, x
		}
	}
	if now-p.heard.Load() < int64(routeIdle) {
		return false
	}
	delete(c.paths, at)
	if p.routed {
		p.socket.release(at, c)
	}
	return true
}

// path notes that from was heard through s and returns the address to show the
// ICE agent, the same object each time.
func (c *muxConn) path(s *muxSocket, from netip.AddrPort) *net.UDPAddr {
	c.mu.RLock()
	p := c.paths[from]
	c.mu.RUnlock()
	now := time.Now().UnixNano()
	if p != nil && p.socket == s {
		p.heard.Store(now)
		return p.remote
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() || p == nil && !c.room(now) {
		return net.UDPAddrFromAddrPort(from) // in so many places only under attack: answer, but remember nothing
	}
	if p != nil && p.routed {
		p.socket.release(from, c)
	}
	p = &muxPath{socket: s, remote: net.UDPAddrFromAddrPort(from)}
	c.replace(from, p)
	p.heard.Store(now)
	return p.remote
}

// ReadFrom returns the next datagram. It implements net.PacketConn.
func (c *muxConn) ReadFrom(p []byte) (int, net.Addr, error) { return c.in.pop(p) }

// WriteTo sends p to a remote address by the socket it was heard through, or the
// first that will have it. It never blocks. It implements net.PacketConn.
func (c *muxConn) WriteTo(p []byte, to net.Addr) (int, error) {
	remote := localAddrPort(to)
	pass, request := c.roles.outgoing(p)
	if request != nil {
		c.mux.push(c, request, net.UDPAddrFromAddrPort(remote))
	}
	if !pass {
		return len(p), nil
	}
	if !c.tap.sends(p) {
		return len(p), nil
	}
	c.mu.RLock()
	path := c.paths[remote]
	c.mu.RUnlock()
	switch {
	case c.closed.Load():
		return 0, net.ErrClosed
	case path != nil && path.routed:
		return path.socket.send(p, path.remote, remote)
	}
	return c.open(p, remote, path)
}

// open sends the first datagram to a remote address and asks for what comes back.
func (c *muxConn) open(p []byte, remote netip.AddrPort, path *muxPath) (int, error) {
	udp := net.UDPAddrFromAddrPort(remote)
	ways := c.ways
	if path != nil {
		udp, ways = path.remote, []*muxSocket{path.socket}
	}
	var n int
	var err error = net.ErrClosed
	for _, s := range ways {
		if n, err = s.send(p, udp, remote); err == nil {
			c.keep(s, remote, udp)
			break
		}
	}
	return n, err
}

func (c *muxConn) keep(s *muxSocket, remote netip.AddrPort, udp *net.UDPAddr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() || c.paths[remote] == nil && !c.room(time.Now().UnixNano()) {
		return
	}
	if s.claim(remote, c, udp) {
		c.replace(remote, &muxPath{socket: s, remote: udp, routed: true})
	}
}

// Close ends the connection and forgets its remote addresses. It implements
// net.PacketConn.
func (c *muxConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.mu.Lock()
	paths := c.paths
	c.paths = nil
	c.mu.Unlock()

	c.in.close()
	c.mux.forget(c)
	for remote, p := range paths {
		p.socket.release(remote, c)
	}
	return nil
}

// LocalAddr is the advertised address. It implements net.PacketConn.
func (c *muxConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// SetDeadline does nothing: reads end with Close and writes do not block. It
// implements net.PacketConn.
func (c *muxConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is like SetDeadline.
func (c *muxConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is like SetDeadline.
func (c *muxConn) SetWriteDeadline(time.Time) error { return nil }
