package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// testRelay returns a relay of h for a client over TCP.
func testRelay(t testing.TB, h *Hairpin, bitrate int64) *relay {
	t.Helper()
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPeers([]string{"sfu"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRelay(relayConfig{hairpin: h, peers: p, metrics: m, use: new(watched), flow: m.flows[overTCP], bitrate: bitrate, group: new(sync.WaitGroup), closed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.abandon)
	return r
}

func TestHairpinConns(t *testing.T) {
	second := netip.MustParseAddrPort("127.0.0.2:8443")
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}, {testLocal, testLocal}, {second, second}, {testAliased, testLocal}})
	conns := h.Conns()
	if len(conns) != 2 || addrPort(conns[0].LocalAddr()) != testLocal || addrPort(conns[1].LocalAddr()) != second {
		t.Fatalf("conns %v", conns)
	}
	r := testRelay(t, h, 0)
	buf := make([]byte, 100)

	// There, with the relayed address as source; and back, from the address used.
	for _, named := range []netip.AddrPort{testNamed, testAliased, testLocal, second, testNamed} {
		if _, err := r.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(named)); err != nil {
			t.Fatal(err)
		}
		conn := conns[0]
		if named == second {
			conn = conns[1]
		}
		n, from, err := conn.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "hello" || addrPort(from) != addrPort(r.addr) {
			t.Fatalf("SFU read %q from %v, %v", buf[:n], from, err)
		}
		if _, err := conn.WriteTo([]byte("back"), from); err != nil {
			t.Fatal(err)
		}
		n, from, err = r.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "back" || addrPort(from) != named {
			t.Fatalf("relay read %q from %v, %v; want it from %v", buf[:n], from, err, named)
		}
	}
	if h.landings[0].in.len() != 0 || h.landings[1].in.len() != 0 {
		t.Error("packets are left over")
	}
}

func TestHairpinKnowsItsRelays(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	conn := h.Conns()[0].(*landing)
	r := testRelay(t, h, 0)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(testRelayIP.As16()), uint16(r.addr.Port))
	for _, to := range []net.Addr{r.addr, net.UDPAddrFromAddrPort(mapped)} {
		if _, err := conn.WriteTo([]byte("x"), to); err != nil {
			t.Errorf("to %v: %v", to, err)
		}
	}
	for _, to := range []net.Addr{
		&net.UDPAddr{IP: r.addr.IP, Port: r.addr.Port + 1}, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: r.addr.Port},
		&net.IPAddr{IP: r.addr.IP}, nil,
	} {
		if _, err := conn.WriteTo([]byte("x"), to); !errors.Is(err, ErrNoAllocation) {
			t.Errorf("to %v: %v, want ErrNoAllocation", to, err)
		}
	}
	_ = r.Close()
	if _, err := conn.WriteTo([]byte("x"), r.addr); !errors.Is(err, ErrNoAllocation) {
		t.Errorf("after Close: %v, want ErrNoAllocation", err)
	}
}

func TestHairpinClose(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	ended := make(chan error)
	go func() {
		_, _, err := h.Conns()[0].ReadFrom(make([]byte, 10))
		ended <- err
	}()
	_ = h.Close()
	_ = h.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom: %v, want net.ErrClosed", err)
	}
}

func TestLabelsAreUniqueAndRest(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{netip.MustParseAddrPort("203.0.113.7:49160"), netip.MustParseAddrPort("127.0.0.1:49161")}})
	used := make(map[int]bool)
	first := testRelay(t, h, 0)
	_ = first.Close()
	for range 100 {
		r := testRelay(t, h, 0)
		p := r.addr.Port
		if used[p] || p < firstLabel || p == 49160 || p == 49161 || p == first.addr.Port {
			t.Fatalf("label %d", p)
		}
		used[p] = true
	}
	h.last = 65535 - 1
	if last, wrapped := testRelay(t, h, 0), testRelay(t, h, 0); last.addr.Port != 65535 || wrapped.addr.Port != firstLabel {
		t.Errorf("labels %d, %d around the end", last.addr.Port, wrapped.addr.Port)
	}
}

func TestQueuesDropTheOldest(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	r := testRelay(t, h, 0)
	conn := h.Conns()[0]
	for i := range relayQueue + 10 {
		if _, err := conn.WriteTo([]byte{byte(i)}, r.addr); err != nil {
			t.Fatal(err)
		}
	}
	for i := range landingQueue + 10 {
		if _, err := r.WriteTo([]byte{byte(i), byte(i >> 8)}, net.UDPAddrFromAddrPort(testNamed)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 10)
	if _, _, err := r.ReadFrom(buf); err != nil || buf[0] != 10 {
		t.Errorf("first packet down is %d, %v; want 10", buf[0], err)
	}
	if _, _, err := conn.ReadFrom(buf); err != nil || buf[0] != 10 || buf[1] != 0 {
		t.Errorf("first packet up is %d, %v; want 10", buf[0], err)
	}
}

func TestRelayDropsWhatIsTooLong(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	r := testRelay(t, h, 0)
	if _, err := r.WriteTo(make([]byte, maxDatagram+1), net.UDPAddrFromAddrPort(testNamed)); err != nil {
		t.Error(err)
	}
	if _, err := h.Conns()[0].WriteTo(make([]byte, 65000), r.addr); err != nil {
		t.Error(err)
	}
	if r.in.len() != 0 || h.landings[0].in.len() != 0 {
		t.Error("it was queued")
	}
}

// The guard refuses such peers before; the relay does so too.
func TestRelayIsClosed(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	trap, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	r := testRelay(t, h, 0)
	for _, to := range []net.Addr{trap.LocalAddr(), &net.UDPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, nil} {
		if _, err := r.WriteTo([]byte("x"), to); err != nil {
			t.Errorf("to %v: %v", to, err)
		}
	}
	if r.kernel != nil || h.landings[0].in.len() != 0 {
		t.Error("something was sent")
	}
	r.peers.sfu = false
	if _, err := r.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(testNamed)); err != nil || h.landings[0].in.len() != 0 {
		t.Errorf("sent to the SFU, which relay_to does not list: %v", err)
	}
}

func TestHairpinDoesNotAllocate(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	r := testRelay(t, h, 1<<40)
	conn := h.Conns()[0]
	data, buf := make([]byte, 1200), make([]byte, 1600)
	peer := net.UDPAddrFromAddrPort(testNamed)
	outside := netip.MustParseAddrPort("192.0.2.1:9")
	if n := testing.AllocsPerRun(1000, func() {
		_, _ = r.WriteTo(data, peer)
		_, from, _ := conn.ReadFrom(buf)
		_, _ = conn.WriteTo(data, from)
		_, _, _ = r.ReadFrom(buf)
		p := packetOf(data) // as from a kernel socket
		p.from = outside
		r.deliver(p)
		_, _, _ = r.ReadFrom(buf)
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations per packet there and back", n)
	}
}

func BenchmarkHairpin(b *testing.B) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	r := testRelay(b, h, 0)
	conn := h.Conns()[0]
	data, buf := make([]byte, 1200), make([]byte, 1600)
	peer := net.UDPAddrFromAddrPort(testNamed)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = r.WriteTo(data, peer)
		_, from, _ := conn.ReadFrom(buf)
		_, _ = conn.WriteTo(data, from)
		_, _, _ = r.ReadFrom(buf)
	}
}
