package sfu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun"
)

const (
	// queueLength is how many datagrams wait for one session's ICE agent on one
	// address: a key frame of 400 kB. It bounds the memory a sender can claim.
	queueLength = 256
	// maxRoutes is how many remote addresses one session may use on one local
	// address; ICE needs one, and one per interface and NAT while it checks.
	maxRoutes = 32
	// routeIdle is how long no STUN request for the session must have come from
	// a remote address before another session may take it over. Living clients
	// send one every few seconds (RFC 7675 §5.1). A client that left and comes
	// back from the same port waits at most this long; a stranger that forges
	// the address of a living client never gets it, and one that claims an
	// address in advance loses it to its owner.
	routeIdle = 10 * time.Second
)

// A mux carries the datagrams of all sessions over the media sockets. It is the
// ice.UDPMux of every session's ICE agent and, through tcpMux, its ice.TCPMux:
//
//	kernel socket ──┐                         ┌─ muxConn of ufrag a ─> ICE agent a
//	kernel socket ──┼─ by remote address, ────┼─ muxConn of ufrag b ─> ICE agent b
//	hairpin       ──┘  STUN requests by ufrag └─ …
//
// Each socket has one reader. A STUN request goes to the session whose local
// ufrag begins its USERNAME (RFC 8445 §7.2.2). Everything else goes to the
// session that has written to that remote address, and a session writes only to
// addresses whose request carried its password or that its participant named.
//
// A session sees one connection per advertised address, however many sockets
// (NAT mappings, the hairpin of the TURN server) lead there.
//
// What is advertised may change. Connections keep the sockets they have, so a
// session goes on with the address it was told.
type mux struct {
	bound   *Sockets
	sockets []*muxSocket
	drops   func(reason string)
	keys    *iceKeys

	mu     sync.RWMutex          // guards the following
	conns  map[string][]*muxConn // by local ufrag
	closed bool
}

// A muxSocket is one way datagrams come and go.
type muxSocket struct {
	net.PacketConn
	udp   *net.UDPConn   // the same, when it is a kernel socket
	local netip.AddrPort // where it is bound, or the hairpin pretends to be
	guest *SharedConn    // whose the rest of the datagrams is, on the shared port

	mu     sync.RWMutex // guards routes
	routes map[netip.AddrPort]*muxRoute
}

// A muxRoute is a remote address in use by a session.
type muxRoute struct {
	conn *muxConn
	from *net.UDPAddr // the address as the ICE agent wants it, made once
	seen atomic.Int64 // Unix nanoseconds of the last STUN request for conn from there
}

// newMux makes the mux of the given kernel sockets and hairpins. Reading starts
// with run.
func newMux(s *Sockets, hairpins []net.PacketConn, drops func(reason string)) (*mux, error) {
	m := &mux{bound: s, conns: map[string][]*muxConn{}, drops: drops}
	for _, c := range s.udp {
		m.add(&muxSocket{PacketConn: c, udp: c, local: localAddrPort(c.LocalAddr())})
	}
	for _, c := range s.shared {
		m.add(&muxSocket{PacketConn: c.udp, udp: c.udp, local: c.local, guest: c})
	}
	for _, h := range hairpins {
		local := localAddrPort(h.LocalAddr())
		if !slices.ContainsFunc(m.sockets, func(s *muxSocket) bool { return s.local == local }) {
			return nil, fmt.Errorf("hairpin %s: not an address of the SFU", local)
		}
		m.add(&muxSocket{PacketConn: h, local: local})
	}
	return m, nil
}

func (m *mux) add(s *muxSocket) {
	s.routes = map[netip.AddrPort]*muxRoute{}
	m.sockets = append(m.sockets, s)
}

