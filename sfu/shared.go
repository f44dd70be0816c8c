package sfu

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/sfu/internal/batch"
)

// sharedBacklog is how many datagrams wait for a reader of a SharedConn that
// calls ReadFrom.
const sharedBacklog = 1024

// A SharedError says that a socket of the shared port could not be opened.
type SharedError struct{ Err error }

// Error implements error.
func (e *SharedError) Error() string { return "open shared UDP port: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SharedError) Unwrap() error { return e.Err }

// A SharedConn is what the SFU leaves of the datagrams of one socket on the
// shared UDP port: those of TURN clients, and Binding requests that are no
// session's. It is the net.PacketConn of a TURN server.
//
//	kernel socket ─ mux reader ─┬─ STUN of a session, DTLS, RTP ─> session
//	                            └─ other STUN, ChannelData ──────> SharedConn
//
// The kernel socket belongs to the SFU: closing a SharedConn only ends what is
// given to it. Before a Server runs nothing is.
type SharedConn struct {
	udp   udpGroup
	local netip.AddrPort
	ice   bool // the SFU uses the socket too: clients may be told of it; set before anything is read
	alone bool // there is no SFU

	collectors atomic.Uint32 // spreads them over udp

	take atomic.Pointer[func([]byte, netip.AddrPort)] // of Receive
	in   *queue                                       // until there is that
	done chan struct{}
	once sync.Once
}

// Receive calls take for each datagram until c is closed, then returns. take
// runs on the goroutine that reads the socket: it may change its first argument,
// but must neither block nor keep it. Nothing comes from ReadFrom meanwhile.
func (c *SharedConn) Receive(take func(p []byte, from netip.AddrPort)) {
	if c.alone {
		c.receiveAlone(take)
		return
	}
	c.take.Store(&take)
	<-c.done
	c.take.Store(nil)
}

// give hands over a datagram and reports whether somebody had room for it.
func (c *SharedConn) give(p []byte, from netip.AddrPort) bool {
	if take := c.take.Load(); take != nil {
		(*take)(p, from)
		return true
	}
	return c.in.pushFrom(p, from)
}

// ReadFrom returns the next datagram; when they are not fetched the oldest are
// lost. It implements net.PacketConn.
func (c *SharedConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.in.popFrom(p)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo sends p from the shared port. It implements net.PacketConn.
func (c *SharedConn) WriteTo(p []byte, to net.Addr) (int, error) {
	return c.WriteToUDPAddrPort(p, localAddrPort(to))
}

// WriteToUDPAddrPort is WriteTo with the destination as a value.
func (c *SharedConn) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	return c.udp.of(to).WriteToUDPAddrPort(p, to)
}

// Collect returns two functions for one goroutine that sends several datagrams at
// once, in few system calls: send is WriteTo, but what it sends may wait until flush.
func (c *SharedConn) Collect() (send func(p []byte, to netip.AddrPort), flush func()) {
	out := batch.NewOut(c.udp[int(c.collectors.Add(1)-1)%len(c.udp)], nil)
	return func(p []byte, to netip.AddrPort) {
		if len(p) > batch.MaxDatagram {
			out.Flush()
			_, _ = c.WriteToUDPAddrPort(p, to)
			return
		}
		out.Commit(to, copy(out.Reserve(len(p)), p))
	}, out.Flush
}

// Close ends Receive and ReadFrom; what comes from then on is lost. It
// implements net.PacketConn.
func (c *SharedConn) Close() (err error) {
	c.once.Do(func() {
		close(c.done)
		c.in.close()
		if c.alone {
			err = c.udp.close()
		}
	})
	return err
}

// LocalAddr is where the socket is bound. It implements net.PacketConn.
func (c *SharedConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline does nothing: reads end with Close and writes do not block. It
// implements net.PacketConn.
func (c *SharedConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is like SetDeadline.
func (c *SharedConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is like SetDeadline.
func (c *SharedConn) SetWriteDeadline(time.Time) error { return nil }

// maxAlone is how many addresses get a socket of their own on the shared port
// although clients are not told of them.
const maxAlone = 64

// openShared opens the shared port: sockets on each address that clients may be
// told of and on each other one that the machine has, because an answer must leave
// from the address the question came to, and one for those that it will have. On
// systems where these cannot be open at once there is only the last, which the
// SFU does not use.
func (s *Sockets) openShared(listen string, cfg Config) error {
	if listen == "" {
		return nil
	}
	at, err := listenAddress("listen.udp", listen)
	if err != nil {
		return err
	}
	if !at.Addr().IsUnspecified() {
		return s.addShared(at, groupSize(), false)
	}
	if err := s.addShared(at, 1, false); err != nil || !batch.CanShare {
		return err
	}
	port := s.shared[0].local.Port()
	useful, err := usefulAddresses(cfg.IPv6)
	if err != nil {
		return fmt.Errorf("list local addresses: %w", err)
	}
	for _, ip := range useful {
		if at.Addr().Is4() && ip.Is6() { // 0.0.0.0 is no IPv6
			continue
		}
		if err := s.addShared(netip.AddrPortFrom(ip, port), groupSize(), true); err != nil {
			return err
		}
	}
	alone := 0
	for _, ip := range everyAddress() {
		if alone == maxAlone || slices.Contains(useful, ip) || at.Addr().Is4() && ip.Is6() {
			continue
		}
		if s.addShared(netip.AddrPortFrom(ip, port), 1, true) == nil { // else the socket for all others has it
			alone++
		}
	}
	return nil
}

func (s *Sockets) addShared(at netip.AddrPort, size int, beside bool) error {
	udp, err := s.group(at, size, beside)
	if err != nil {
		return &SharedError{err}
	}
	s.share(udp)
	return nil
}

func (s *Sockets) share(udp udpGroup) {
	s.shared = append(s.shared, &SharedConn{udp: udp, local: udp.local(), alone: s.alone, in: newQueue(sharedBacklog), done: make(chan struct{})})
}

// takeShared makes sockets that are open already those of the shared port.
func (s *Sockets) takeShared(given []*net.UDPConn) error {
	for i, conn := range given {
		k, err := batch.New(conn, s.options)
		if err != nil {
			for _, rest := range given[i:] {
				_ = rest.Close()
			}
			return &SharedError{err}
		}
		k.SetBuffers(mediaBuffer)
		s.share(udpGroup{k})
	}
	return nil
}

// sharedOn lists the single addresses of the shared port, given or to be opened.
func (s *Sockets) sharedOn(listen string) []netip.AddrPort {
	var on []netip.AddrPort
	for _, c := range s.shared {
		on = append(on, c.local)
	}
	if at, err := listenAddress("listen.udp", listen); err == nil && len(on) == 0 {
		on = append(on, at)
	}
	return slices.DeleteFunc(on, func(a netip.AddrPort) bool { return a.Addr().IsUnspecified() })
}

// Shared lists what the SFU leaves of the shared port, one for each socket. The
// first is the one for all addresses, if the port was opened without a host.
func (s *Sockets) Shared() []*SharedConn { return slices.Clone(s.shared) }
