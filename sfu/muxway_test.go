package sfu

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"

	"sallyport/sfu/internal/batch"
)

// socketWays are the ways of package batch.
var socketWays = map[string]batch.Options{"fast": {}, "portable": {Portable: true}}

// An echoTap takes RTP of payload type 111 and sends it back at the end of the
// batch, with a changed first byte of the payload.
type echoTap struct {
	mu    sync.Mutex // guards the following
	to    *way
	run   [][]byte
	hands []string // handshake records seen
	ends  int
}

func (e *echoTap) media(r *reader, p []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p[1] != 111 || e.to == nil {
		return false
	}
	if len(e.run) == 0 {
		r.atEnd(e)
	}
	p[12] = 'E'
	e.run = append(e.run, p)
	return true
}

func (e *echoTap) endBatch(r *reader) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ends++
	for _, p := range e.run {
		r.out.commit(e.to, copy(r.out.reserve(e.to, len(p)), p))
	}
	clear(e.run)
	e.run = e.run[:0]
}

func (e *echoTap) handshake(p []byte, outgoing bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hands = append(e.hands, fmt.Sprint(len(p), outgoing))
}

func (e *echoTap) set(w *way) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.to = w
}

// rtpPacket is one of a payload type with a payload.
func rtpPacket(kind byte, payload string) []byte {
	return append([]byte{0x80, kind, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, payload...)
}

// A tapRig is a server's media sockets with one tapped session.
type tapRig struct {
	t    *testing.T
	mux  *mux
	tcp  *tcpMux
	tap  *echoTap
	hair *memoryConn
}

func newTapRig(t *testing.T, o batch.Options) *tapRig {
	t.Helper()
	socks, err := listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"}, "", o)
	if err != nil {
		t.Fatal(err)
	}
	hair := &memoryConn{local: net.UDPAddrFromAddrPort(socks.udp[0].local()), in: make(chan []byte, 64), out: make(chan []byte, 64), done: make(chan struct{})}
	srv, err := New(socks, Options{Hairpins: []net.PacketConn{hair}})
	if err != nil {
		t.Fatal(err)
	}
	r := &tapRig{t: t, mux: srv.mux, tcp: srv.tcp, tap: &echoTap{}, hair: hair}
	var readers sync.WaitGroup
	for _, s := range r.mux.sockets {
		readers.Go(func() { r.mux.read(s) })
	}
	for _, l := range r.tcp.listeners {
		readers.Go(func() { r.tcp.accept(l) })
	}
	t.Cleanup(func() {
		_ = r.tcp.Close()
		_ = r.mux.Close()
		readers.Wait()
		if len(r.mux.taps.slots) != 0 {
			t.Errorf("taps are left: %v", r.mux.taps.slots)
		}
	})
	return r
}

// exchange lets a client open a path and sends n packets that come back through
// the tap, and one that the agent gets. write and read are the client's side.
func (r *tapRig) exchange(conn net.PacketConn, tcp bool, write func([]byte), read func() []byte) {
	r.t.Helper()
	r.mux.tap("local", r.tap)
	defer r.mux.tap("local", nil)
	check := bindingRequest(r.t, "local:remote")
	write(check)
	from := wants(r.t, conn, check)
	hello := append([]byte{contentHandshake}, make([]byte, 20)...)
	if _, err := conn.WriteTo(hello, from); err != nil {
		r.t.Fatal(err)
	}
	if got := read(); !bytes.Equal(got, hello) {
		r.t.Fatalf("the client got %x", got)
	}
	early := rtpPacket(111, "early") // the tap does not want it yet
	write(early)
	wants(r.t, conn, early)
	w := r.mux.way("local", localAddrPort(conn.LocalAddr()), localAddrPort(from), tcp)
	if w == nil || w.closed() || w.String() == "" {
		r.t.Fatalf("way %v", w)
	}
	if again := r.mux.way("local", netip.AddrPort{}, localAddrPort(from), tcp); again == nil || again.String() != w.String() {
		r.t.Errorf("by another local address: way %v, want %v", again, w)
	}
	if none := r.mux.way("local", localAddrPort(conn.LocalAddr()), netip.MustParseAddrPort("192.0.2.9:9"), tcp); none != nil {
		r.t.Errorf("way %v to where nothing has come from", none)
	}
	r.tap.set(w)
	const n = 50
	for i := range n {
		write(rtpPacket(111, fmt.Sprintf("?%02d", i)))
		if i%10 == 9 {
			write(hello)
			wants(r.t, conn, hello)
		}
	}
	for i := range n {
		if got, want := read(), rtpPacket(111, fmt.Sprintf("E%02d", i)); !bytes.Equal(got, want) {
			r.t.Fatalf("packet %d comes back as %q, want %q", i, got, want)
		}
	}
	report := rtpPacket(200, "report")
	write(report)
	wants(r.t, conn, report)
	r.checkTap(n)
	_ = conn.Close()
	if !w.closed() {
		r.t.Error("the way of a closed connection is open")
	}
	box := r.mux.newOutbox()
	box.commit(w, copy(box.reserve(w, 10), "late"))
	box.commit(nil, copy(box.reserve(nil, 10), "late"))
	box.flush()
}

func (r *tapRig) checkTap(n int) {
	r.tap.mu.Lock()
	defer r.tap.mu.Unlock()
	if r.tap.ends == 0 || r.tap.ends > n {
		r.t.Errorf("%d ends of batches for %d packets", r.tap.ends, n)
	}
	want := append([]string{"21 true"}, slices.Repeat([]string{"21 false"}, n/10)...)
	if !slices.Equal(r.tap.hands, want) {
		r.t.Errorf("handshakes seen: %v", r.tap.hands)
	}
}

// What a tap takes goes back by the way it came, over every kind of way.
func TestTapAndWay(t *testing.T) {
	for name, o := range socketWays {
		t.Run(name+"/udp", func(t *testing.T) {
			r := newTapRig(t, o)
			conn, err := r.mux.GetConn("local", r.mux.GetListenAddresses()[0])
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("udp", conn.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r.exchange(conn, false, func(p []byte) { _, _ = c.Write(p) }, func() []byte { return readOne(t, c) })
		})
	}
	t.Run("relay", func(t *testing.T) {
		r := newTapRig(t, batch.Options{})
		conn, err := r.mux.GetConn("local", r.mux.GetListenAddresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		r.exchange(conn, false, func(p []byte) { r.hair.in <- bytes.Clone(p) }, func() []byte { return <-r.hair.out })
	})
	t.Run("tcp", func(t *testing.T) {
		r := newTapRig(t, batch.Options{})
		all, err := r.tcp.GetAllConns("local", false, net.IPv4(127, 0, 0, 1))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", all[0].LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, maxDatagram)
		r.exchange(all[0], true, func(p []byte) { _, _ = c.Write(framed(p)) }, func() []byte {
			n, err := readFrame(c, buf)
			if err != nil {
				t.Fatal(err)
			}
			return buf[:n]
		})
	})
}

func readOne(t *testing.T, c net.Conn) []byte {
	t.Helper()
	buf := make([]byte, maxDatagram)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// A way follows its participant to another socket behind the same address.
func TestWayFollows(t *testing.T) {
	r := newTapRig(t, batch.Options{})
	conn, err := r.mux.GetConn("local", r.mux.GetListenAddresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("192.0.2.1:50000") // of the hairpin's client
	c := conn.(*muxConn)
	c.path(r.mux.sockets[0], at)
	w := r.mux.way("local", c.addr, at, false)
	if w.socket.Load() != r.mux.sockets[0] {
		t.Fatal("not the kernel's socket")
	}
	c.path(r.mux.sockets[1], at)
	box := r.mux.newOutbox()
	box.commit(w, copy(box.reserve(w, 10), "followed"))
	box.flush()
	if got := string(<-r.hair.out); got != "followed" {
		t.Errorf("the hairpin got %q", got)
	}
}

// Between reading a batch and sending what is made of it nothing is allocated.
func TestTappedPacketAllocatesNothing(t *testing.T) {
	for name, o := range socketWays {
		t.Run(name, func(t *testing.T) {
			socks, err := listen(Config{UDP: "127.0.0.1:0"}, "", o)
			if err != nil {
				t.Fatal(err)
			}
			m, err := newMux(socks, nil, func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			conn, err := m.GetConn("local", m.GetListenAddresses()[0])
			if err != nil {
				t.Fatal(err)
			}
			sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			at := localAddrPort(sink.LocalAddr())
			if _, err := conn.WriteTo(stunMessage(t, stun.MethodBinding, stun.ClassSuccessResponse), sink.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			tap := &echoTap{to: m.way("local", localAddrPort(conn.LocalAddr()), at, false)}
			m.tap("local", tap)
			r, p := m.newReader(), rtpPacket(111, "?payload")
			n := testing.AllocsPerRun(200, func() {
				for range 4 {
					m.deliver(r, m.sockets[0], p, at)
				}
				r.finish()
			})
			if n != 0 || tap.ends != 201 {
				t.Errorf("%v allocations in %d batches", n, tap.ends)
			}
		})
	}
}

func TestRouteTable(t *testing.T) {
	var table routeTable
	var all []netip.AddrPort
	for i := range 2000 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i)))
	}
	routes := map[netip.AddrPort]*muxRoute{}
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() { // while it changes
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					table.get(all[i%len(all)])
				}
			}
		})
	}
	for _, a := range all {
		routes[a] = &muxRoute{}
		table.mu.Lock()
		table.put(a, routes[a])
		table.mu.Unlock()
	}
	for _, a := range all {
		if table.get(a) != routes[a] {
			t.Fatalf("%s has another route", a)
		}
	}
	for _, a := range all[:1500] {
		table.mu.Lock()
		table.put(a, nil)
		table.mu.Unlock()
	}
	close(done)
	readers.Wait()
	if table.count() != 500 || table.get(all[0]) != nil || table.get(all[1600]) == nil {
		t.Errorf("%d routes are left", table.count())
	}
}

