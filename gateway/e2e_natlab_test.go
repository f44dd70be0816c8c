package gateway_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// A firewall decides about the packets between one client and the server, and
// may change them.
type firewall func(packet []byte, up bool) bool

const (
	protocolTCP = 6
	protocolUDP = 17
)

// An ipv4 packet with the ports of TCP or UDP.
type ipv4 []byte

func (p ipv4) protocol() byte     { return p[9] }
func (p ipv4) transport() []byte  { return p[int(p[0]&15)*4:] }
func (p ipv4) known() bool        { return len(p) >= 28 && len(p) >= int(p[0]&15)*4+8 }
func (p ipv4) port(at int) uint16 { return binary.BigEndian.Uint16(p.transport()[at:]) }

// server and client are the ports of the two sides.
func (p ipv4) server(up bool) uint16 {
	if up {
		return p.port(2)
	}
	return p.port(0)
}

func (p ipv4) client(up bool) uint16 { return p.server(!up) }

// payload is that of a TCP segment.
func (p ipv4) payload() []byte {
	t := p.transport()
	if len(t) < 20 || len(t) < int(t[12]>>4)*4 {
		return nil
	}
	return t[int(t[12]>>4)*4:]
}

// only lets the given protocol and server port pass; port 0 is any.
func only(rules ...[2]uint16) firewall {
	return func(packet []byte, up bool) bool {
		p := ipv4(packet)
		for _, r := range rules {
			if p.known() && uint16(p.protocol()) == r[0] && (r[1] == 0 || p.server(up) == r[1]) {
				return true
			}
		}
		return false
	}
}

// symmetricNAT gives each pair of client port and server port a port of its own
// on UDP, and lets in only what answers.
func symmetricNAT() firewall {
	var mu sync.Mutex
	outside, inside := map[[2]uint16]uint16{}, map[uint16][2]uint16{}
	next := uint16(20000)
	return func(packet []byte, up bool) bool {
		p := ipv4(packet)
		if !p.known() || p.protocol() != protocolUDP {
			return true
		}
		mu.Lock()
		defer mu.Unlock()
		t := p.transport()
		binary.BigEndian.PutUint16(t[6:], 0) // no checksum, which IPv4 allows
		if !up {
			way, ok := inside[p.client(up)]
			if !ok || way[1] != p.server(up) {
				return false
			}
			binary.BigEndian.PutUint16(t[2:], way[0])
			return true
		}
		way := [2]uint16{p.client(up), p.server(up)}
		if outside[way] == 0 {
			next++
			outside[way], inside[next] = next, way
		}
		binary.BigEndian.PutUint16(t, outside[way])
		return true
	}
}

// inspecting lets nothing but TCP 443 pass, and of that only what begins like TLS.
func inspecting() firewall {
	var mu sync.Mutex
	verdicts := map[uint16]bool{} // by client port
	https := only([2]uint16{protocolTCP, 443})
	return func(packet []byte, up bool) bool {
		p := ipv4(packet)
		if !https(packet, up) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		verdict, judged := verdicts[p.client(up)]
		if first := p.payload(); !judged && up && len(first) > 1 {
			verdict, judged = first[0] == 0x16 && first[1] == 3, true
			verdicts[p.client(up)] = verdict
		}
		return !judged || verdict
	}
}

// shorterThan drops what is longer, and tells nobody.
func shorterThan(most int) firewall {
	return func(packet []byte, _ bool) bool { return len(packet) <= most }
}

// A door is what is left of the way to the server. Where the kernel has nftables,
// and the door rules for it, it is a router; otherwise it is a firewall of ours, on
// a link of ours.
type door struct {
	name  string
	rules string
	wall  firewall
	path  peer.Path // forced; Auto lets ICE choose between all but TLS
	want  peer.Path
	ports []uint16 // of the server
}

const established = "ct state established accept\n"

// onlyTLS lets connections to 443 pass whose first bytes are those of TLS: the
// first segment with payload decides, and has the push flag if it is short.
const onlyTLS = `ct mark 1 accept
tcp dport 443 @ih,0,16 0x1603 ct mark set 1 accept
tcp dport 443 tcp flags & psh == 0 accept
tcp sport 443 accept`

var doors = []door{
	{name: "open", rules: accept, path: peer.Auto, want: peer.UDP, ports: []uint16{443, 8443}},
	{name: "symmetric NAT", rules: masquerade, wall: symmetricNAT(), path: peer.Auto, want: peer.UDP, ports: []uint16{443, 8443}},
	{name: "UDP 443 and TCP 443", rules: established + "udp dport 443 accept\ntcp dport 443 accept", wall: only([2]uint16{protocolUDP, 443}, [2]uint16{protocolTCP, 443}),
		path: peer.Auto, want: peer.UDP, ports: []uint16{443}},
	{name: "no UDP", rules: "meta l4proto tcp accept", wall: only([2]uint16{protocolTCP, 0}), path: peer.Auto, want: peer.TCP, ports: []uint16{443, 8443}},
	{name: "TCP 443 only", rules: established + "tcp dport 443 accept", wall: only([2]uint16{protocolTCP, 443}), path: peer.Auto, want: peer.TCP, ports: []uint16{443}},
	{name: "TLS on TCP 443 only", rules: onlyTLS, wall: inspecting(), path: peer.Auto, want: peer.TURNTLS},
	{name: "UDP past a black hole for long packets", wall: shorterThan(1280), path: peer.Auto, want: peer.UDP, ports: []uint16{443, 8443}},
	{name: "TLS past a black hole for long packets", wall: shorterThan(1280), path: peer.TURNTLS, want: peer.TURNTLS},
}

