package turn

import (
	"net"
	"net/netip"
	"testing"
)

func TestAddedAliases(t *testing.T) {
	r := newRig(t, nil)
	h := r.hairpin
	later, never := netip.MustParseAddrPort("203.0.113.99:8443"), netip.MustParseAddrPort("203.0.113.98:8443")
	if r.server.allowed(later) || r.server.allowedIP(later.Addr()) {
		t.Fatal("allowed before it is ours")
	}
	h.Add([]Alias{{later, testLocal}, {never, netip.MustParseAddrPort("127.0.0.9:1")}, {netip.AddrPort{}, testLocal}})
	for peer, want := range map[netip.AddrPort]bool{later: true, testNamed: true, testAliased: true, never: false, {}: false} {
		if r.server.allowed(peer) != want || r.server.allowedIP(peer.Addr()) != want {
			t.Errorf("%s: allowed %v, want %v", peer, !want, want)
		}
	}
	for range 3 {
		h.Add([]Alias{{later, testLocal}})
	}
	if len(h.added) != 1 {
		t.Errorf("%d added, want 1", len(h.added))
	}
}

// A client hears from the address it named; one that has named none, from the
// latest.
func TestAddedAliasIsTheSource(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	early, late := testRelay(t, h, 0), testRelay(t, h, 0)
	if _, err := early.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(testNamed)); err != nil {
		t.Fatal(err)
	}
	added := netip.MustParseAddrPort("203.0.113.99:8443")
	h.Add([]Alias{{added, testLocal}, {testLocal, testLocal}})
	for r, want := range map[*relay]netip.AddrPort{early: testNamed, late: added} {
		if _, err := h.Conns()[0].WriteTo([]byte("y"), r.addr); err != nil {
			t.Fatal(err)
		}
		if _, from, err := r.ReadFrom(make([]byte, 10)); err != nil || addrPort(from) != want {
			t.Errorf("from %v, %v; want %s", from, err, want)
		}
	}
}

func TestAddedAliasesAreBounded(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	at := netip.MustParseAddr("198.51.100.0")
	for i := range 3 * maxAdded {
		if i > 0 && i%200 == 0 {
			at = netip.MustParseAddr("192.0.2.0")
		}
		at = at.Next()
		h.Add([]Alias{{netip.AddrPortFrom(at, uint16(i+1)), testLocal}})
	}
	if n := len(*h.aliases.Load()); n != maxAdded+1 {
		t.Errorf("%d aliases, want %d", n, maxAdded+1)
	}
	if h.alias(testNamed) == nil {
		t.Error("the first is forgotten")
	}
	if h.alias(netip.AddrPortFrom(at, 3*maxAdded)) == nil {
		t.Error("the latest is forgotten")
	}
}
