package turn

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun"
)

// neverPeers are where nobody may get through us unless relay_to names exactly
// them; the second of each pair says why.
var neverPeers = [][2]string{
	{"127.0.0.1:22", "loopback"}, {"127.0.0.1:8065", "Mattermost"}, {"127.0.0.1:8045", "the API"}, {"127.0.0.1:9443", "admin"},
	{"127.0.0.1:9090", "metrics"}, {"127.0.0.1:443", "our own port"}, {"0.0.0.0:443", "our own port"}, {"0.0.0.0:9090", "this host"},
	{"0.0.0.0:8443", "this host"}, {"169.254.169.254:80", "metadata"}, {"100.100.100.200:80", "metadata"}, {"224.0.0.1:8443", "multicast"},
	{"255.255.255.255:8443", "broadcast"}, {"192.88.99.1:8443", "6to4 relay"},
	{"203.0.113.7:8444", "the SFU's address, other port"}, {"203.0.113.5:8443", "the relay's own address"},
	{"[::1]:8443", "loopback"}, {"[::1]:9090", "loopback"}, {"[::]:8443", "unspecified"}, {"[::ffff:127.0.0.1]:8443", "mapped"},
	{"[::ffff:203.0.113.7]:8443", "the SFU, mapped"}, {"[::127.0.0.1]:8443", "compatible"}, {"[64:ff9b::7f00:1]:8443", "NAT64"},
	{"[2002:7f00:1::]:8443", "6to4"}, {"[fe80::1]:8443", "link-local"}, {"[2001::1]:8443", "Teredo"}, {"[fec0::1]:8443", "site-local"},
	{"[ff02::1]:8443", "multicast"}, {"[fd00:ec2::254]:80", "metadata"},
	// What giveWayOut makes:
	{outside + ":443", "our own port"}, {outside + ":9090", "our own port"}, {outside + ":8443", "our own port"},
	{"198.18.0.255:8443", "our network"}, {"198.18.0.0:8443", "our network"}, {"[" + outside6 + "]:443", "our own port"},
}

// unlistedPeers are those that relay_to could name, but does not.
var unlistedPeers = [][2]string{
	{"10.0.0.1:8443", "private"}, {"172.17.0.1:8443", "Docker"}, {"192.168.1.1:80", "private"}, {"100.64.0.1:8443", "carrier NAT"},
	{"8.8.8.8:53", "anybody"}, {"[2001:db8::1]:8443", "anybody"}, {neighbour + ":8443", "next door"},
}

func TestForbiddenPeers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	giveWayOut(t)
	peers := slices.Concat(trapped(t), neverPeers, unlistedPeers)
	sent := startCapture(t)
	eachTransport(t, nil, func(r *rig, transport string) { refusesAll(r, transport, peers) })
	sent.nothingTo(t, peers)
	if n := sent.elsewhere(); n > 0 {
		t.Errorf("%d packets left the machine", n)
	}
	sent.works(t, "127.0.0.1:22", "8.8.8.8:53", "169.254.169.254:80", "[64:ff9b::7f00:1]:8443", "[2002:7f00:1::]:8443")
	if n := sent.elsewhere(); n < 4 {
		t.Errorf("of four packets %d are seen leaving", n)
	}
}

