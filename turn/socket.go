package turn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// A sender takes bytes for a client. It never blocks for long and keeps
// nothing of b. to matters to UDP sockets only.
type sender interface {
	send(b []byte, to netip.AddrPort)
}

// source is where a packet came from, the client's half of the 5-tuple and
// the way back to it. It is comparable.
type source struct {
	via  sender
	addr netip.AddrPort
}

func (s source) send(b []byte) { s.via.send(b, s.addr) }

// socketBuffer is the kernel's buffer we ask for, in bytes: room for 160 ms of
// media at 400 Mbit/s.
const socketBuffer = 8 << 20

// readBackoff keeps a socket that fails again and again from taking a core.
const readBackoff = 5 * time.Millisecond

// A socket is one of the UDP sockets we serve.
type socket struct {
	conn net.PacketConn
	fast addrPortConn // conn again if it can do without allocating, else nil

	collect func() (send func(b []byte, to netip.AddrPort), flush func()) // nil if conn cannot
}

// A collector is a packet connection that can send several packets at once: send may
// keep what it gets until flush. One goroutine uses both.
type collector interface {
	Collect() (send func(b []byte, to netip.AddrPort), flush func())
}

// addrPortConn is what *net.UDPConn offers beyond net.PacketConn.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// A receiver is a packet connection that reads by itself: of a port that TURN
// shares with others. Receive calls take for each packet until the connection
// is closed; take keeps nothing of b, but may change it.
type receiver interface {
	Receive(take func(b []byte, from netip.AddrPort))
}

func newSocket(conn net.PacketConn) *socket {
	fast, _ := conn.(addrPortConn)
	s := &socket{conn: conn, fast: fast}
	if c, ok := conn.(collector); ok {
		s.collect = c.Collect
	}
	return s
}

// send is best effort, like everything UDP.
func (s *socket) send(b []byte, to netip.AddrPort) {
	if s.fast != nil {
		_, _ = s.fast.WriteToUDPAddrPort(b, to)
		return
	}
	_, _ = s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

func (s *socket) read(b []byte) (int, netip.AddrPort, error) {
	if s.fast != nil {
		n, from, err := s.fast.ReadFromUDPAddrPort(b)
		return n, unmapped(from), err
	}
	n, from, err := s.conn.ReadFrom(b)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	return n, addrPort(from), nil
}

// run feeds what arrives to the shards until the socket is closed or ctx ends;
// it closes the socket. A conn that has Receive is not read. A failing read is no reason to stop.
func (s *socket) run(ctx context.Context, to *shards, m *metrics) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	if c, ok := s.conn.(*net.UDPConn); ok {
		_ = c.SetReadBuffer(socketBuffer) // the kernel may give less
		_ = c.SetWriteBuffer(socketBuffer)
	}
	if r, ok := s.conn.(receiver); ok {
		r.Receive(func(b []byte, from netip.AddrPort) { s.take(b, from, to, m) })
		return
	}
	buf := make([]byte, maxDatagram+1) // one more, to notice what was cut off
	for ctx.Err() == nil {
		n, from, err := s.read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(readBackoff)
		default:
			s.take(buf[:n], from, to, m)
		}
	}
}

// take gives a packet to the shard it belongs to, if it is one, or to the SFU if
// pion need not see it. It may change b.
func (s *socket) take(b []byte, from netip.AddrPort, to *shards, m *metrics) {
	switch {
	case len(b) > maxDatagram:
		m.drops.oversize.Inc()
		return
	case !from.IsValid() || !looksLikeTURN(b):
		m.drops.malformed.Inc()
		return
	}
	way := source{via: s, addr: from}
	sh := to.of(way)
	c := sh.client(way)
	if c != nil && isChannelData(b) {
		h := newHaul()
		taken := h.add(c, b)
		h.release()
		if taken {
			return
		}
	}
	p := packetOf(b)
	p.client, p.source = c, way
	sh.datagram(p)
}
