package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun"
)

// A guard decides about every packet of one shard. It runs on the goroutine of
// pion's read loop and nowhere else.
//
//	packet ─┬─ ChannelData, Send: is there an allocation, a channel, a permission?  ─> pion, unchanged
//	        └─ request: authentic? allowed? within limits? ─ no ─> error to the client
//	                                                       └ yes ─> exchange: our own request to pion,
//	                                                                then our own answer to the client
type guard struct {
	server *Server
	lobby  *lobby
	shard  *shard

	in, out stun.Message // the message under examination, the answer to it

	pion pionSide
}

// A request is one that a client sent, as far as it is understood.
type request struct {
	from        source
	client      *client // nil for a UDP stranger
	method      stun.Method
	transaction [stun.TransactionIDSize]byte
	attrs       attributes // those that count: before MESSAGE-INTEGRITY
	signed      bool       // there is a MESSAGE-INTEGRITY
	fingerprint bool       // the client uses FINGERPRINT: so do we
	size        int        // of the message, in bytes

	// Known after authentication:
	username string
	user     string
	key      []byte
}

// allocation returns the client's allocation, nil if it has none.
func (r *request) allocation() *allocation {
	if r.client == nil {
		return nil
	}
	return r.client.allocation
}

// packet examines p. It returns what pion shall read, in b, or 0.
func (g *guard) packet(p *packet, b []byte) (int, net.Addr) {
	c := g.current(p)
	if p.data[0]>>6 == 1 {
		return g.channelData(p, c, b)
	}
	if !looksLikeTURN(p.bytes()) || !g.decode(p.bytes()) {
		g.server.metrics.drops.malformed.Inc()
		return 0, nil
	}
	switch g.in.Type.Class {
	case stun.ClassRequest:
		return g.request(g.read(p, c), b)
	case stun.ClassIndication:
		return g.indication(p, c, b)
	default: // answers; we ask clients nothing
		g.server.metrics.drops.malformed.Inc()
		return 0, nil
	}
}

// current returns the client p belongs to now: since p was queued a UDP
// source may have got an allocation, or lost it.
func (g *guard) current(p *packet) *client {
	c := p.client
	if c == nil {
		c = g.shard.client(p.source)
	}
	if c != nil && c.stream == nil && c.allocation == nil {
		return nil
	}
	return c
}

// decode parses b into g.in. FINGERPRINT must be right if it is there.
func (g *guard) decode(b []byte) bool {
	m := &g.in
	m.Raw = append(m.Raw[:0], b...)
	if m.Decode() != nil {
		return false
	}
	for i, a := range m.Attributes {
		if a.Type == stun.AttrFingerprint {
			return i == len(m.Attributes)-1 && stun.Fingerprint.Check(m) == nil
		}
	}
	return true
}

// read makes a request of g.in. What follows MESSAGE-INTEGRITY nobody signed,
// so it is not there (RFC 8489 §14.5).
func (g *guard) read(p *packet, c *client) *request {
	m := &g.in
	r := &request{from: p.source, client: c, method: m.Type.Method, transaction: m.TransactionID, attrs: attributes(m.Attributes), size: p.n}
	r.fingerprint = r.attrs.has(stun.AttrFingerprint)
	for i, a := range m.Attributes {
		if a.Type == stun.AttrMessageIntegrity {
			r.signed, r.attrs = true, attributes(m.Attributes[:i])
			break
		}
	}
	return r
}

// channelData lets media of bound channels pass.
func (g *guard) channelData(p *packet, c *client, b []byte) (int, net.Addr) {
	drops := &g.server.metrics.drops
	data := p.bytes()
	switch {
	case !looksLikeTURN(data):
		drops.malformed.Inc()
	case c == nil || c.allocation == nil:
		drops.stranger.Inc()
	default:
		if _, bound := c.allocation.channels[binary.BigEndian.Uint16(data)]; bound {
			return copy(b, data), c.virtual
		}
		drops.permission.Inc()
	}
	return 0, nil
}

// indication lets Send pass if the peer may be talked to. pion takes the
// first XOR-PEER-ADDRESS too.
func (g *guard) indication(p *packet, c *client, b []byte) (int, net.Addr) {
	drops := &g.server.metrics.drops
	if g.in.Type.Method == stun.MethodBinding {
		return 0, nil // keep-alive
	}
	attrs := attributes(g.in.Attributes)
	peer, ok := attrs.peer(&g.in)
	switch {
	case g.in.Type.Method != stun.MethodSend || !ok || !attrs.has(stun.AttrData) || attrs.unknown() != nil:
		drops.malformed.Inc()
	case c == nil || c.allocation == nil:
		drops.stranger.Inc()
	case !g.server.allowed(peer):
		g.server.metrics.deniedSend.Inc()
	case !c.allocation.permitted(peer.Addr(), time.Now()):
		drops.permission.Inc()
	default:
		return copy(b, p.bytes()), c.virtual
	}
	return 0, nil
}

// event acts on something that is not a packet; it returns what pion shall
// read, like packet.
func (g *guard) event(e event, b []byte) (int, net.Addr) {
	c := e.client
	if e.what == connectionGone {
		c.gone = true
		if !c.stream.allocated.Load() {
			g.lobby.leave(c.stream.network)
		}
	}
	if c.allocation == nil || e.what == allocationExpired && time.Now().Before(c.allocation.expires) {
		return 0, nil // or refreshed while the event waited
	}
	return g.delete(c, b, nil)
}

// delete makes pion end the allocation of c, then does so itself; done may be nil.
//
// Deleting through a request keeps everything pion does to an allocation on
// one goroutine: closing one while it adds a permission would crash it.
func (g *guard) delete(c *client, b []byte, done func()) (int, net.Addr) {
	return g.pion.ask(&exchange{
		client: c, method: stun.MethodRefresh, attrs: []stun.Setter{lifetimeAttribute(0)},
		done: func(bool) {
			g.forget(c)
			if done != nil {
				done()
			}
		},
	}, b)
}

// forget ends the allocation on our side.
func (g *guard) forget(c *client) {
	a := c.allocation
	c.allocation = nil
	c.relay.Store(nil)
	a.timer.Stop()
	_ = a.relay.Close() // pion has done so, unless it lost the allocation
	g.shard.remove(c)
	if c.stream != nil && !c.gone {
		c.stream.demote()
	}
	g.server.log.Debug("allocation ended", "user", a.username, "remote", c.source.addr, "transport", c.via)
}

// close is called once, at shutdown, before pion closes its allocations.
func (g *guard) close() {
	g.pion.close()
	g.shard.mu.RLock()
	defer g.shard.mu.RUnlock()
	for _, c := range g.shard.byID {
		c.allocation.timer.Stop()
	}
}

// resume continues with an exchange after pion has handled our request.
func (g *guard) resume(b []byte) (int, net.Addr) { return g.pion.resume(b) }

func (g *guard) answered(b []byte) { g.pion.answered(b) }

// allowed tells whether a client may talk to peer.
func (s *Server) allowed(peer netip.AddrPort) bool {
	if peer.Addr().Is4In6() {
		return false
	}
	if s.peers.sfu && s.hairpin.alias(peer) != nil {
		return true
	}
	return s.peers.allows(peer)
}

// allowedIP tells whether there is a port of ip a client may talk to.
func (s *Server) allowedIP(ip netip.Addr) bool {
	if ip.Is4In6() {
		return false
	}
	if s.peers.sfu {
		for a := range *s.hairpin.aliases.Load() {
			if a.Addr() == ip {
				return true
			}
		}
	}
	return s.peers.allowsIP(ip)
}
