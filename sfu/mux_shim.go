package sfu

import (
	"net"
	"net/netip"
)

// mediaTap takes what belongs to one session before pion does.
type mediaTap interface {
	media(r *reader, p []byte) bool
	handshake(p []byte, outgoing bool)
}

// endHook is called at the end of a read batch.
type endHook interface{ endBatch(r *reader) }

// A reader is one goroutine that reads.
type reader struct {
	out   *outbox
	hooks []endHook
}

func (m *mux) newReader() *reader { return &reader{out: m.newOutbox()} }

func (r *reader) atEnd(h endHook) { r.hooks = append(r.hooks, h) }

func (r *reader) end() {
	for i := 0; i < len(r.hooks); i++ {
		r.hooks[i].endBatch(r)
	}
	r.hooks = r.hooks[:0]
	r.out.flush()
}

// An outbox collects the packets of one goroutine.
type outbox struct {
	m   *mux
	buf [maxDatagram]byte
}

func (m *mux) newOutbox() *outbox { return &outbox{m: m} }

func (o *outbox) reserve(_ *way, n int) []byte { return o.buf[:n] }

func (o *outbox) commit(to *way, n int) {
	if n == 0 {
		return
	}
	if to.peer != nil {
		if !to.peer.out.push(o.buf[:n], to.peer.remote) {
			o.m.drops("tcp_slow")
		}
		return
	}
	if _, err := to.socket.send(o.buf[:n], to.udp, to.remote); err != nil {
		o.m.drops("send")
	}
}

func (o *outbox) flush() {}

// A way leads to a participant.
type way struct {
	socket *muxSocket
	udp    *net.UDPAddr
	remote netip.AddrPort
	peer   *tcpPeer
}

func (m *mux) way(ufrag string, local, remote netip.AddrPort, tcp bool) *way {
	if tcp {
		m.tcp.mu.Lock()
		defer m.tcp.mu.Unlock()
		for _, c := range m.tcp.conns[ufrag] {
			c.mu.RLock()
			p := c.peers[remote]
			c.mu.RUnlock()
			if c.addr == local && p != nil {
				return &way{peer: p, remote: remote}
			}
		}
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.conns[ufrag] {
		c.mu.RLock()
		p := c.paths[remote]
		c.mu.RUnlock()
		if c.addr == local && p != nil {
			return &way{socket: p.socket, udp: p.remote, remote: remote}
		}
	}
	return nil
}

// tap gives a session's datagrams to t first.
func (m *mux) tap(ufrag string, t mediaTap) {
	m.tapMu.Lock()
	defer m.tapMu.Unlock()
	if t == nil {
		delete(m.taps, ufrag)
	} else {
		m.taps[ufrag] = t
	}
}

func (m *mux) tapOf(ufrag string) mediaTap {
	m.tapMu.RLock()
	defer m.tapMu.RUnlock()
	return m.taps[ufrag]
}

// tapped gives a datagram to the tap of a session, if it has one.
func (m *mux) tapped(r *reader, ufrag string, p []byte) bool {
	t := m.tapOf(ufrag)
	switch {
	case t == nil || len(p) == 0:
		return false
	case p[0] >= 128 && p[0] < 192:
		return t.media(r, p)
	case p[0] == 22:
		t.handshake(p, false)
	}
	return false
}

func (m *mux) leaving(ufrag string, p []byte) {
	if len(p) > 0 && p[0] == 22 {
		if t := m.tapOf(ufrag); t != nil {
			t.handshake(p, true)
		}
	}
}
