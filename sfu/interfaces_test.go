package sfu

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func texts(list []netip.Addr) (out []string) {
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

func TestUsefulAddresses(t *testing.T) {
	lo := nic{"lo", addresses("127.0.0.1", "::1")}
	eth := nic{"eth0", addresses("198.51.100.7", "2001:db8::7", "fe80::7")}
	docker := nic{"docker0", addresses("172.17.0.1")}
	for _, tt := range []struct {
		name    string
		all     []nic
		outward []netip.Addr
		ipv6    bool
		want    []string
	}{
		{"a server", []nic{lo, eth}, nil, false, []string{"198.51.100.7"}},
		{"with IPv6", []nic{lo, eth}, nil, true, []string{"198.51.100.7", "2001:db8::7"}},
		{"two networks", []nic{lo, eth, {"eth1", addresses("10.0.0.7")}}, nil, false, []string{"10.0.0.7", "198.51.100.7"}},
		{"one address on two interfaces", []nic{lo, eth, {"eth1", addresses("198.51.100.7")}}, nil, false, []string{"198.51.100.7"}},
		{"Docker", []nic{lo, eth, docker, {"br-0123456789ab", addresses("172.18.0.1")}, {"veth1a2b3c4", addresses("169.254.7.7")}}, nil, false, []string{"198.51.100.7"}},
		{"a bridge of OpenShift or OpenStack", []nic{lo, {"eth0", nil}, {"br-ex", addresses("198.51.100.8")}, {"br-int", nil}}, nil, false, []string{"198.51.100.8"}},
		{"a bridge of OpenWrt", []nic{lo, {"br-lan", addresses("192.168.1.1")}}, nil, false, []string{"192.168.1.1"}},
		{"Proxmox", []nic{lo, {"vmbr0", addresses("192.168.1.2")}, {"fwbr100i0", nil}}, nil, false, []string{"192.168.1.2"}},
		{"a virtual interface that the way out begins at", []nic{lo, docker, {"veth0", addresses("10.1.1.2", "10.1.1.3")}}, addresses("10.1.1.2"), false, []string{"10.1.1.2", "10.1.1.3"}},
		{"link-local", []nic{lo, eth, {"eth1", addresses("169.254.3.4")}, {"usb0", addresses("fe80::1")}}, nil, true, []string{"198.51.100.7", "2001:db8::7"}},
		{"nothing but virtual ones", []nic{lo, docker}, nil, false, []string{"172.17.0.1"}},
		{"nothing but link-local", []nic{lo, {"eth0", addresses("169.254.3.4", "fe80::7")}}, nil, true, []string{"169.254.3.4"}},
		{"nothing but loopback", []nic{lo}, nil, false, []string{"127.0.0.1"}},
		{"an address of the machine on lo", []nic{{"lo", addresses("127.0.0.1", "203.0.113.9")}, eth}, nil, false, []string{"198.51.100.7", "203.0.113.9"}},
		{"nothing at all", nil, nil, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, texts(usefulOf(tt.all, tt.outward, tt.ipv6))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestVirtualNames(t *testing.T) {
	for _, name := range []string{
		"docker0", "docker_gwbridge", "br-0123456789ab", "veth0a1b2c3", "podman0", "cni-podman0", "lxcbr0", "lxdbr0", "incusbr0",
		"virbr0", "virbr0-nic", "vnet3", "cni0", "kube-bridge", "kube-ipvs0", "nodelocaldns", "flannel.1", "flannel-wg",
		"cali0123456789a", "vxlan.calico", "tunl0", "cilium_host", "lxc0123456789ab", "lxc_health",
	} {
		if !virtualName.MatchString(name) {
			t.Errorf("%s counts as one of the machine's own", name)
		}
	}
	for _, name := range []string{
		"eth0", "ens18", "enp3s0f1np1", "wlan0", "bond0", "bond0.100", "br0", "br-ex", "br-lan", "br-int", "br-provider", "br-0123456789", "br-0123456789abc",
		"vmbr0", "wg0", "tailscale0", "tun0", "ppp0", "dockernet", "california", "lo",
	} {
		if virtualName.MatchString(name) {
			t.Errorf("%s counts as virtual", name)
		}
	}
}
