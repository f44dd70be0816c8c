package sfu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
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
	// tcpBacklog is how many datagrams wait for a slow TCP connection: about a
	// quarter of a second of screen share. More would only be late.
	tcpBacklog = 256
	// maxUnknownTCP bounds the connections that have not yet shown a ufrag.
	maxUnknownTCP = 1024
	// maxSessionTCP bounds the connections of one session on one address.
	maxSessionTCP = 16
)

// A tcpMux carries ICE-TCP (RFC 6544, RFC 4571 framing) of all sessions over its
// listeners. It is the ice.TCPMux of every session's ICE agent. A connection
// must name a living session's ufrag in its first frame or is closed, so a
// stranger can make no state.
type tcpMux struct {
	listeners  []*net.TCPListener
	advertised map[netip.Addr]uint16 // advertised address → port
	mapped     func(net.Addr) netip.AddrPort
	drops      func(reason string)
	keys       *iceKeys
	unknown    chan struct{} // one element for each connection without ufrag

	wg sync.WaitGroup // connections and accept loops

	mu     sync.Mutex // guards the following
	conns  map[muxKey]*tcpMuxConn
	open   map[net.Conn]struct{}
	closed bool
}

// A tcpMuxConn is what one session's ICE agent sees of its TCP connections on one
// advertised address.
type tcpMuxConn struct {
	mux *tcpMux
	key muxKey
	in  *queue

	roles  roleWatch
	closed atomic.Bool

	mu    sync.RWMutex // guards peers
	peers map[netip.AddrPort]*tcpPeer
}

// A tcpPeer is one TCP connection with its writer.
type tcpPeer struct {
	net.Conn
	remote *net.TCPAddr
	out    *queue
}

func newTCPMux(s *Sockets, drops func(reason string)) *tcpMux {
	m := &tcpMux{
		listeners:  s.tcp,
		advertised: map[netip.Addr]uint16{},
		drops:      drops,
		unknown:    make(chan struct{}, maxUnknownTCP),
		conns:      map[muxKey]*tcpMuxConn{},
		open:       map[net.Conn]struct{}{},
	}
	m.mapped = func(a net.Addr) netip.AddrPort {
		adv := s.mapped(localAddrPort(a))
		if port, ok := m.advertised[adv.Addr()]; ok {
			return netip.AddrPortFrom(adv.Addr(), port)
		}
		return netip.AddrPort{}
	}
	for _, a := range s.TCPAddresses() {
		m.advertised[a.Advertised.Addr()] = a.Advertised.Port()
	}
	return m
}

// accept serves the connections of l until it is closed. l may be any listener
// of ICE-TCP connections, such as the shared port 443: its connections join the
// session on the advertised address they came to, or on the only one there is.
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
	select {
	case m.unknown <- struct{}{}:
	default:
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		<-m.unknown
		return false
	}
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
	<-m.unknown
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
		conn.take(buf[:n], peer.remote)
		_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
		n, err = readFrame(in, buf)
	}
	conn.part(peer)
}

// session finds the connection of a ufrag on the address a client came to, or on
// any address of that family: port 443 may be reached by another one.
func (m *tcpMux) session(ufrag string, local net.Addr) *tcpMuxConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.mapped(local)
	if c := m.conns[muxKey{ufrag, at}]; c != nil {
		return c
	}
	for addr, port := range m.advertised {
		if c := m.conns[muxKey{ufrag, netip.AddrPortFrom(addr, port)}]; c != nil && addr.Is4() == localAddrPort(local).Addr().Is4() {
			return c
		}
	}
	return nil
}

// GetConnByUfrag returns the connection of an ICE agent on an advertised
// address. It implements ice.TCPMux.
func (m *tcpMux) GetConnByUfrag(ufrag string, _ bool, local net.IP) (net.PacketConn, error) {
	ip, _ := netip.AddrFromSlice(local)
	port, ok := m.advertised[ip.Unmap()]
	if !ok {
		return nil, fmt.Errorf("media address %s/tcp: not advertised", local)
	}
	k := muxKey{ufrag, netip.AddrPortFrom(ip.Unmap(), port)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, net.ErrClosed
	}
	c := m.conns[k]
	if c == nil {
		c = &tcpMuxConn{mux: m, key: k, in: newQueue(queueLength), peers: map[netip.AddrPort]*tcpPeer{}}
		c.roles.keys, c.roles.ufrag = m.keys, ufrag
		m.conns[k] = c
	}
	return c, nil
}

// RemoveConnByUfrag ends the connections of an ICE agent. It implements
// ice.TCPMux.
func (m *tcpMux) RemoveConnByUfrag(ufrag string) {
	for addr, port := range m.advertised {
		m.mu.Lock()
		c := m.conns[muxKey{ufrag, netip.AddrPortFrom(addr, port)}]
		m.mu.Unlock()
		if c != nil {
			_ = c.Close()
		}
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

// join adds a TCP connection to the session.
func (c *tcpMuxConn) join(nc net.Conn) (*tcpPeer, bool) {
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil, false
	}
	p := &tcpPeer{Conn: nc, remote: remote, out: newQueue(tcpBacklog)}
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

// take gives the agent what came from a remote address.
func (c *tcpMuxConn) take(p []byte, from *net.TCPAddr) {
	if isBindingError(p) { // of no use to the agent as it is
		p = c.roles.refusal(p)
	}
	if p != nil && !c.in.push(p, from) {
		c.mux.drops("queue_full")
	}
}

// write sends what is queued, as one write for everything that waits, until the
// queue is closed or the connection fails.
func (p *tcpPeer) write() {
	const batch = 16 << 10
	buf := make([]byte, 0, batch)
	frame := make([]byte, maxDatagram)
	for {
		n, _, err := p.out.pop(frame)
		buf = buf[:0]
		for err == nil {
			buf = binary.BigEndian.AppendUint16(buf, uint16(n))
			buf = append(buf, frame[:n]...)
			if len(buf) > batch-maxDatagram-2 || p.out.empty() {
				break
			}
			n, _, err = p.out.pop(frame)
		}
		if len(buf) == 0 {
			return
		}
		_ = p.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := p.Write(buf); err != nil {
			_ = p.Close() // ends the reader, which removes the peer
			return
		}
	}
}

// ReadFrom returns the next datagram. It implements net.PacketConn.
func (c *tcpMuxConn) ReadFrom(p []byte) (int, net.Addr, error) { return c.in.pop(p) }

// WriteTo queues p for the TCP connection from that remote address. It never
// blocks: when the connection is slow, its oldest datagrams are lost. It
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
		c.take(request, peer.remote)
	}
	if !pass {
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
	c.mux.mu.Lock()
	if c.mux.conns[c.key] == c {
		delete(c.mux.conns, c.key)
	}
	c.mux.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.peers {
		p.out.close()
		_ = p.Conn.Close()
	}
	return nil
}

// LocalAddr is the advertised address. It implements net.PacketConn.
func (c *tcpMuxConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.key.addr) }

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
