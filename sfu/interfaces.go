package sfu

import (
	"cmp"
	"net"
	"net/netip"
	"regexp"
	"slices"
)

// virtualName matches the names of interfaces that lead to containers and virtual
// machines of this host, where no client of ours is. They are those that the
// programs give themselves: people call bridges that carry a machine's own address
// br-lan or br-ex.
var virtualName = regexp.MustCompile(`^(` +
	`docker\d*|docker_gwbridge|br-[0-9a-f]{12}|veth.*` + // Docker
	`|podman\d+|cni-podman\d+|lxcbr\d+|lxdbr\d+|incusbr\d+` + // Podman, LXC, LXD, Incus
	`|virbr\d+(-nic)?|vnet\d+` + // libvirt
	`|cni\d+|kube-bridge|kube-ipvs0|nodelocaldns|flannel[.-].*` + // Kubernetes
	`|cali[0-9a-f]{11}|vxlan\.calico|tunl0` + // Calico
	`|cilium_.*|lxc[0-9a-f]{12}|lxc_health)$`) // Cilium

// A nic is a network interface that is up.
type nic struct {
	name  string
	addrs []netip.Addr
}

// nics lists the interfaces of this machine that are up.
func nics() ([]nic, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []nic
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		n := nic{name: i.Name}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				n.addrs = append(n.addrs, p.Addr().Unmap())
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// outward lists the addresses from which this machine would reach the Internet.
// Nothing is sent for it: connecting a UDP socket only looks up the route.
func outward() []netip.Addr {
	var out []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // of nobody (RFC 5737, RFC 3849)
		c, err := net.Dial("udp", to)
		if err != nil {
			continue // no such route
		}
		out = append(out, localAddrPort(c.LocalAddr()).Addr())
		_ = c.Close()
	}
	return out
}

// usefulAddresses lists the addresses of this machine that a client might reach.
func usefulAddresses(ipv6 bool) ([]netip.Addr, error) {
	all, err := nics()
	if err != nil {
		return nil, err
	}
	return usefulOf(all, outward(), ipv6), nil
}

// usefulOf chooses among the addresses of interfaces those that a client might
// reach: not of virtual interfaces, unless the way out (one of outward) begins
// there, and neither loopback nor link-local. When none is left it takes, of the
// others, the least unlikely ones: it must take some.
func usefulOf(all []nic, outward []netip.Addr, ipv6 bool) []netip.Addr {
	var useful, virtual, linkLocal, loopback []netip.Addr
	for _, n := range all {
		leadsOut := slices.ContainsFunc(n.addrs, func(a netip.Addr) bool { return slices.Contains(outward, a) })
		for _, ip := range n.addrs {
			switch {
			case ip.Is6() && (!ipv6 || ip.IsLinkLocalUnicast()): // of no use without its interface
			case ip.IsLoopback():
				loopback = append(loopback, ip)
			case ip.IsLinkLocalUnicast():
				linkLocal = append(linkLocal, ip)
			case virtualName.MatchString(n.name) && !leadsOut:
				virtual = append(virtual, ip)
			default:
				useful = append(useful, ip)
			}
		}
	}
	for _, out := range [][]netip.Addr{useful, virtual, linkLocal, loopback} {
		if len(out) > 0 {
			slices.SortFunc(out, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) })
			return slices.Compact(out)
		}
	}
	return nil
}

// everyAddress lists all addresses of this machine's interfaces that are up, as
// far as the system tells.
func everyAddress() []netip.Addr {
	all, err := nics()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range all {
		for _, ip := range n.addrs {
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(n.name)
			}
			if !slices.Contains(out, ip) {
				out = append(out, ip)
			}
		}
	}
	return out
}
