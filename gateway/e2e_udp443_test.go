package gateway_test

import (
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/sfu/peer"
)

// TestOnlyUDP443: a firewall that lets UDP 443 out and no other UDP does not
// need TURN. TURN/UDP shares the port with the calls meanwhile, and an answer
// leaves from the address the question came to.
func TestOnlyUDP443(t *testing.T) {
	x := inHouse(t, "link set lo up", "addr add 10.0.0.1/24 dev lo", "addr add 10.0.1.1/24 dev lo",
		"-6 addr add fd00::1/64 dev lo nodad", "-6 addr add fd00::2/64 dev lo nodad")
	if x == nil {
		return
	}
	rtp, rtcp := startEcho(t)
	x.start(func(c *gateway.Config) { c.TURN.RelayTo = []string{"sfu", rtp, rtcp} })
	must(t, ip("rule add pref 9 lookup local", "rule del pref 0",
		"rule add pref 1 ipproto udp dport 8443 prohibit", "rule add pref 2 ipproto tcp dport 8443 prohibit"))
	c := x.talk(peer.UDP, peer.UDP)
	began := time.Now()
	for _, p := range []*peer.Peer{c.a, c.b} {
		if s, err := p.Selected(); err != nil || s.Remote.Port() != 443 {
			t.Errorf("media goes to %v, %v; want port 443", s.Remote, err)
		}
	}
	var all sync.WaitGroup
	for _, server := range []string{"127.0.0.1", "127.0.0.1", "10.0.0.1", "10.0.1.1", "::1", "fd00::1", "fd00::2"} {
		all.Go(func() { x.uclientAt(t, server, rtp) })
	}
	all.Wait()
	relayed := x.join(peer.TURNUDP) // the SFU on 443 as its peer: 8443 is blocked for clients, not for relays
	must(t, relayed.Unmute(within(t)))
	x.hears(c.a, relayed, 25)
	x.hears(relayed, c.a, 25)
	if bad := c.harmed(time.Since(began)); bad != "" {
		t.Errorf("the call on UDP 443 meanwhile: %s", bad)
	}
}

// TestIPv6: participants without IPv4 get into the call on every port, and TURN
// answers over IPv6 from the address that was asked.
func TestIPv6(t *testing.T) {
	x := inHouse(t, "link set lo up", "addr add 10.0.0.1/24 dev lo", "-6 addr add fd00::1/64 dev lo nodad", "-6 addr add fd00::2/64 dev lo nodad")
	if x == nil {
		return
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: the kernel has no IPv6: %v", err)
	}
	rtp, rtcp := startEcho(t)
	x.start(func(c *gateway.Config) {
		c.SFU.IPv6 = true
		c.TURN.RelayTo = []string{"sfu", rtp, rtcp}
	})
	for port, path := range map[uint16]peer.Path{8443: peer.UDP, 443: peer.UDP, 0: peer.TCP} {
		a, b := x.joinIPv6(path, port), x.joinIPv6(path, port)
		must(t, a.Unmute(within(t)))
		must(t, b.Unmute(within(t)))
		x.hears(a, b, 25)
		x.hears(b, a, 25)
		s, err := a.Selected()
		if err != nil || !netip.MustParsePrefix("fd00::/64").Contains(s.Remote.Addr()) || port != 0 && s.Remote.Port() != port {
			t.Errorf("media goes to %v, %v; want fd00:: and port %d", s.Remote, err, port)
		}
	}
	var all sync.WaitGroup
	for _, server := range []string{"::1", "fd00::1", "fd00::2"} {
		all.Go(func() { x.uclientAt(t, server, rtp) })
	}
	all.Wait()
}

// A house is a network namespace of a test's own, in which ports 443 and 8443
// are free.
type house struct{ target }

// inHouse runs the calling test in one, after commands of ip. It returns nil
// where the test must return, because it has run.
func inHouse(t *testing.T, commands ...string) *house {
	t.Helper()
	needPrograms(t, "turnutils_uclient", "turnutils_peer", "ip")
	if os.Getenv(inNamespace) == "" {
		rerunInNamespace(t)
		return nil
	}
	must(t, ip(commands...))
	return &house{target{t: t}}
}

// start runs a gateway on the ports of the product.
func (x *house) start(edit func(*gateway.Config)) {
	x.t.Helper()
	started, _ := startHere(x.t, func(c *gateway.Config) {
		c.Listen = gateway.Listen{HTTPS: ":443", HTTP: ":80", UDP: ":443"}
		c.SFU.UDP, c.SFU.TCP = ":8443", ":8443"
		edit(c)
	})
	started.UDP, started.HTTPS = "127.0.0.1:443", "127.0.0.1:443"
	x.target = *started
	x.dialPlugin(x.API)
}

// joinIPv6 brings a participant without IPv4 into the call.
func (x *house) joinIPv6(path peer.Path, port uint16) *peer.Peer {
	x.t.Helper()
	c := x.participant(path)
	c.IPv6, c.Port = true, port
	p, err := peer.Join(within(x.t), x.plugin, c)
	must(x.t, err)
	x.t.Cleanup(func() { _ = p.Close() })
	return p
}

// uclientAt relays through an address of the server over UDP.
func (x *house) uclientAt(t *testing.T, server, to string) {
	t.Helper()
	at := x.target
	at.UDP = netip.AddrPortFrom(netip.MustParseAddr(server), 443).String()
	out, err := at.uclient(t, "udp", to, "-n", "100", "-m", "3")
	if lost := uclientLost(out); err != nil || lost != 0 {
		t.Errorf("through %s: %d lost, uclient: %v\n%s", server, lost, err, out)
	}
}
