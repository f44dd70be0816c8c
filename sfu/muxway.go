package sfu

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"sallyport/sfu/internal/batch"
)

// A way leads to one participant: by a kernel socket, a hairpin, or a TCP
// connection. It stays the same while the participant's address does; ICE may
// select another one. Its methods may be called from any goroutine.
type way struct {
	remote netip.AddrPort
	conn   *muxConn // nil for TCP
	socket atomic.Pointer[muxSocket]

	tcp  *tcpMuxConn // nil for UDP
	peer *tcpPeer
}

// closed reports whether nothing that is sent will arrive any more.
func (w *way) closed() bool {
	if w.tcp != nil {
		return w.tcp.closed.Load()
	}
	return w.conn.closed.Load()
}

// alive notes that something authentic has come from the participant.
func (w *way) alive(now time.Time) {
	if w.tcp != nil {
		return
	}
	w.conn.mu.RLock()
	defer w.conn.mu.RUnlock()
	if p := w.conn.paths[w.remote]; p != nil {
		p.heard.Store(now.UnixNano())
		p.socket.touch(w.remote, w.conn, now)
	}
}

// String describes the way for a log.
func (w *way) String() string {
	if w.tcp != nil {
		return fmt.Sprintf("tcp %s from %s", w.remote, w.tcp.addr)
	}
	if w.socket.Load().kernel == nil {
		return fmt.Sprintf("relay %s from %s", w.remote, w.conn.addr)
	}
	return fmt.Sprintf("udp %s from %s", w.remote, w.conn.addr)
}

// way returns the way between a local candidate of a ufrag and a remote one; nil
// if nothing has come or gone there.
func (m *mux) way(ufrag string, local, remote netip.AddrPort, tcp bool) *way {
	if tcp {
		return m.tcp.way(ufrag, local, remote)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var found *way
	for _, c := range m.conns[ufrag] {
		if c.addr == local {
			return c.way(remote)
		}
		if found == nil { // told before the advertised address changed
			found = c.way(remote)
		}
	}
	return found
}

// way returns the way to a remote address, nil if it is not known.
func (c *muxConn) way(remote netip.AddrPort) *way {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.paths[remote]
	if p == nil {
		return nil
	}
	if p.way == nil {
		p.way = &way{remote: remote, conn: c}
		p.way.socket.Store(p.socket)
	}
	return p.way
}

func (m *tcpMux) way(ufrag string, local, remote netip.AddrPort) *way {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var found *way
	for _, c := range m.conns[ufrag] {
		c.mu.RLock()
		peer := c.peers[remote]
		c.mu.RUnlock()
		if peer != nil && (found == nil || c.addr == local) {
			found = &way{remote: remote, tcp: c, peer: peer}
		}
	}
	return found
}

// A reacher is a hairpin that knows which of its clients are still there.
type reacher interface {
	Reaches(client netip.AddrPort) bool
}

// leads reports whether what is sent to a remote address may arrive: false if its
// TCP connection, or the relay that it is, has ended. Over UDP nobody can know.
func (m *mux) leads(remote netip.AddrPort, tcp bool) bool {
	if tcp {
		return m.tcp.leads(remote)
	}
	known := false
	for _, s := range m.sockets {
		if s.kernel != nil || s.routes.get(remote) == nil {
			continue
		}
		r, ok := s.hairpin.(reacher)
		if !ok || r.Reaches(remote) {
			return true
		}
		known = true
	}
	return !known
}

func (m *tcpMux) leads(remote netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, of := range m.conns {
		for _, c := range of {
			c.mu.RLock()
			_, ok := c.peers[remote]
			c.mu.RUnlock()
			if ok {
				return true
			}
		}
	}
	return false
}

// An outbox collects packets of one goroutine for any number of participants and
// sends them in few system calls. It never waits for anybody longer than a few
// milliseconds. What cannot be sent is lost and counted.
type outbox struct {
	mux     *mux
	number  int          // spreads outboxes over the sockets of a group
	outs    []*batch.Out // by muxSocket.index; nil until used
	sheaves []*sheaf     // likewise, of hairpins
	out     *batch.Out   // of the last reserve; nil: scratch is
	scratch []byte
}

// newOutbox makes an empty outbox.
func (m *mux) newOutbox() *outbox {
	return &outbox{mux: m, number: int(m.boxes.Add(1) - 1), outs: make([]*batch.Out, len(m.sockets)), sheaves: make([]*sheaf, len(m.sockets)), scratch: make([]byte, maxDatagram)}
}

// reserve returns n bytes, at most maxDatagram, in which to make a packet for
// to. commit must follow before the next reserve.
func (o *outbox) reserve(to *way, n int) []byte {
	o.out = nil
	if to != nil && to.tcp == nil {
		if s := to.socket.Load(); s.kernel != nil {
			o.out = o.outOf(s)
			return o.out.Reserve(n)
		}
	}
	return o.scratch[:n]
}

func (o *outbox) outOf(s *muxSocket) *batch.Out {
	if o.outs[s.index] == nil {
		o.outs[s.index] = batch.NewOut(s.kernel[o.number%len(s.kernel)], o.lost)
	}
	return o.outs[s.index]
}

// commit sends the first n bytes of what reserve has returned, at the next flush
// at the latest. 0 sends nothing.
func (o *outbox) commit(to *way, n int) {
	out := o.out
	o.out = nil
	switch {
	case n == 0:
	case to == nil || to.tcp != nil && to.closed(): // over UDP it costs nobody anything, and looking costs each packet
		o.mux.drops("no_way")
	case out != nil:
		out.Commit(to.remote, n)
	case to.tcp != nil:
		if !to.peer.out.push(o.scratch[:n], to.peer.remote) {
			o.mux.drops("tcp_slow")
		}
	default:
		if o.sheafOf(to.socket.Load()).send(o.scratch[:n], to.remote) != nil {
			o.mux.drops("no_way")
		}
	}
}

// A collector is a hairpin that can send several packets at once: send is as good as
// WriteTo, once flush has been called.
type collector interface {
	Collect() (send func(p []byte, to netip.AddrPort) error, flush func())
}

// A sheaf is what an outbox has for a hairpin.
type sheaf struct {
	send  func(p []byte, to netip.AddrPort) error
	flush func()
}

func (o *outbox) sheafOf(s *muxSocket) *sheaf {
	if f := o.sheaves[s.index]; f != nil {
		return f
	}
	f := &sheaf{func(p []byte, to netip.AddrPort) error {
		_, err := s.send(p, net.UDPAddrFromAddrPort(to), to)
		return err
	}, func() {}}
	if c, ok := s.hairpin.(collector); ok {
		f.send, f.flush = c.Collect()
	}
	o.sheaves[s.index] = f
	return f
}

// flush sends everything that was committed.
func (o *outbox) flush() {
	for _, out := range o.outs {
		if out != nil {
			out.Flush()
		}
	}
	for _, f := range o.sheaves {
		if f != nil {
			f.flush()
		}
	}
}

func (o *outbox) lost(why batch.Loss, n int) {
	reason := [...]string{batch.LossFull: "send_full", batch.LossRefused: "send_refused", batch.LossClosed: "send_closed"}[why]
	for range n {
		o.mux.drops(reason)
	}
}
