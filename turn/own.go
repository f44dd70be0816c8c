package turn

import (
	"net"
	"net/netip"
)

// ownAddresses lists where this machine can be reached: the addresses of its
// interfaces, and the first and the last of each IPv4 network it is in, which
// reach everybody there, itself included.
func ownAddresses() (map[netip.Addr]struct{}, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := make(map[netip.Addr]struct{})
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		own[p.Addr()] = struct{}{}
		if p.Addr().Is4() && p.Bits() < 31 {
			own[p.Masked().Addr()], own[lastOf(p)] = struct{}{}, struct{}{}
		}
	}
	return own, nil
}

// lastOf returns the broadcast address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	ip := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		ip[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(ip)
}

// addresses are those clients know us by: behind a NAT no interface has them.
func (h *Hairpin) addresses() []netip.Addr {
	out := []netip.Addr{h.ipv4, h.ipv6}
	for a, to := range *h.aliases.Load() {
		out = append(out, a.Addr(), addrPort(to.landing.local).Addr())
	}
	return out
}
