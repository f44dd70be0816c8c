package sfu

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu/internal/batch"
)

// A sharedRig is a mux that reads a shared port.
type sharedRig struct {
	*mux
	guest  *SharedConn
	client *net.UDPConn
	reg    *prometheus.Registry

	mu    sync.Mutex // guards drops
	drops []string
}

func newSharedRig(t *testing.T, o batch.Options) *sharedRig {
	t.Helper()
	socks, err := listen(Config{UDP: "127.0.0.1:0"}, "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	r := &sharedRig{guest: socks.Shared()[0]}
	r.mux, err = newMux(socks, nil, func(reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.drops = append(r.drops, reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.reg = prometheus.NewRegistry()
	met, err := newMetrics(r.reg)
	if err != nil {
		t.Fatal(err)
	}
	r.kinds = met.kinds
	var readers sync.WaitGroup
	for _, s := range r.sockets {
		readers.Go(func() { r.read(s) })
	}
	t.Cleanup(func() {
		_ = r.guest.Close()
		_ = r.mux.Close()
		readers.Wait()
	})
	if r.client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.guest.local)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.client.Close() })
	return r
}

// counted is how many datagrams of each kind there were.
func (r *sharedRig) counted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		if f.GetName() == "sallyport_demux_datagrams_total" {
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return got
}

func (r *sharedRig) send(t *testing.T, p []byte) {
	t.Helper()
	if _, err := r.client.Write(p); err != nil {
		t.Fatal(err)
	}
}

// wants reads from the session's or the TURN server's side.
func wants(t *testing.T, c net.PacketConn, want []byte) net.Addr {
	t.Helper()
	buf := make([]byte, maxDatagram)
	n, from, err := c.ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], want) {
		t.Fatalf("got %x, %v; want %x", buf[:n], err, want)
	}
	return from
}

// On the shared port each datagram finds its owner, for one client that uses
// both, and answers leave from there.
func TestSharedPort(t *testing.T) {
	for name, o := range socketWays {
		t.Run(name, func(t *testing.T) { testSharedPort(t, newSharedRig(t, o)) })
	}
}