// Where a TCP connection or a relay has ended nothing leads.
func TestLeads(t *testing.T) {
	r := newTapRig(t, batch.Options{})
	all, err := r.tcp.GetAllConns("local", false, net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", all[0].LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	check := bindingRequest(t, "local:remote")
	if _, err := c.Write(framed(check)); err != nil {
		t.Fatal(err)
	}
	from := localAddrPort(wants(t, all[0], check))
	if !r.mux.leads(from, true) {
		t.Error("an open connection does not lead")
	}
	if !r.mux.leads(from, false) {
		t.Error("UDP does not lead")
	}
	_ = c.Close()
	until(t, "the end of the connection", func() bool { return !r.mux.leads(from, true) })
	_ = all[0].Close()

	h := &leavingConn{memoryConn: memoryConn{local: r.hair.local}}
	s := &muxSocket{index: len(r.mux.sockets), hairpin: h, local: localAddrPort(h.local)}
	m := &mux{sockets: []*muxSocket{s}}
	at := netip.MustParseAddrPort("192.0.2.1:50000")
	s.claim(at, &muxConn{}, net.UDPAddrFromAddrPort(at))
	if h.there = true; !m.leads(at, false) {
		t.Error("a living relay does not lead")
	}
	if h.there = false; m.leads(at, false) {
		t.Error("a relay that is gone leads")
	}
}

// A leavingConn is a hairpin whose client may be gone.
type leavingConn struct {
	memoryConn
	there bool
}

func (c *leavingConn) Reaches(netip.AddrPort) bool { return c.there }
