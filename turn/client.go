package turn

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A client is one 5-tuple: a connection, or a UDP source that has allocated.
//
// pion/turn knows it under an address of our making, unique and never reused:
// no two clients can be confused, whatever ports and transports they use.
type client struct {
	id      uint64
	virtual *net.UDPAddr // never modified
	source  source
	via     transport
	stream  *stream // nil for UDP

	relay atomic.Pointer[relay] // of its allocation, for those who feed the shard; nil for a stranger
	slow  atomic.Int32          // packets that wait for the guard, or that pion has

	// The shard's goroutine owns the following.
	allocation *allocation // nil for a stranger
	gone       bool        // the connection has ended
}

// An allocation is what the guard remembers of it; pion/turn has the rest.
type allocation struct {
	username    string
	key         []byte // of MESSAGE-INTEGRITY: the secret may change, the call goes on
	relay       *relay
	expires     time.Time
	timer       *time.Timer
	transaction [12]byte // of the Allocate that made it, and the answer to it
	lifetime    time.Duration
	permissions map[netip.Addr]time.Time
	channels    map[uint16]channel
}

type channel struct {
	peer  netip.AddrPort
	until time.Time
}

// newClient gives the client an address from 100::/64, which is nobody's
// (RFC 6666). The port only has to be constant.
func newClient(id uint64, from source, via transport) *client {
	ip := make(net.IP, net.IPv6len)
	ip[0] = 0x01
	binary.BigEndian.PutUint64(ip[8:], id)
	return &client{id: id, virtual: &net.UDPAddr{IP: ip, Port: 1}, source: from, via: via}
}

// clientID is the inverse of newClient; 0 is no client.
func clientID(a net.Addr) uint64 {
	u, ok := a.(*net.UDPAddr)
	if !ok || len(u.IP) != net.IPv6len {
		return 0
	}
	return binary.BigEndian.Uint64(u.IP[8:])
}

// hasRoom tells whether there is room for permissions for all of ips, which are
// different.
func (a *allocation) hasRoom(now time.Time, ips ...netip.Addr) bool {
	fresh := 0
	for _, ip := range ips {
		if _, ok := a.permissions[ip]; !ok {
			fresh++
		}
	}
	if len(a.permissions)+fresh > maxPermissions {
		maps.DeleteFunc(a.permissions, func(ip netip.Addr, until time.Time) bool { return now.After(until) && !slices.Contains(ips, ip) })
	}
	return len(a.permissions)+fresh <= maxPermissions
}

// permit notes that the client may talk to ips.
func (a *allocation) permit(now time.Time, ips ...netip.Addr) {
	for _, ip := range ips {
		a.permissions[ip] = now.Add(permissionLifetime)
	}
}

// permitted tells whether a permission for ip is in force.
func (a *allocation) permitted(ip netip.Addr, now time.Time) bool {
	return now.Before(a.permissions[ip])
}

// forgetChannels removes those that have expired.
func (a *allocation) forgetChannels(now time.Time) {
	for n, c := range a.channels {
		if now.After(c.until) {
			delete(a.channels, n)
		}
	}
}