func testSharedPort(t *testing.T, r *sharedRig) {
	at := r.bound.mapped(r.guest.local)
	session, err := r.GetConn("local", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	dtls, rtp := bytes.Repeat([]byte{22}, 40), bytes.Repeat([]byte{0x80}, 40)
	r.send(t, dtls) // no route yet: dropped

	plain := stunMessage(t, stun.MethodBinding, stun.ClassRequest)
	stranger := bindingRequest(t, "somebody:remote")
	success := stunMessage(t, stun.MethodBinding, stun.ClassSuccessResponse)
	allocate := stunMessage(t, stun.MethodAllocate, stun.ClassRequest)
	channel := []byte{0x40, 0, 0, 1, 9}
	for _, p := range [][]byte{plain, stranger, success, allocate, channel} {
		r.send(t, p)
		wants(t, r.guest, p)
	}
	check := bindingRequest(t, "local:remote")
	r.send(t, check)
	from := wants(t, session, check)
	if _, err := session.WriteTo(success, from); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{success, dtls, rtp} {
		r.send(t, p)
		wants(t, session, p)
	}
	for _, p := range [][]byte{plain, stranger, allocate, channel} { // still TURN's
		r.send(t, p)
		wants(t, r.guest, p)
	}
	if _, err := r.guest.WriteTo(channel, from); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]byte{success, channel} { // a connected socket takes nothing from elsewhere
		buf := make([]byte, maxDatagram)
		_ = r.client.SetReadDeadline(time.Now().Add(patience))
		if n, err := r.client.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("the client got %x, %v; want %x", buf[:n], err, want)
		}
	}
	r.send(t, bytes.Repeat([]byte{0xC0}, 40))
	r.send(t, bytes.Repeat([]byte{5}, 40))
	r.send(t, allocate)
	wants(t, r.guest, allocate) // so the two before it have been read
	want := map[string]float64{"check": 5, "answer": 2, "turn": 5, "media": 3, "quic": 1, "unknown": 1}
	until(t, "all are counted", func() bool { return cmp.Equal(want, r.counted(t)) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff([]string{"unknown_source", "quic", "malformed"}, r.drops); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// Who calls Receive is given datagrams until the end.
func TestSharedConnReceive(t *testing.T) {
	r := newSharedRig(t, batch.Options{})
	got, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		r.guest.Receive(func(p []byte, from netip.AddrPort) { got <- string(p) + from.String() })
	}()
	for r.guest.take.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	p := stunMessage(t, stun.MethodAllocate, stun.ClassRequest)
	r.send(t, p)
	if g, want := <-got, string(p)+r.client.LocalAddr().String(); g != want {
		t.Errorf("got %q, want %q", g, want)
	}
	_ = r.guest.Close()
	<-ended
	if _, _, err := r.guest.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a closed one: %v", err)
	}
	if r.guest.give(p, netip.AddrPort{}) {
		t.Error("a closed one takes datagrams")
	}
	reader := r.newReader()
	n := testing.AllocsPerRun(100, func() { r.mine(reader, r.sockets[1], p, netip.AddrPort{}) })
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is collected leaves at flush, in order, and the longest, too.
func TestSharedConnCollect(t *testing.T) {
	r := newSharedRig(t, batch.Options{})
	to := r.client.LocalAddr().(*net.UDPAddr).AddrPort()
	send, flush := r.guest.Collect()
	for _, n := range []int{100, 100, 50, batch.MaxDatagram + 104, 1} {
		send(make([]byte, n), to)
	}
	flush()
	buf := make([]byte, 2*batch.MaxDatagram)
	_ = r.client.SetReadDeadline(time.Now().Add(patience))
	for _, want := range []int{100, 100, 50, batch.MaxDatagram + 104, 1} {
		if n, err := r.client.Read(buf); err != nil || n != want {
			t.Errorf("%d bytes, %v; want %d", n, err, want)
		}
	}
	p := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() { send(p, to); flush() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Without a host the shared port is open everywhere, and clients are told of the
// useful addresses only.
func TestSharedPortOnAllAddresses(t *testing.T) {
	if !batch.CanShare {
		t.Skip("SKIPPED, NOT TESTED: this system has one socket for all addresses only")
	}
	socks, err := ListenShared(Config{UDP: ":0"}, ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	port := socks.Shared()[0].local.Port()
	var ice, own []netip.Addr
	for _, a := range socks.Addresses() {
		if a.Local.Port() == port {
			ice = append(ice, a.Local.Addr())
		} else {
			own = append(own, a.Local.Addr())
		}
	}
	if diff := cmp.Diff(own, ice, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses on the shared port (-sfu.udp +shared):\n%s", diff)
	}
	for _, c := range socks.Shared() {
		if c.ice == (c.local.Addr().IsUnspecified() || !slices.Contains(own, c.local.Addr())) {
			t.Errorf("%s: told to clients: %v", c.local, c.ice)
		}
	}
	if _, err := ListenShared(Config{UDP: ":0"}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()); err == nil {
		t.Error("a second one takes the port away")
	} else if _, ok := errors.AsType[*SharedError](err); !ok {
		t.Errorf("error %v is no SharedError", err)
	}
	for _, to := range []string{"127.0.0.1", "127.0.0.2", "::1"} { // 127.0.0.2 through the socket for all addresses
		sharedHears(t, netip.MustParseAddr(to))
	}
}

// sharedHears opens a shared port and sends to it at an address of this machine.
func sharedHears(t *testing.T, ip netip.Addr) {
	t.Helper()
	socks, err := ListenShared(Config{UDP: ":0"}, ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	to := netip.AddrPortFrom(ip, socks.Shared()[0].local.Port())
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		if to.Addr().Is6() {
			t.Logf("SKIPPED, NOT TESTED: no IPv6 here: %v", err)
			return
		}
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var all []*batch.Socket
	for _, c := range socks.shared {
		all = append(all, c.udp...)
	}
	heard := make(chan struct{}, 1)
	var readers sync.WaitGroup
	for _, s := range all {
		readers.Go(func() {
			if _, err := s.Read(batch.NewBatch()); err == nil {
				heard <- struct{}{}
			}
		})
	}
	select {
	case <-heard:
	case <-time.After(patience):
		t.Errorf("nothing arrives for %s", to)
	}
	_ = socks.Close()
	readers.Wait()
}
