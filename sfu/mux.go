package sfu

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueLength is how many datagrams wait for one session's ICE agent on one
	// address: a key frame of 400 kB. It bounds the memory a sender can claim.
	queueLength = 256
	// maxRoutes is how many remote addresses one session may use on one local
	// address; ICE needs one, and one per interface and NAT while it checks:
	// all candidates there may be, and some that nobody has named. When there
	// are more, one that has long been silent makes room.
	maxRoutes = maxCandidates + 24
	// routeIdle is how long a remote address must have been silent before another
	// session may take it over: no STUN request for the session, and, on the path
	// in use, nothing that its keys open. Browsers send a request every few seconds
	// (RFC 7675 §5.1), other clients none while media flows, but a ping each second
	// on the data channel. A client that left and comes
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
// A kernel socket is a group of several on one address, each with a reader of its
// own that takes many datagrams at once. A STUN request goes to the session whose local
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
	taps    *tapTable
	tcp     *tcpMux       // the other half of the sessions' ways; nil without
	boxes   atomic.Uint32 // outboxes made
	calm    calm          // of the readers
	kinds   kindCounters  // of the shared port

	mu     sync.RWMutex          // guards the following
	conns  map[string][]*muxConn // by local ufrag
	closed bool
}

// newMux makes the mux of the given kernel sockets and hairpins. Reading starts
// with run.
func newMux(s *Sockets, hairpins []net.PacketConn, drops func(reason string)) (*mux, error) {
	m := &mux{bound: s, conns: map[string][]*muxConn{}, drops: drops, taps: newTapTable()}
	for _, g := range s.udp {
		m.add(&muxSocket{kernel: g, local: g.local()})
	}
	for _, c := range s.shared {
		m.add(&muxSocket{kernel: c.udp, local: c.local, guest: c})
	}
	for _, h := range hairpins {
		local := localAddrPort(h.LocalAddr())
		if !slices.ContainsFunc(m.sockets, func(s *muxSocket) bool { return s.local == local }) {
			return nil, fmt.Errorf("hairpin %s: not an address of the SFU", local)
		}
		m.add(&muxSocket{hairpin: h, local: local})
	}
	return m, nil
}

func (m *mux) add(s *muxSocket) {
	s.index = len(m.sockets)
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
	c.tap = m.taps.use(ufrag)
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
		case s.kernel == nil:
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
	m.taps.unuse(c.ufrag)
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
		if e := s.close(); e != nil && err == nil {
			err = e
		}
	}
	return err
}
