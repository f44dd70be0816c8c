package sfu

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// firstCheck is how long an ICE-TCP connection may wait before its first
	// complete STUN Binding request.
	firstCheck = 10 * time.Second
	// tcpIdle ends an ICE-TCP connection that has been silent: consent checks
	// come every few seconds (RFC 7675).
	tcpIdle = 60 * time.Second
	// tcpWrite is how long the kernel may refuse data before the connection is
	// given up.
	tcpWrite = 10 * time.Second
	// maxUnknownTCP bounds the connections that have not yet shown a ufrag.
	// One costs a goroutine, its buffers and a file descriptor, some 16 KiB.
	maxUnknownTCP = 4096
	// maxUnknownFrom bounds those of one IPv4 address or IPv6 /64, so that one
	// stranger cannot take all the places of the others. An office of 500 sits
	// behind one, and each client opens a connection to both ports.
	maxUnknownFrom = 1024
	// maxSessionTCP bounds the connections of one session on one address.
	maxSessionTCP = 16
)

// A tcpMux carries ICE-TCP (RFC 6544, RFC 4571 framing) of all sessions over its
// listeners. It is the ice.TCPMux of every session's ICE agent. A connection
// must name a living session's ufrag in its first frame or is closed, so a
// stranger can make no state.
type tcpMux struct {
	bound     *Sockets
	listeners []*net.TCPListener
	endpoints []netip.AddrPort // where clients can connect, as bound: the listeners and others
	drops     func(reason string)
	keys      *iceKeys
	mux       *mux // of the same sessions over UDP; nil without

	readers sync.Pool      // of *reader, for mux
	wg      sync.WaitGroup // connections and accept loops

	mu        sync.Mutex               // guards the following
	conns     map[string][]*tcpMuxConn // by local ufrag
	open      map[net.Conn]struct{}
	strangers int                  // connections that have not shown a ufrag yet
	unknown   map[netip.Prefix]int // the same, by neighbourhood
	closed    bool
}

// newTCPMux makes the mux of the TCP listeners and of further endpoints, whose
// connections will come from listeners given to Server.Run. An endpoint without
// address stands for all of the SFU's.
func newTCPMux(s *Sockets, further []netip.AddrPort, drops func(reason string)) *tcpMux {
	m := &tcpMux{
		bound:     s,
		listeners: s.tcp,
		drops:     drops,
		unknown:   map[netip.Prefix]int{},
		conns:     map[string][]*tcpMuxConn{},
		open:      map[net.Conn]struct{}{},
	}
	for _, a := range s.TCPAddresses() {
		m.endpoints = append(m.endpoints, a.Local)
	}
	for _, e := range further {
		if e.Addr().IsValid() && !e.Addr().IsUnspecified() {
			m.endpoints = append(m.endpoints, netip.AddrPortFrom(e.Addr().Unmap(), e.Port()))
			continue
		}
		for _, ip := range s.book.locals {
			if !e.Addr().Is4() || ip.Is4() { // 0.0.0.0 takes no IPv6, [::] takes both
				m.endpoints = append(m.endpoints, netip.AddrPortFrom(ip, e.Port()))
			}
		}
	}
	return m
}

// advertised lists what clients are told, in the order of the endpoints, without
// duplicates.
func (m *tcpMux) advertised(mapped func(netip.AddrPort) netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range m.endpoints {
		if a := mapped(e); a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// accept serves the connections of l until it is closed. l may be any listener
// of ICE-TCP connections, such as the shared port 443: its connections join the
// session on the advertised address they came to.
func (m *tcpMux) accept(l net.Listener) {
	for failed := 0; ; {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: wait, the listener is still good
			m.drops("accept_error")
			failed = min(failed+1, 100)
			time.Sleep(time.Duration(failed) * time.Millisecond)
			continue
		}
		failed = 0
		if !m.admit(c) {
			m.drops("tcp_limit")
			_ = c.Close()
		}
	}
}

// admit starts the goroutine of a new connection, if there is room for it.
func (m *tcpMux) admit(c net.Conn) bool {
	from := neighbourhood(c.RemoteAddr())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.strangers >= maxUnknownTCP || m.unknown[from] >= maxUnknownFrom {
		return false
	}
	m.strangers++
	m.unknown[from]++
	m.open[c] = struct{}{}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.serve(c)
		m.mu.Lock()
		delete(m.open, c)
		m.mu.Unlock()
		_ = c.Close()
	}()
	return true
}

// serve reads one connection until it ends.
func (m *tcpMux) serve(c net.Conn) {
	buf, in := make([]byte, maxDatagram), bufio.NewReaderSize(c, 4<<10)
	_ = c.SetReadDeadline(time.Now().Add(firstCheck))
	n, err := readFrame(in, buf)
	m.known(c)
	if err != nil {
		m.drops("tcp_first_frame")
		return
	}
	ufrag, ok := requestUfrag(buf[:n])
	if !ok {
		m.drops("tcp_first_frame")
		return
	}
	conn := m.session(string(ufrag), c.LocalAddr())
	if conn == nil {
		m.drops("unknown_ufrag")
		return
	}
	peer, ok := conn.join(c)
	if !ok {
		m.drops("tcp_limit")
		return
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		peer.write()
	}()
	for err == nil {
		m.deliver(conn, peer, in, buf[:n])
		_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
		n, err = readFrame(in, buf)
	}
	conn.part(peer)
}