// TestNatlab: behind each of these doors somebody talks with somebody who is
// outside, over the path that is left. All go at once, since most of them wait
// most of the time: NAT that forgets those who are silent takes a minute.
func TestNatlab(t *testing.T) {
	besideOthers(t)
	inNetwork(t, func(n *network) {
		// Media sockets that are bound to no address would go round the firewall
		// by the one that is the plugin's.
		wall := (func([]byte, bool) bool)(only([2]uint16{protocolTCP, portOf(n.API)}, [2]uint16{protocolTCP, portOf(n.Admin)}))
		n.cable.ends[nth(0)].wall.Store(&wall)
		lacking := filters(t)
		if lacking != nil {
			t.Logf("NO NETFILTER, the firewalls are those of this test, and NAT of whole addresses is NOT TESTED: %v", lacking)
		}
		n.t.Run("behind", func(t *testing.T) {
			if lacking == nil {
				n.proxies(t)
				n.scenes(t)
			}
			n.scene(t, "TLS on a bad line", func(n *network) {
				n.badLine(nth(2), peer.TURNTLS, `sallyport_turn_drops_total{reason="stream_late"}`)
			})
			n.scene(t, "TCP on a bad line", func(n *network) {
				n.badLine(nth(3), peer.TCP, `sallyport_sfu_dropped_total{reason="tcp_slow"}`)
			})
			used := 4 // by the plugin, by those who are outside, and by those two
			for _, d := range doors {
				at := nth(used)
				if lacking != nil || d.rules == "" {
					used++
				}
				n.scene(t, d.name, func(n *network) {
					if lacking == nil && d.rules != "" {
						at = newRouter(n.t, nil, n.there, d.rules).client
					} else {
						n.close(at, d)
					}
					n.behind(at, d)
				})
			}
		})
	})
}

func portOf(addr string) uint16 { return netip.MustParseAddrPort(addr).Port() }

// besideOthers lets a test that waits most of the time run beside others like it;
// in its namespace it is alone anyway.
func besideOthers(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		t.Parallel()
	}
}

// scene is a parallel subtest with a call of its own.
func (n *network) scene(t *testing.T, name string, play func(*network)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		inner := *n
		inner.t, inner.call = t, peer.NewID()
		play(&inner)
	})
}

// close builds a door of ours on the link of an address.
func (n *network) close(at netip.Addr, d door) {
	if d.wall != nil {
		f := (func([]byte, bool) bool)(d.wall)
		n.cable.ends[at].wall.Store(&f)
	}
}

// behind brings somebody behind a door into a call with somebody outside.
func (n *network) behind(at netip.Addr, d door) {
	n.t.Helper()
	began := time.Now()
	inside := n.joinAt(at, d.path, d.want)
	took := time.Since(began)
	outside := n.joinAt(nth(1), peer.UDP, peer.UDP)
	n.converse(inside, outside)
	n.t.Logf("%v after %v", n.goes(inside, d.want, d.ports...), took.Round(time.Millisecond))
	must(n.t, inside.Close())
	must(n.t, outside.Close())
}

// converse makes both speak, and hear each other.
func (n *network) converse(a, b *peer.Peer) {
	n.t.Helper()
	must(n.t, a.Unmute(within(n.t)))
	must(n.t, b.Unmute(within(n.t)))
	n.hears(a, b, 50)
	n.hears(b, a, 50)
}

// goes verifies the path of somebody's media, and the port of the server, if
// any are named.
func (n *network) goes(p *peer.Peer, want peer.Path, ports ...uint16) peer.Selected {
	n.t.Helper()
	pair, err := p.Selected()
	must(n.t, err)
	if pair.Path != want || len(ports) > 0 && !slices.Contains(ports, pair.Remote.Port()) {
		n.t.Errorf("media takes %v, want %v on one of the ports %d", pair, want, ports)
	}
	return pair
}

// joinAt joins from an address. On Auto, TLS is among the ways only if it is the
// one wanted.
func (n *network) joinAt(at netip.Addr, path, want peer.Path) *peer.Peer {
	n.t.Helper()
	return n.admit(n.from(at, path, want))
}

func (n *network) from(at netip.Addr, path, want peer.Path) peer.Config {
	cfg := n.participant(path)
	cfg.LocalIP = at
	cfg.DialTURN = func(_, _ string) (net.Conn, error) { return dialTLS(n.t.Context(), at.String(), n.HTTPS) }
	if path == peer.Auto {
		urls := cfg.ICEServers[0].URLs
		cfg.ICEServers[0].URLs = urls[:1]
		if want == peer.TURNTLS {
			cfg.ICEServers[0].URLs = []string{urls[0], urls[2]}
		}
	}
	return cfg
}

// admit joins.
func (n *network) admit(cfg peer.Config) *peer.Peer {
	n.t.Helper()
	p, err := peer.Join(within(n.t), n.plugin, cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.Close() })
	return p
}
