package sfu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
	"github.com/pion/webrtc/v3"
)

// bindingRequest makes a STUN Binding request with a USERNAME.
func bindingRequest(t testing.TB, username string) []byte {
	t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("x"), stun.NewUsername(username))
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func TestRequestUfrag(t *testing.T) {
	whole := bindingRequest(t, "local:remote")
	response := bytes.Clone(whole)
	response[0], response[1] = 0x01, 0x01
	tooLong := bytes.Clone(whole)
	binary.BigEndian.PutUint16(tooLong[2:], 0xFFEC)
	longAttribute := bytes.Clone(whole)
	binary.BigEndian.PutUint16(longAttribute[22:], 0xFFFF)
	for _, tt := range []struct {
		name  string
		in    []byte
		ufrag string
	}{
		{"request", whole, "local"},
		{"request with padding", bindingRequest(t, "l:r"), "l"},
		{"no colon", bindingRequest(t, "local"), ""},
		{"empty ufrag", bindingRequest(t, ":remote"), ""},
		{"response", response, ""},
		{"header alone", whole[:20], ""},
		{"cut in an attribute", whole[:30], ""},
		{"length beyond the datagram", tooLong, ""},
		{"attribute beyond the message", longAttribute, ""},
		{"RTP", bytes.Repeat([]byte{0x80}, 40), ""},
		{"nothing", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := requestUfrag(tt.in)
			if string(got) != tt.ufrag || ok != (tt.ufrag != "") {
				t.Errorf("got %q, %v; want %q", got, ok, tt.ufrag)
			}
		})
	}
}

