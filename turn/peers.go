package turn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// special are the ranges nobody is relayed to unless the exact address and
// port are listed in relay_to: what lives there belongs to this machine or its
// network, or is IPv4 in disguise and would slip past a rule written for IPv4.
// The same holds for the addresses of this machine, whatever they are.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // this network
	netip.MustParsePrefix("127.0.0.0/8"),        // loopback
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local, cloud metadata
	netip.MustParsePrefix("100.100.100.200/32"), // cloud metadata
	netip.MustParsePrefix("192.0.0.0/24"),       // protocol assignments, cloud metadata
	netip.MustParsePrefix("192.88.99.0/24"),     // 6to4 relay
	netip.MustParsePrefix("224.0.0.0/4"),        // multicast
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved, broadcast
	netip.MustParsePrefix("::/96"),              // unspecified, loopback, IPv4-compatible
	netip.MustParsePrefix("::ffff:0:0/96"),      // IPv4-mapped
	netip.MustParsePrefix("64:ff9b::/96"),       // NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),     // NAT64, local use
	netip.MustParsePrefix("100::/64"),           // discard; our virtual client addresses
	netip.MustParsePrefix("2001::/32"),          // Teredo
	netip.MustParsePrefix("2002::/16"),          // 6to4
	netip.MustParsePrefix("fd00:ec2::/32"),      // cloud metadata
	netip.MustParsePrefix("fe80::/10"),          // link-local
	netip.MustParsePrefix("fec0::/10"),          // site-local
	netip.MustParsePrefix("ff00::/8"),           // multicast
}

const (
	resolveEvery   = time.Minute
	resolveTimeout = 10 * time.Second
)

// errOwn is what is wrong with a name that stands for nothing we relay to.
var errOwn = errors.New("it is this machine, or a special address: write the address itself")

// peers knows who may be relayed to: the Config.RelayTo list.
type peers struct {
	sfu    bool                        // the aliases of the hairpin
	exact  map[netip.AddrPort]struct{} // written as ip:port; special ranges included
	ranges []peerRange
	names  []peerName

	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	interfaces func() (map[netip.Addr]struct{}, error) // ownAddresses
	further    func() []netip.Addr                     // of ours, that interfaces do not have

	resolved atomic.Pointer[map[netip.AddrPort]struct{}] // what names stand for now
	own      atomic.Pointer[map[netip.Addr]struct{}]     // this machine's; nil: not known yet
}

type peerRange struct {
	prefix netip.Prefix
	port   uint16
}

type peerName struct {
	host string
	port uint16
}

// CheckRelayTo reports what is wrong with one entry of Config.RelayTo, nil if
// nothing is. It does no I/O.
func CheckRelayTo(entry string) error {
	_, err := newPeers([]string{entry})
	return err
}

func newPeers(entries []string) (*peers, error) {
	p := &peers{
		exact:      make(map[netip.AddrPort]struct{}),
		lookup:     net.DefaultResolver.LookupNetIP,
		interfaces: ownAddresses, further: func() []netip.Addr { return nil },
	}
	for _, e := range entries {
		if err := p.add(e); err != nil {
			return nil, fmt.Errorf("read relay_to entry %q: %w", e, err)
		}
	}
	return p, nil
}

func (p *peers) add(entry string) error {
	if entry == "sfu" {
		p.sfu = true
		return nil
	}
	colon := strings.LastIndexByte(entry, ':')
	if colon < 0 {
		return errors.New(`want "sfu", host:port or CIDR:port`)
	}
	port, err := strconv.ParseUint(entry[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return errors.New("port must be 1 to 65535")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(entry[:colon], "["), "]")
	switch {
	case strings.Contains(host, "/"):
		prefix, err := netip.ParsePrefix(host)
		if err != nil {
			return fmt.Errorf("parse network: %w", err)
		}
		p.ranges = append(p.ranges, peerRange{prefix.Masked(), uint16(port)})
	case host == "":
		return errors.New("host is missing")
	default:
		if ip, err := netip.ParseAddr(host); err == nil {
			p.exact[netip.AddrPortFrom(ip.Unmap(), uint16(port))] = struct{}{}
			return nil
		}
		if strings.ContainsAny(host, " :[]@?#%\"'") {
			return errors.New("host is neither a name nor an address")
		}
		p.names = append(p.names, peerName{host, uint16(port)})
	}
	return nil
}

// allows tells whether a, other than the SFU, may be relayed to. a must not be
// an IPv4-mapped IPv6 address: whoever reads addresses from the wire refuses
// or unmaps those.
func (p *peers) allows(a netip.AddrPort) bool {
	if _, ok := p.exact[a]; ok {
		return true
	}
	if !p.ordinary(a.Addr()) {
		return false
	}
	for _, r := range p.ranges {
		if r.port == a.Port() && r.prefix.Contains(a.Addr()) {
			return true
		}
	}
	if m := p.resolved.Load(); m != nil {
		_, ok := (*m)[a]
		return ok
	}
	return false
}

// allowsIP tells whether some port of ip may be relayed to.
func (p *peers) allowsIP(ip netip.Addr) bool {
	for a := range p.exact {
		if a.Addr() == ip {
			return true
		}
	}
	if !p.ordinary(ip) {
		return false
	}
	for _, r := range p.ranges {
		if r.prefix.Contains(ip) {
			return true
		}
	}
	if m := p.resolved.Load(); m != nil {
		for a := range *m {
			if a.Addr() == ip {
				return true
			}
		}
	}
	return false
}

// ordinary tells whether a network or a name may stand for ip: not if it is
// special or this machine's own, where our own ports are.
func (p *peers) ordinary(ip netip.Addr) bool {
	own := p.own.Load()
	if own == nil || isSpecial(ip) {
		return false
	}
	_, ours := (*own)[ip.WithZone("")]
	return !ours
}

// lookAround notes the addresses of this machine. If they cannot be had, those
// of the last time stay.
func (p *peers) lookAround() error {
	own, err := p.interfaces()
	if err != nil {
		return err
	}
	for _, ip := range p.further() {
		own[ip] = struct{}{}
	}
	p.own.Store(&own)
	return nil
}

func isSpecial(ip netip.Addr) bool {
	for _, s := range special {
		if s.Contains(ip) {
			return true
		}
	}
	return !ip.IsValid()
}

// keepResolved looks up which addresses are this machine's and what the host
// names stand for, again every minute, until ctx ends. A name that cannot be
// resolved keeps its last addresses.
func (p *peers) keepResolved(ctx context.Context, failed func(host string, err error)) {
	if len(p.names) == 0 && len(p.ranges) == 0 {
		return
	}
	known := make(map[peerName][]netip.Addr)
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		if err := p.lookAround(); err != nil {
			failed("this machine", err)
		}
		all := make(map[netip.AddrPort]struct{})
		for _, n := range p.names {
			lookup, cancel := context.WithTimeout(ctx, resolveTimeout)
			ips, err := p.lookup(lookup, "ip", n.host)
			cancel()
			if err == nil {
				known[n] = ips
				if !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return p.ordinary(ip.Unmap()) }) {
					err = errOwn
				}
			}
			if err != nil && ctx.Err() == nil {
				failed(n.host, err)
			}
			for _, ip := range known[n] {
				all[netip.AddrPortFrom(ip.Unmap(), n.port)] = struct{}{}
			}
		}
		p.resolved.Store(&all)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
