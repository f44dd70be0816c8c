package turn

import "net/netip"

// A sheaf is what one goroutine of the SFU has for clients, so that it takes few
// system calls.
type sheaf struct {
	landing *landing
	streams []*stream // to be flushed
	sockets []bundle  // that are in use
}

// A bundle is what a sheaf has for the clients of a UDP socket.
type bundle struct {
	socket *socket
	send   func(b []byte, to netip.AddrPort)
	flush  func()
}

// send sends b from the SFU to a relayed address.
func (h *sheaf) send(b []byte, to netip.AddrPort) error { return h.landing.send(b, to, h) }

// put sends a frame to a client, not before flush if that saves something.
func (h *sheaf) put(c *client, frame []byte) {
	if s := c.stream; s != nil {
		if n := len(h.streams); s.out.put(frame) && (n == 0 || h.streams[n-1] != s) { // the SFU has all for one, then all for the next
			h.streams = append(h.streams, s)
		}
		return
	}
	if s, ok := c.source.via.(*socket); ok && s.collect != nil {
		h.bundle(s).send(frame, c.source.addr)
		return
	}
	c.source.send(frame)
}

func (h *sheaf) bundle(s *socket) *bundle {
	for i := range h.sockets {
		if b := &h.sockets[i]; b.socket == s {
			return b
		}
	}
	b := bundle{socket: s}
	b.send, b.flush = s.collect()
	h.sockets = append(h.sockets, b)
	return &h.sockets[len(h.sockets)-1]
}

// flush sends what waits.
func (h *sheaf) flush() {
	for _, s := range h.streams {
		s.flush()
	}
	clear(h.streams)
	h.streams = h.streams[:0]
	for i := range h.sockets {
		h.sockets[i].flush()
	}
}
