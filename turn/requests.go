package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun"
)

const (
	// maxPermissions and maxChannels bound what one allocation may hold. An
	// SFU has a handful of addresses.
	maxPermissions = 64
	maxChannels    = 64

	permissionLifetime = 5 * time.Minute  // RFC 8656 §9
	channelLifetime    = 10 * time.Minute // RFC 8656 §12

	// Lifetimes granted. What a client asks for is brought into this range;
	// the upper end lets ours run out before pion's.
	minLifetime = 10 * time.Minute
	maxLifetime = time.Hour - 10*time.Second
)

// request answers r, or returns what pion has to say to it first.
func (g *guard) request(r *request, b []byte) (int, net.Addr) {
	switch r.method {
	case stun.MethodBinding:
		if g.mayAnswer(r) {
			g.reply(r, stun.ClassSuccessResponse, xorAddress{stun.AttrXORMappedAddress, r.from.addr})
		}
		return 0, nil
	case stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind:
	default:
		g.server.metrics.drops.malformed.Inc()
		return 0, nil
	}
	if !g.authenticate(r) {
		return 0, nil
	}
	if unknown := r.attrs.unknown(); unknown != nil {
		return g.fail(r, stun.CodeUnknownAttribute, attribute(stun.AttrUnknownAttributes, unknown))
	}
	a := r.allocation()
	switch {
	case r.method == stun.MethodAllocate:
		return g.allocate(r, b)
	case a == nil:
		return g.fail(r, stun.CodeAllocMismatch)
	case a.username != r.username:
		g.count(r, "other_user")
		return g.fail(r, stun.CodeWrongCredentials)
	case r.method == stun.MethodRefresh:
		return g.refresh(r, b)
	case r.method == stun.MethodCreatePermission:
		return g.permission(r, b)
	default:
		return g.channelBind(r, b)
	}
}

// allocate serves Allocate (RFC 8656 §7.2).
func (g *guard) allocate(r *request, b []byte) (int, net.Addr) {
	if a := r.allocation(); a != nil {
		if r.transaction == a.transaction && r.username == a.username {
			g.allocated(r, a) // our answer was lost
			return 0, nil
		}
		return g.fail(r, stun.CodeAllocMismatch)
	}
	if code := g.refusal(r); code != 0 {
		return g.fail(r, code)
	}
	c := r.client
	if c == nil {
		c = newClient(g.server.ids.Add(1), r.from, overUDP)
	}
	family, _ := r.attrs.family()
	relay, code := g.server.newRelay(r.user, r.username, c.via, wish{family: family, even: r.attrs.has(stun.AttrEvenPort)})
	if code != 0 {
		return g.fail(r, code)
	}
	lifetime, _ := r.attrs.lifetime()
	a := &allocation{
		username: r.username, key: r.key, relay: relay, transaction: r.transaction,
		lifetime:    g.server.lifetimes.clamp(lifetime),
		permissions: make(map[netip.Addr]time.Time), channels: make(map[uint16]channel),
	}
	g.pion.offered = relay
	return g.pion.ask(&exchange{
		client: c, method: stun.MethodAllocate,
		attrs: []stun.Setter{attribute(stun.AttrRequestedTransport, []byte{protocolUDP, 0, 0, 0}), lifetimeAttribute(pionPatient)},
		done: func(agreed bool) {
			if !agreed {
				_ = relay.Close()
				g.fail(r, stun.CodeInsufficientCapacity)
				return
			}
			g.begin(c, a)
			g.server.watchUse(a.username, c.source.addr.Addr())
			g.allocated(r, a)
		},
	}, b)
}

// begin puts an allocation into force.
func (g *guard) begin(c *client, a *allocation) {
	a.expires = time.Now().Add(a.lifetime)
	a.timer = time.AfterFunc(a.lifetime, func() { g.shard.post(event{c, allocationExpired}) })
	c.allocation = a
	c.relay.Store(a.relay)
	g.shard.add(c)
	if c.stream != nil {
		c.stream.promote()
	}
	g.server.log.Debug("allocation made", "user", a.username, "remote", c.source.addr, "transport", c.via, "relayed", a.relay.addr)
}

func (g *guard) allocated(r *request, a *allocation) {
	g.reply(r, stun.ClassSuccessResponse,
		xorAddress{stun.AttrXORRelayedAddress, a.relay.at},
		xorAddress{stun.AttrXORMappedAddress, r.from.addr},
		lifetimeAttribute(a.lifetime))
}

// refusal returns the error an Allocate deserves before limits are looked at,
// 0 for none.
func (g *guard) refusal(r *request) stun.ErrorCode {
	token := r.attrs.has(stun.AttrReservationToken)
	even, hasEven := r.attrs.get(stun.AttrEvenPort)
	transport, _ := r.attrs.get(stun.AttrRequestedTransport)
	_, hasFamily := r.attrs.get(stun.AttrRequestedAddressFamily)
	family, familyOK := r.attrs.family()
	_, served := g.server.hairpin.family(family)
	switch {
	case token && hasEven, token && hasFamily, len(transport) != 4, !familyOK, hasEven && len(even) != 1:
		return stun.CodeBadRequest
	case transport[0] != protocolUDP:
		return stun.CodeUnsupportedTransProto
	case !served:
		return stun.CodeAddrFamilyNotSupported
	case token, hasEven && even[0]&0x80 != 0: // nothing is ever reserved: who needs two ports allocates twice
		return stun.CodeInsufficientCapacity
	}
	return 0
}

