package gateway_test

import (
	"encoding/binary"
	"net"
	"net/netip"
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

// TestNatlab: behind each of these firewalls somebody talks with somebody who is
// outside, over the path that is left.
func TestNatlab(t *testing.T) {
	inNetwork(t, func(n *network) {
		// Media sockets that are bound to no address would go round the firewall
		// by the one that is the plugin's.
		wall := (func([]byte, bool) bool)(only([2]uint16{protocolTCP, netip.MustParseAddrPort(n.API).Port()}))
		n.cable.ends[nth(0)].wall.Store(&wall)
		bad := condition{loss: .02, delay: 150 * time.Millisecond, rate: 1_000_000, queue: 500 * time.Millisecond}
		for _, s := range []struct {
			name  string
			wall  firewall
			path  peer.Path // forced; Auto lets ICE choose between all but TLS
			want  peer.Path
			ports []uint16 // of the server
			link  condition
		}{
			{"open", nil, peer.Auto, peer.UDP, []uint16{443, 8443}, condition{}},
			{"symmetric NAT", symmetricNAT(), peer.Auto, peer.UDP, []uint16{443, 8443}, condition{}},
			{"UDP 443 and TCP 443", only([2]uint16{protocolUDP, 443}, [2]uint16{protocolTCP, 443}), peer.Auto, peer.UDP, []uint16{443}, condition{}},
			{"no UDP", only([2]uint16{protocolTCP, 0}), peer.Auto, peer.TCP, []uint16{443, 8443}, condition{}},
			{"TCP 443 only", only([2]uint16{protocolTCP, 443}), peer.Auto, peer.TCP, []uint16{443}, condition{}},
			{"TLS on TCP 443 only", inspecting(), peer.TURNTLS, peer.TURNTLS, nil, condition{}},
			{"TLS on a bad line", inspecting(), peer.TURNTLS, peer.TURNTLS, nil, bad},
			{"UDP past a black hole for long packets", shorterThan(1280), peer.Auto, peer.UDP, []uint16{443, 8443}, condition{}},
			{"TLS past a black hole for long packets", shorterThan(1280), peer.TURNTLS, peer.TURNTLS, nil, condition{}},
		} {
			n.t.Run(s.name, func(t *testing.T) {
				inner := *n
				inner.t, inner.call = t, peer.NewID()
				n.cable.ends[nth(1)].both(s.link)
				inner.behind(s.wall, s.path, s.want, s.ports)
			})
		}
	})
}

// behind brings somebody behind a firewall into a call with somebody outside.
func (n *network) behind(wall firewall, path, want peer.Path, ports []uint16) {
	t := n.t
	t.Helper()
	link := n.cable.ends[nth(1)]
	link.wall.Store(nil)
	if wall != nil {
		f := (func([]byte, bool) bool)(wall)
		link.wall.Store(&f)
	}
	began := time.Now()
	inside := n.joinAt(nth(1), path)
	took := time.Since(began)
	outside := n.joinAt(nth(2), peer.UDP)
	must(t, inside.Unmute(within(t)))
	must(t, outside.Unmute(within(t)))
	n.hears(inside, outside, 50)
	n.hears(outside, inside, 50)
	pair, err := inside.Selected()
	must(t, err)
	ok := pair.Path == want
	for i, port := range ports {
		if pair.Remote.Port() == port {
			break
		}
		ok = ok && i < len(ports)-1
	}
	if !ok {
		t.Errorf("media takes %v, want %v on one of the ports %d", pair, want, ports)
	}
	t.Logf("%v after %v", pair, took.Round(time.Millisecond))
	must(t, inside.Close())
	must(t, outside.Close())
}

func (n *network) joinAt(at netip.Addr, path peer.Path) *peer.Peer {
	n.t.Helper()
	cfg := n.participant(path)
	cfg.LocalIP = at
	cfg.DialTURN = func(_, _ string) (net.Conn, error) { return dialTLS(n.t.Context(), at.String(), n.HTTPS) }
	if path == peer.Auto { // TLS would need a certificate the system knows
		cfg.ICEServers[0].URLs = cfg.ICEServers[0].URLs[:1]
	}
	p, err := peer.Join(within(n.t), n.plugin, cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.Close() })
	return p
}
