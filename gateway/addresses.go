package gateway

import (
	"net"
	"net/netip"
	"slices"

	"sallyport/sfu"
	"sallyport/turn"
)

// aliases tells TURN which peers are the SFU: a client names an address that
// the SFU advertises or, inside the network, the one it is bound to.
func aliases(addresses []sfu.Address) []turn.Alias {
	var out []turn.Alias
	for _, a := range addresses {
		if !a.Advertised.IsValid() {
			a.Advertised = a.Local // clients are not told of it, but packets may still leave there
		}
		out = append(out, turn.Alias{Named: a.Advertised, Local: a.Local})
		if a.Advertised != a.Local {
			out = append(out, turn.Alias{Named: a.Local, Local: a.Local})
		}
	}
	return out
}

// relayIPs are the addresses that relayed candidates carry, one of each family
// in which the SFU has any. Nobody sends to them; they should look like ours.
func relayIPs(addresses []sfu.Address) []netip.Addr {
	var out []netip.Addr
	for _, is := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		var all []netip.Addr
		for _, a := range addresses {
			all = append(all, a.Advertised.Addr())
		}
		for _, a := range addresses {
			all = append(all, a.Local.Addr())
		}
		if i := slices.IndexFunc(all, is); i >= 0 {
			out = append(out, all[i])
		}
	}
	if len(out) == 0 {
		return outboundIPs()
	}
	return out
}

// outboundIPs are the local addresses that packets to the Internet leave from,
// the loopback address if there is no way out. Connecting a UDP socket sends
// nothing.
func outboundIPs() []netip.Addr {
	var out []netip.Addr
	for network, somewhere := range map[string]string{"udp4": "192.0.2.1:9", "udp6": "[2001:db8::1]:9"} {
		if conn, err := net.Dial(network, somewhere); err == nil {
			out = append(out, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr())
			_ = conn.Close()
		}
	}
	if len(out) == 0 {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return out
}