// deliver gives the session the frame p and those that have come with it.
func (m *tcpMux) deliver(conn *tcpMuxConn, peer *tcpPeer, in *bufio.Reader, p []byte) {
	r := m.reader()
	for ok := true; ok; p, ok = nextFrame(in) {
		if r != nil {
			r.urgent = r.urgent || isUrgent(p)
		}
		conn.take(r, p, peer.remote)
	}
	if r != nil {
		r.finish()
		r.rest() // for those of UDP
		m.readers.Put(r)
	}
}

// reader lends one, because connections are many and mostly silent. nil: nobody
// needs one.
func (m *tcpMux) reader() *reader {
	if m.mux == nil {
		return nil
	}
	if r, ok := m.readers.Get().(*reader); ok {
		return r
	}
	return m.mux.newReader()
}

// known frees the place of a connection that has spoken, or failed to.
func (m *tcpMux) known(c net.Conn) {
	from := neighbourhood(c.RemoteAddr())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strangers--
	if m.unknown[from]--; m.unknown[from] == 0 {
		delete(m.unknown, from)
	}
}

// neighbourhood is the part of an address that one stranger is likely to have:
// an IPv4 address or an IPv6 /64.
func neighbourhood(a net.Addr) netip.Prefix {
	ip := localAddrPort(a).Addr()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// session finds the connection of a ufrag on the address a client came to, else
// on its port, else on any of that family: the client may have been told another
// address, as before a change or behind a NAT that changes ports.
func (m *tcpMux) session(ufrag string, local net.Addr) *tcpMuxConn {
	bound := localAddrPort(local)
	at := m.bound.mapped(bound)
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *tcpMuxConn
	for _, c := range m.conns[ufrag] {
		switch {
		case c.addr == at:
			return c
		case c.addr.Addr().Is4() != bound.Addr().Is4():
		case best == nil || c.addr.Port() == bound.Port():
			best = c
		}
	}
	return best
}

// GetAllConns returns the connections of an ICE agent on an advertised IP
// address, one for each port. It implements ice.AllConnsGetter.
func (m *tcpMux) GetAllConns(ufrag string, _ bool, local net.IP) ([]net.PacketConn, error) {
	ip, _ := netip.AddrFromSlice(local)
	at := m.portsOf(ip.Unmap(), m.bound.mapped)
	if len(at) == 0 {
		at = m.portsOf(ip.Unmap(), m.bound.mappedBefore) // it has changed since the agent listed the addresses
	}
	if len(at) == 0 {
		return nil, fmt.Errorf("media address %s/tcp: not advertised", local)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, net.ErrClosed
	}
	out := make([]net.PacketConn, 0, len(at))
	for _, a := range at {
		out = append(out, m.conn(ufrag, a))
	}
	return out, nil
}

// portsOf lists the advertised addresses on one IP address.
func (m *tcpMux) portsOf(ip netip.Addr, mapped func(netip.AddrPort) netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(m.advertised(mapped), func(a netip.AddrPort) bool { return a.Addr() != ip })
}

// conn returns the connection of a ufrag on an advertised address, a new one if
// there is none. It needs m.mu.
func (m *tcpMux) conn(ufrag string, at netip.AddrPort) *tcpMuxConn {
	for _, c := range m.conns[ufrag] {
		if c.addr == at {
			return c
		}
	}
	c := &tcpMuxConn{mux: m, ufrag: ufrag, addr: at, in: newQueue(queueLength), peers: map[netip.AddrPort]*tcpPeer{}}
	c.roles.keys, c.roles.ufrag = m.keys, ufrag
	c.tap = m.taps().use(ufrag)
	m.conns[ufrag] = append(m.conns[ufrag], c)
	return c
}

func (m *tcpMux) taps() *tapTable {
	if m.mux == nil {
		return nil
	}
	return m.mux.taps
}

// forget removes a connection that is closed.
func (m *tcpMux) forget(c *tcpMuxConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taps().unuse(c.ufrag)
	left := slices.DeleteFunc(m.conns[c.ufrag], func(x *tcpMuxConn) bool { return x == c })
	if m.conns[c.ufrag] = left; len(left) == 0 {
		delete(m.conns, c.ufrag)
	}
}

// GetConnByUfrag returns the first of GetAllConns. It implements ice.TCPMux.
func (m *tcpMux) GetConnByUfrag(ufrag string, ipv6 bool, local net.IP) (net.PacketConn, error) {
	all, err := m.GetAllConns(ufrag, ipv6, local)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// RemoveConnByUfrag ends the connections of an ICE agent. It implements
// ice.TCPMux.
func (m *tcpMux) RemoveConnByUfrag(ufrag string) {
	m.mu.Lock()
	conns := slices.Clone(m.conns[ufrag])
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// Close closes the listeners and every connection and waits for their
// goroutines. It implements ice.TCPMux.
func (m *tcpMux) Close() error {
	m.mu.Lock()
	m.closed = true
	for c := range m.open {
		_ = c.Close()
	}
	m.mu.Unlock()
	var errs []error
	for _, l := range m.listeners {
		errs = append(errs, l.Close())
	}
	m.wg.Wait()
	return errors.Join(errs...)
}