// advertised lists what clients are told, in the order of the sockets, without
// duplicates.
func (m *mux) advertised() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range m.sockets {
		if a := m.bound.mapped(s.local); s.ice() && a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// ice reports whether sessions may use s.
func (s *muxSocket) ice() bool { return s.guest == nil || s.guest.ice }

// read delivers what arrives on s until it is closed. A read error other than
// that is a datagram lost, never the end of the mux: the kernel reports ICMP
// errors of single peers this way.
func (m *mux) read(s *muxSocket) {
	buf := make([]byte, maxDatagram+1)
	for failed := 0; ; {
		n, from, err := s.receive(buf)
		switch {
		case err == nil && n > maxDatagram:
			m.drops("oversized")
		case err == nil:
			failed = 0
			m.deliver(s, buf[:n], from)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			m.drops("read_error")
			failed = min(failed+1, 100)
			time.Sleep(time.Duration(failed-1) * time.Millisecond) // an error that stays must not take a core
		}
	}
}

func (s *muxSocket) receive(buf []byte) (int, netip.AddrPort, error) {
	if s.udp != nil {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	n, from, err := s.ReadFrom(buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, localAddrPort(from), nil
}

// deliver hands one datagram to its session, or to the TURN server on a shared
// port.
func (m *mux) deliver(s *muxSocket, p []byte, from netip.AddrPort) {
	if s.guest != nil && !m.mine(s, p, from) {
		return
	}
	if ufrag, ok := requestUfrag(p); ok {
		conn := m.lookup(ufrag, s)
		if conn == nil {
			m.drops("unknown_ufrag")
			return
		}
		s.touch(from, conn)
		m.push(conn, p, conn.path(s, from))
		return
	}
	r := s.route(from)
	if r == nil {
		m.drops("unknown_source")
		return
	}
	if isBindingError(p) { // of no use to the agent as it is
		if p = r.conn.roles.refusal(p); p == nil {
			return
		}
	}
	m.push(r.conn, p, r.from)
}

// mine reports whether a datagram that came to a shared socket is for a session.
// If it is not, the TURN server has got it, or nobody.
func (m *mux) mine(s *muxSocket, p []byte, from netip.AddrPort) bool {
	switch classify(p) {
	case kindCheck:
		if ufrag, ok := requestUfrag(p); ok && m.lookup(ufrag, s) != nil {
			return true
		}
	case kindAnswer:
		if s.route(from) != nil {
			return true
		}
	case kindTURN:
	case kindMedia:
		return true // or it has no route, as on any other socket
	case kindQUIC:
		m.drops("quic")
		return false
	default:
		m.drops("malformed")
		return false
	}
	if !s.guest.give(p, from) {
		m.drops("turn_full")
	}
	return false
}

// route returns the session that a remote address belongs to, or nil.
func (s *muxSocket) route(from netip.AddrPort) *muxRoute {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.routes[from]
}

func (m *mux) push(c *muxConn, p []byte, from *net.UDPAddr) {
	if !c.in.push(p, from) {
		m.drops("queue_full")
	}
}

// touch notes that from is alive, if it is conn's already.
func (s *muxSocket) touch(from netip.AddrPort, conn *muxConn) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.routes[from]; r != nil && r.conn == conn {
		r.seen.Store(time.Now().UnixNano())
	}
}

// claim makes from a remote address of conn, unless another live session uses it.
func (s *muxSocket) claim(to netip.AddrPort, conn *muxConn, udp *net.UDPAddr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if r := s.routes[to]; r != nil {
		if r.conn == conn {
			return true
		}
		if !r.conn.closed.Load() && now.UnixNano()-r.seen.Load() < int64(routeIdle) {
			return false
		}
	}
	r := &muxRoute{conn: conn, from: udp}
	r.seen.Store(now.UnixNano())
	s.routes[to] = r
	return true
}

func (s *muxSocket) release(to netip.AddrPort, conn *muxConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.routes[to]; r != nil && r.conn == conn {
		delete(s.routes, to)
	}
}

// relayed reports whether a remote address belongs to a client of the hairpin.
func (m *mux) relayed(address string, port uint16) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	at := netip.AddrPortFrom(ip.Unmap(), port)
	for _, s := range m.sockets {
		if s.udp != nil {
			continue
		}
		s.mu.RLock()
		_, ok := s.routes[at]
		s.mu.RUnlock()
		if ok {
			return true
		}
	}
	return false
}

// lookup returns the connection of a ufrag that uses a socket, or nil.
func (m *mux) lookup(ufrag []byte, s *muxSocket) *muxConn {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.conns[string(ufrag)] {
		if slices.Contains(c.ways, s) {
			return c
		}
	}
	return nil
}

// GetConn returns the connection of an ICE agent on an advertised address. It
// implements ice.UDPMux.
func (m *mux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	at := localAddrPort(addr)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, net.ErrClosed
	}
	for _, c := range m.conns[ufrag] {
		if c.addr == at {
			return c, nil
		}
	}
	c := &muxConn{mux: m, ufrag: ufrag, addr: at, in: newQueue(queueLength), paths: map[netip.AddrPort]*muxPath{}}
	c.roles.keys, c.roles.ufrag = m.keys, ufrag
	if c.ways = m.ways(at, m.bound.mapped); len(c.ways) == 0 {
		c.ways = m.ways(at, m.bound.mappedBefore) // it has changed since GetListenAddresses
	}
	if len(c.ways) == 0 {
		return nil, fmt.Errorf("media address %s: not advertised", at)
	}
	m.conns[ufrag] = append(m.conns[ufrag], c)
	return c, nil
}

