package sfu

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/sfu/internal/batch"
)

// A udpGroup is the kernel's sockets on one address. The kernel gives each
// remote address to one of them.
type udpGroup []*batch.Socket

func (g udpGroup) local() netip.AddrPort { return g[0].Local() }

// of chooses a socket to send to a remote address by.
func (g udpGroup) of(to netip.AddrPort) *batch.Socket { return g[int(to.Port())%len(g)] }

// close closes them all and returns the first error.
func (g udpGroup) close() error {
	var first error
	for _, k := range g {
		if err := k.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// A muxSocket is one way datagrams come and go: either kernel or hairpin is set.
type muxSocket struct {
	index   int // in mux.sockets
	kernel  udpGroup
	hairpin net.PacketConn
	local   netip.AddrPort // where it is bound, or the hairpin pretends to be
	guest   *SharedConn    // whose the rest of the datagrams is, on the shared port

	routes routeTable
}

// A muxRoute is a remote address in use by a session.
type muxRoute struct {
	conn *muxConn
	from *net.UDPAddr // the address as the ICE agent wants it, made once
	seen atomic.Int64 // Unix nanoseconds of the last sign of life of conn from there
}

// ice reports whether sessions may use s.
func (s *muxSocket) ice() bool { return s.guest == nil || s.guest.ice }

// send sends one datagram.
func (s *muxSocket) send(p []byte, udp *net.UDPAddr, to netip.AddrPort) (int, error) {
	if s.kernel != nil {
		return s.kernel.of(to).WriteToUDPAddrPort(p, to)
	}
	return s.hairpin.WriteTo(p, udp)
}

func (s *muxSocket) close() error {
	if s.kernel == nil {
		return s.hairpin.Close()
	}
	return s.kernel.close()
}

// touch notes that from is alive, if it is conn's already.
func (s *muxSocket) touch(from netip.AddrPort, conn *muxConn, now time.Time) {
	if r := s.routes.get(from); r != nil && r.conn == conn {
		r.seen.Store(now.UnixNano())
	}
}

// claim makes from a remote address of conn, unless another live session uses it.
func (s *muxSocket) claim(to netip.AddrPort, conn *muxConn, udp *net.UDPAddr) bool {
	s.routes.mu.Lock()
	defer s.routes.mu.Unlock()
	now := time.Now()
	if r := s.routes.get(to); r != nil {
		if r.conn == conn {
			return true
		}
		if !r.conn.closed.Load() && now.UnixNano()-r.seen.Load() < int64(routeIdle) {
			return false
		}
	}
	r := &muxRoute{conn: conn, from: udp}
	r.seen.Store(now.UnixNano())
	s.routes.put(to, r)
	return true
}

func (s *muxSocket) release(to netip.AddrPort, conn *muxConn) {
	s.routes.mu.Lock()
	defer s.routes.mu.Unlock()
	if r := s.routes.get(to); r != nil && r.conn == conn {
		s.routes.put(to, nil)
	}
}

// A routeTable finds the session of a remote address without a lock: its maps
// are replaced, never modified. There are many, so that a change copies little.
type routeTable struct {
	mu   sync.Mutex // held by who calls put
	maps [64]atomic.Pointer[map[netip.AddrPort]*muxRoute]
}

func (t *routeTable) of(a netip.AddrPort) *atomic.Pointer[map[netip.AddrPort]*muxRoute] {
	ip, port := a.Addr().As16(), a.Port()
	return &t.maps[(uint16(ip[15])^port^port>>6)%uint16(len(t.maps))]
}

// get returns the route of a remote address, nil if it has none.
func (t *routeTable) get(a netip.AddrPort) *muxRoute {
	if m := t.of(a).Load(); m != nil {
		return (*m)[a]
	}
	return nil
}

// put sets the route of a remote address; nil removes it. It needs t.mu.
func (t *routeTable) put(a netip.AddrPort, r *muxRoute) {
	at, next := t.of(a), map[netip.AddrPort]*muxRoute{}
	if m := at.Load(); m != nil {
		for k, v := range *m {
			next[k] = v
		}
	}
	if next[a] = r; r == nil {
		delete(next, a)
	}
	at.Store(&next)
}

// count returns how many routes there are.
func (t *routeTable) count() (n int) {
	for i := range t.maps {
		if m := t.maps[i].Load(); m != nil {
			n += len(*m)
		}
	}
	return n
}
