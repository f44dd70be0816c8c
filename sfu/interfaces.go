package sfu

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// virtualInterfaces begin the names of interfaces that lead to containers and
// virtual machines of this host, where no client of ours is.
var virtualInterfaces = []string{"docker", "br-", "veth", "cni", "flannel", "cali", "virbr", "lxc", "podman", "vnet"}

// usefulAddresses lists the addresses of this machine that a client might
// reach: of interfaces that are up and not virtual, without link-local ones.
// When nothing is left, loopback is.
func usefulAddresses(ipv6 bool) ([]netip.Addr, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out, loopback []netip.Addr
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || slices.ContainsFunc(virtualInterfaces, func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			switch ip := p.Addr().Unmap(); {
			case ip.Is6() && (!ipv6 || ip.IsLinkLocalUnicast()):
			case ip.IsLoopback():
				loopback = append(loopback, ip)
			default:
				out = append(out, ip)
			}
		}
	}
	if len(out) == 0 {
		out = loopback
	}
	slices.SortFunc(out, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(out), nil
}

// everyAddress lists all addresses of this machine's interfaces that are up, as
// far as the system tells.
func everyAddress() []netip.Addr {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			ip := p.Addr().Unmap()
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(i.Name)
			}
			if !slices.Contains(out, ip) {
				out = append(out, ip)
			}
		}
	}
	return out
}