// ways lists the sockets that an advertised address leads to. The hairpins come
// first: they know which remote addresses are theirs.
func (m *mux) ways(at netip.AddrPort, mapped func(netip.AddrPort) netip.AddrPort) []*muxSocket {
	var hairpins, kernel []*muxSocket
	for _, s := range m.sockets {
		switch {
		case !s.ice() || mapped(s.local) != at:
		case s.udp == nil:
			hairpins = append(hairpins, s)
		default:
			kernel = append(kernel, s)
		}
	}
	return append(hairpins, kernel...)
}

// forget removes a connection that is closed.
func (m *mux) forget(c *muxConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := slices.DeleteFunc(m.conns[c.ufrag], func(x *muxConn) bool { return x == c })
	if m.conns[c.ufrag] = left; len(left) == 0 {
		delete(m.conns, c.ufrag)
	}
}

// RemoveConnByUfrag ends the connections of an ICE agent. It implements
// ice.UDPMux.
func (m *mux) RemoveConnByUfrag(ufrag string) {
	m.mu.RLock()
	conns := slices.Clone(m.conns[ufrag])
	m.mu.RUnlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// GetListenAddresses lists the advertised addresses: they are what the ICE agent
// makes its host candidates of. It implements ice.UDPMux.
func (m *mux) GetListenAddresses() []net.Addr {
	var out []net.Addr
	for _, a := range m.advertised() {
		out = append(out, net.UDPAddrFromAddrPort(a))
	}
	return out
}

// Close ends every connection and closes the sockets, which ends the readers. It
// implements ice.UDPMux.
func (m *mux) Close() error {
	m.mu.Lock()
	m.closed = true
	conns := make([]*muxConn, 0, len(m.conns))
	for _, of := range m.conns {
		conns = append(conns, of...)
	}
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	var err error
	for _, s := range m.sockets {
		if e := s.Close(); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// requestUfrag returns the local ufrag a STUN Binding request is meant for: what
// stands before the colon of its USERNAME (RFC 8445 §7.2.2). It reads at most
// the datagram and allocates nothing.
func requestUfrag(p []byte) ([]byte, bool) {
	const header = 20
	if len(p) < header || binary.BigEndian.Uint16(p) != 0x0001 || binary.BigEndian.Uint32(p[4:]) != 0x2112A442 {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size > len(p)-header {
		return nil, false
	}
	for rest := p[header : header+size]; len(rest) >= 4; {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if n > len(rest) {
			return nil, false
		}
		if kind == uint16(stun.AttrUsername) {
			if ufrag, _, ok := bytes.Cut(rest[:n], []byte(":")); ok && len(ufrag) > 0 {
				return ufrag, true
			}
			return nil, false
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return nil, false
}