// However wide a network in relay_to, and whatever a name in it stands for,
// neither is this machine, nor what is next to it.
func TestForbiddenPeersOfNetworks(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	giveWayOut(t)
	peers := slices.Concat(trapped(t), neverPeers)
	list, names := []string{"sfu"}, []netip.Addr{netip.MustParseAddr(neighbour)}
	ports := make(map[uint16]bool)
	for _, p := range peers {
		peer := netip.MustParseAddrPort(p[0])
		names = append(names, peer.Addr())
		if ports[peer.Port()] {
			continue
		}
		ports[peer.Port()] = true
		for _, host := range []string{"0.0.0.0/0", "[::/0]", "media.example.com"} {
			list = append(list, fmt.Sprintf("%s:%d", host, peer.Port()))
		}
	}
	lookup := func(context.Context, string, string) ([]netip.Addr, error) { return names, nil }
	sent, next := startCapture(t), netip.MustParseAddrPort(neighbour+":8443")
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.RelayTo = list }, func(s *Server) { s.peers.lookup = lookup })
			before := sent.to(next)
			eventually(t, testWait, "names are known", func() bool { return r.server.peers.resolved.Load() != nil })
			refusesAll(r, transport, peers)
			tk := r.talk(transport, "bob") // who may reach the one that is not ours
			tk.allocate()
			tk.want(tk.bind(0x4000, next), 0)
			tk.send(channelFrame(0x4000, []byte("for a media server")))
			eventually(t, testWait, "a packet leaves", func() bool { return sent.to(next) > before })
		})
	}
	sent.nothingTo(t, peers)
	if n := sent.elsewhere(next); n != 0 {
		t.Errorf("%d more packets left the machine", n)
	}
}

// trapped opens sockets that must not be reached, and returns where.
func trapped(t *testing.T) (peers [][2]string) {
	t.Helper()
	for _, ip := range []string{"127.0.0.1", outside} {
		trap, err := net.ListenPacket("udp4", ip+":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = trap.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, from, err := trap.ReadFrom(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes from %v reached a forbidden socket", n, from)
			}
			_ = trap.Close()
		})
		peers = append(peers, [2]string{trap.LocalAddr().String(), "a socket of ours"})
	}
	return peers
}

// refusesAll tries every way to the peers, and that the SFU can still be reached.
func refusesAll(r *rig, transport string, peers [][2]string) {
	r.Helper()
	tk := r.talk(transport, "alice")
	tk.allocate()
	tk.want(tk.permit(testNamed, testLocal), 0) // a permission for 127.0.0.1 exists now
	tk.want(tk.bind(0x4000, testNamed), 0)
	for _, p := range peers {
		peer := netip.MustParseAddrPort(p[0])
		if got := codeOf(tk.permit(peer)); got != stun.CodeForbidden {
			r.Errorf("permission for %v (%s): %d, want 403", peer, p[1], got)
		}
		if got := codeOf(tk.permit(testNamed, peer)); got != stun.CodeForbidden {
			r.Errorf("permission for %v beside the SFU: %d, want 403", peer, got)
		}
		if got := codeOf(tk.bind(0x4001, peer)); got != stun.CodeForbidden {
			r.Errorf("channel to %v (%s): %d, want 403", peer, p[1], got)
		}
		tk.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
			xorAddress{stun.AttrXORPeerAddress, peer}, attribute(stun.AttrData, []byte("must not arrive"))).Raw)
	}
	frame := channelFrame(0x4000, []byte("may arrive"))
	tk.send(frame)
	if got := tk.receive(testWait); !bytes.HasPrefix(frame, got) || got == nil { // and everything before has been handled
		r.Errorf("got %q, want our frame", got)
	}
	if got := r.total("denied_peers_total"); got != float64(4*len(peers)) {
		r.Errorf("%v peers counted as denied, want %d", got, 4*len(peers))
	}
	if got := r.total("packets_total", "up"); got != 1 {
		r.Errorf("%v packets went up, want 1", got)
	}
}

// inNamespace runs the calling test in a network namespace that has loopback
// and no way out, and returns true inside: packets to forbidden addresses are
// not sent into somebody's network even by a broken server.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "SALLYPORT_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		return true
	}
	flags := "-n"
	if os.Getuid() != 0 {
		flags = "-rn"
	}
	if out, err := exec.Command("unshare", flags, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no network namespace can be made here: %v: %s", err, out)
	}
	script := `ip link set lo up && exec "$0" "$@"`
	cmd := exec.Command("unshare", flags, "sh", "-c", script, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}
