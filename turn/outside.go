package turn

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// toKernel sends to an outside peer, opening the socket if there is none yet.
func (r *relay) toKernel(b []byte, peer netip.AddrPort) {
	conn, err := r.socket(peer)
	if err != nil {
		r.metrics.drops.socket.Inc()
		return
	}
	if _, err := conn.WriteToUDPAddrPort(b, peer); err != nil {
		r.metrics.drops.socket.Inc()
		return
	}
	r.account(len(b), 1)
}

func (r *relay) socket(peer netip.AddrPort) (*net.UDPConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return nil, net.ErrClosed
	}
	if r.kernel != nil {
		return r.kernel, nil
	}
	network := "udp6"
	if peer.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	r.kernel = conn
	r.group.Go(func() { r.readKernel(conn) })
	return conn, nil
}

// readKernel takes what outside peers send, until conn is closed. Anybody can
// send to the socket: only those we relay to are heard.
func (r *relay) readKernel(conn *net.UDPConn) {
	for {
		p := newPacket()
		n, from, err := conn.ReadFromUDPAddrPort(p.data[:])
		p.n, p.from = n, unmapped(from)
		switch {
		case errors.Is(err, net.ErrClosed):
			p.release()
			return
		case err != nil:
			r.metrics.drops.socket.Inc()
			p.release()
			time.Sleep(readBackoff)
		case n > maxDatagram || !r.peers.allows(p.from):
			r.metrics.drops.socket.Inc()
			p.release()
		default:
			r.hear()
			r.deliver(p)
		}
	}
}