// refresh serves Refresh (RFC 8656 §8).
func (g *guard) refresh(r *request, b []byte) (int, net.Addr) {
	c := r.client
	switch family, ok := r.attrs.family(); {
	case !ok:
		return g.fail(r, stun.CodeBadRequest)
	case family != 0 && family != familyOf(c.allocation.relay.at.Addr()):
		return g.fail(r, stun.CodePeerAddrFamilyMismatch)
	}
	asked, ok := r.attrs.lifetime()
	if ok && asked == 0 {
		return g.delete(c, b, func() { g.reply(r, stun.ClassSuccessResponse, lifetimeAttribute(0)) })
	}
	granted := g.server.lifetimes.clamp(asked)
	return g.pion.ask(&exchange{
		client: c, method: stun.MethodRefresh, attrs: []stun.Setter{lifetimeAttribute(pionPatient)},
		done: func(agreed bool) {
			if !agreed { // pion has lost it
				g.forget(c)
				g.fail(r, stun.CodeAllocMismatch)
				return
			}
			c.allocation.lifetime = granted
			c.allocation.expires = time.Now().Add(granted)
			c.allocation.timer.Reset(granted)
			g.reply(r, stun.ClassSuccessResponse, lifetimeAttribute(granted))
		},
	}, b)
}

// permission serves CreatePermission (RFC 8656 §9.2): all its peers or none.
func (g *guard) permission(r *request, b []byte) (int, net.Addr) {
	now := time.Now()
	all, ok := r.attrs.peers(&g.in)
	if !ok || len(all) == 0 {
		return g.fail(r, stun.CodeBadRequest)
	}
	if code := g.forbidden(r, all); code != 0 {
		return g.fail(r, code)
	}
	attrs := make([]stun.Setter, 0, len(all)+4)
	var ips []netip.Addr
	for _, peer := range all {
		if slices.Contains(ips, peer.Addr()) {
			continue
		}
		ips = append(ips, peer.Addr())
		attrs = append(attrs, xorAddress{stun.AttrXORPeerAddress, peer})
	}
	a := r.client.allocation
	if !a.hasRoom(now, ips...) {
		return g.fail(r, stun.CodeInsufficientCapacity)
	}
	return g.pion.ask(&exchange{
		client: r.client, method: r.method, attrs: attrs,
		done: g.conclude(r, func() { a.permit(now, ips...) }),
	}, b)
}

// channelBind serves ChannelBind (RFC 8656 §12.1).
func (g *guard) channelBind(r *request, b []byte) (int, net.Addr) {
	a, now := r.client.allocation, time.Now()
	peer, ok := r.attrs.peer(&g.in)
	v, _ := r.attrs.get(stun.AttrChannelNumber)
	if !ok || len(v) != 4 {
		return g.fail(r, stun.CodeBadRequest)
	}
	number := binary.BigEndian.Uint16(v)
	if number < firstChannel || number > lastChannel {
		return g.fail(r, stun.CodeBadRequest)
	}
	if code := g.forbidden(r, []netip.AddrPort{peer}); code != 0 {
		return g.fail(r, code)
	}
	a.forgetChannels(now)
	for n, ch := range a.channels {
		if (n == number) != (ch.peer == peer) { // one channel per peer, one peer per channel
			return g.fail(r, stun.CodeBadRequest)
		}
	}
	if _, bound := a.channels[number]; !bound && len(a.channels) >= maxChannels || !a.hasRoom(now, peer.Addr()) {
		return g.fail(r, stun.CodeInsufficientCapacity)
	}
	return g.pion.ask(&exchange{
		client: r.client, method: r.method,
		attrs: []stun.Setter{attribute(stun.AttrChannelNumber, binary.BigEndian.AppendUint32(nil, uint32(number)<<16)), xorAddress{stun.AttrXORPeerAddress, peer}},
		done: g.conclude(r, func() {
			a.permit(now, peer.Addr())
			a.channels[number] = channel{peer: peer, until: now.Add(channelLifetime)}
			a.relay.publish(r.client, a.channels)
		}),
	}, b)
}

// forbidden returns the error for peers the client may not talk to, 0 for
// none. Whether a peer is allowed comes first: that ::1 is not IPv4 is not why
// it is refused.
func (g *guard) forbidden(r *request, all []netip.AddrPort) stun.ErrorCode {
	for _, peer := range all {
		ok := g.server.allowed(peer)
		if peer.Port() == 0 && r.method == stun.MethodCreatePermission {
			ok = g.server.allowedIP(peer.Addr()) // permissions are for all ports
		}
		if !ok {
			g.server.metrics.denied.WithLabelValues(methodLabel(r.method)).Inc()
			g.server.log.Debug("peer refused", "user", r.username, "remote", r.from.addr, "peer", peer)
			return stun.CodeForbidden
		}
	}
	for _, peer := range all {
		if familyOf(peer.Addr()) != familyOf(r.client.allocation.relay.at.Addr()) {
			return stun.CodePeerAddrFamilyMismatch
		}
	}
	return 0
}

// conclude returns the end of an exchange whose success has no details: apply
// is what it means to us.
func (g *guard) conclude(r *request, apply func()) func(bool) {
	return func(agreed bool) {
		if agreed {
			apply()
			g.reply(r, stun.ClassSuccessResponse)
			return
		}
		g.fail(r, stun.CodeInsufficientCapacity)
	}
}