func TestRequestUfragAllocatesNothing(t *testing.T) {
	p := bindingRequest(t, "local:remote")
	if n := testing.AllocsPerRun(100, func() { requestUfrag(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRequestUfrag(f *testing.F) {
	f.Add(bindingRequest(f, "local:remote"))
	f.Add([]byte{0, 1, 0, 4, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, p []byte) {
		got, ok := requestUfrag(p)
		if ok && !bytes.Contains(p, append(bytes.Clone(got), ':')) {
			t.Errorf("ufrag %q is not in the datagram", got)
		}
	})
}

func TestReadFrame(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want string
		err  bool
	}{
		{"one frame", "\x00\x03abcrest", "abc", false},
		{"empty frame", "\x00\x00", "", true},
		{"larger than the buffer", "\xff\xff" + string(make([]byte, 70000)), "", true},
		{"cut", "\x00\x05ab", "", true},
		{"nothing", "", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			buf := make([]byte, maxDatagram)
			n, err := readFrame(bytes.NewReader([]byte(tt.in)), buf)
			if (err != nil) != tt.err {
				t.Fatalf("error %v, want one: %v", err, tt.err)
			}
			if err == nil && string(buf[:n]) != tt.want {
				t.Errorf("got %q, want %q", buf[:n], tt.want)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x03abc"))
	f.Add([]byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, buf := bytes.NewReader(p), make([]byte, maxDatagram)
		for {
			n, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if n < 1 || n > len(buf) {
				t.Fatalf("frame of %d bytes", n)
			}
		}
	})
}

func TestQueueDropsTheOldest(t *testing.T) {
	q := newQueue(3)
	from := &net.UDPAddr{Port: 1}
	for _, p := range []string{"a", "b", "c", "d"} {
		if lost := !q.push([]byte(p), from); lost != (p == "d") {
			t.Errorf("push %s: lost %v", p, lost)
		}
	}
	var got []string
	buf := make([]byte, 10)
	for !q.empty() {
		n, _, err := q.pop(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	if diff := cmp.Diff([]string{"b", "c", "d"}, got); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	go q.close()
	if _, _, err := q.pop(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("pop of a closed queue: %v", err)
	}
	if q.push([]byte("e"), from) {
		t.Error("a closed queue takes datagrams")
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	q, from, p, buf := newQueue(4), &net.UDPAddr{Port: 1}, make([]byte, 200), make([]byte, 1500)
	if n := testing.AllocsPerRun(200, func() {
		q.push(p, from)
		_, _, _ = q.pop(buf)
	}); n > 0.1 { // a garbage collection may empty the pool
		t.Errorf("%v allocations for each datagram", n)
	}
}

// A living session keeps its remote address whatever another session sends
// there; a session that is gone or silent does not.
func TestRoutesCannotBeTakenFromTheLiving(t *testing.T) {
	s := &muxSocket{}
	victim, thief := &muxConn{}, &muxConn{}
	at := netip.MustParseAddrPort("192.0.2.7:4000")
	udp := net.UDPAddrFromAddrPort(at)
	if !s.claim(at, victim, udp) {
		t.Fatal("a free address was refused")
	}
	if s.claim(at, thief, udp) {
		t.Error("the address of a living session was given away")
	}
	s.routes.get(at).seen.Store(time.Now().Add(-routeIdle).UnixNano())
	if !s.claim(at, thief, udp) {
		t.Error("the address of a silent session was refused")
	}
	thief.closed.Store(true)
	if !s.claim(at, victim, udp) {
		t.Error("the address of a closed session was refused")
	}
	s.release(at, thief) // not its own any longer
	if r := s.routes.get(at); r == nil || r.conn != victim {
		t.Error("a session released the address of another one")
	}
}

func TestStrangersMakeNoState(t *testing.T) {
	srv := startServer(t)
	t.Run("udp", func(t *testing.T) {
		c, err := net.Dial("udp", srv.mux.advertised()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, p := range [][]byte{bindingRequest(t, "nobody:x"), []byte("garbage"), bytes.Repeat([]byte{0x80}, 1000), make([]byte, 3000)} {
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		join(t, srv, "call", "alpha", guestOptions{}) // by now all of it has been read
		sock := srv.mux.sockets[0]
		srv.mux.mu.RLock()
		defer srv.mux.mu.RUnlock()
		if got := sock.routes.count(); got > maxRoutes || len(srv.mux.conns) != 1 {
			t.Errorf("%d routes and %d connections for one session", got, len(srv.mux.conns))
		}
	})
	for _, tt := range []struct {
		name string
		send []byte
	}{
		{"tcp, unknown ufrag", framed(bindingRequest(t, "nobody:x"))},
		{"tcp, not STUN", framed([]byte("GET / HTTP/1.1\r\n\r\n"))},
		{"tcp, an endless frame", []byte{0xff, 0xff, 0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", srv.tcp.listeners[0].Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
				t.Errorf("the connection was not closed: %v", err)
			}
		})
	}
}

func framed(p []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...) }

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// A hairpin is a second way to the same advertised address: answers go back the
// way the question came.
func TestHairpinIsAnotherWayToTheSameAddress(t *testing.T) {
	socks, err := Listen(Config{UDP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	h := &memoryConn{local: net.UDPAddrFromAddrPort(socks.udp[0].local()), in: make(chan []byte, 8), out: make(chan []byte, 8), done: make(chan struct{})}
	m, err := newMux(socks, []net.PacketConn{h}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	for _, s := range m.sockets {
		go func() { m.read(s); done <- struct{}{} }()
	}
	conn, err := m.GetConn("local", m.GetListenAddresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	h.in <- bindingRequest(t, "local:remote")
	buf := make([]byte, maxDatagram)
	_, from, err := conn.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if got := string(<-h.out); got != "answer" {
		t.Errorf("the hairpin got %q", got)
	}
	h.in <- []byte("media") // not STUN: by its address
	if n, _, err := conn.ReadFrom(buf); err != nil || string(buf[:n]) != "media" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := conn.WriteTo([]byte("check"), peer.LocalAddr()); err != nil { // the hairpin does not know it
		t.Fatal(err)
	}
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := peer.ReadFrom(buf); err != nil || string(buf[:n]) != "check" {
		t.Errorf("the peer got %q, %v", buf[:n], err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	<-done
	<-done
}

// A memoryConn is a net.PacketConn with one remote address.
type memoryConn struct {
	net.PacketConn
	local   net.Addr
	in, out chan []byte
	done    chan struct{}
}

var relayedClient = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 50000}

func (c *memoryConn) LocalAddr() net.Addr { return c.local }
func (c *memoryConn) Close() error        { close(c.done); return nil }
func (c *memoryConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case b := <-c.in:
		return copy(p, b), relayedClient, nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *memoryConn) WriteTo(p []byte, to net.Addr) (int, error) {
	if to.String() != relayedClient.String() {
		return 0, errors.New("no such allocation")
	}
	c.out <- bytes.Clone(p)
	return len(p), nil
}

func TestAdvertisedAddressIsInTheCandidates(t *testing.T) {
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0", Advertise: []string{"203.0.113.5/127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	srv, err := New(socks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	pc, err := srv.engine.connection(&streams{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := pc.CreateDataChannel("x", nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	done := make(chan struct{})
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			close(done)
			return
		}
		got = append(got, c.Protocol.String()+" "+netip.AddrPortFrom(netip.MustParseAddr(c.Address), c.Port).String()+" "+c.TCPType)
	})
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-done
	want := []string{"udp " + socks.Addresses()[0].Advertised.String() + " ", "tcp " + socks.TCPAddresses()[0].Advertised.String() + " passive"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
}

// Silent connections of one address leave room for the others.
func TestSilentConnectionsAreLimitedByAddress(t *testing.T) {
	srv := startServer(t)
	at := srv.tcp.listeners[0].Addr().String()
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	const office = 1000 // clients behind one address that join at once
	for range office {
		dial("127.0.0.2")
	}
	waiting := func() (n int) {
		srv.tcp.mu.Lock()
		defer srv.tcp.mu.Unlock()
		return srv.tcp.strangers
	}
	until(t, "an office is let in", func() bool { return waiting() == office })
	var last net.Conn
	for range maxUnknownFrom + 1 - office {
		last = dial("127.0.0.2")
	}
	_ = last.SetReadDeadline(time.Now().Add(patience))
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d of one address was not refused: %v", maxUnknownFrom+1, err)
	}
	join(t, srv, "call", "alpha", guestOptions{tcp: true}) // from 127.0.0.1
}
