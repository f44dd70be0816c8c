package turn

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun"
)

func TestEcho(t *testing.T) {
	before := runtime.NumGoroutine()
	eachTransport(t, nil, func(r *rig, transport string) {
		relay := r.pionClient(transport, "alice")
		for _, size := range []int{1, 3, 4, 5, 100, 1200, 1500} {
			r.echoes(relay, testNamed, 5, size)
		}
		r.echoes(relay, testAliased, 5, 100) // the label follows the name last used
		if up := r.total("packets_total", "up", transport); up != 40 {
			t.Errorf("%v packets up over %s, want 40", up, transport)
		}
		st := r.server.Status()
		if st.Allocations[transport] != 1 || st.Users != 1 {
			t.Errorf("status %+v, want one allocation over %s", st, transport)
		}
		_ = relay.Close()
		eventually(t, testWait, "allocation freed", func() bool { return r.total("allocations") == 0 && r.server.Status().Users == 0 })
	})
	settled(t, before)
}

func TestGoroutinesEndWithRun(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, nil)
	var conns []net.Conn
	for range 5 {
		for _, transport := range transportsT {
			tk := r.talk(transport, "alice")
			tk.allocate()
			tk.want(tk.bind(0x4000, testNamed), 0)
			conns = append(conns, tk.conn)
		}
		conns = append(conns, r.dial("tcp")) // never speaks
	}
	r.stop()
	for _, c := range conns {
		_ = c.Close()
	}
	settled(t, before)
	if n := r.total("allocations"); n != 0 {
		t.Errorf("%v allocations after Run", n)
	}
	if r.hairpin.live != 0 {
		t.Errorf("%d relayed addresses after Run", r.hairpin.live)
	}
}

func TestCredentialIsCheckedOnAllocateOnly(t *testing.T) {
	r := newRig(t, nil)
	expiry := time.Now().Add(4 * time.Second)
	username, password := Credentials([]byte(testSecret), "alice", expiry)
	early := make(map[string]*talker)
	for _, transport := range transportsT {
		early[transport] = r.talk(transport, "")
		early[transport].login(username, password)
		early[transport].allocate()
	}
	eventually(t, testWait, "credential expired", func() bool { return time.Now().After(expiry) })
	for transport, tk := range early {
		late := r.talk(transport, "")
		late.login(username, password)
		m := late.do(stun.MethodAllocate, requestUDP)
		if late.want(m, stun.CodeUnauthorized); len(attr(m, stun.AttrNonce)) == 0 {
			t.Error("refused without a nonce")
		}
		tk.want(tk.do(stun.MethodRefresh), 0)
		tk.want(tk.permit(testNamed), 0)
		tk.want(tk.bind(0x4000, testNamed), 0)
	}
}

func TestSecretsRotate(t *testing.T) {
	r := newRig(t, nil)
	old := r.talk("tcp", "alice")
	old.allocate()

	r.server.SetSecrets([][]byte{[]byte("new"), []byte(testSecret)})
	r.talk("udp", "bob").allocate() // with the previous one
	fresh := r.talk("udp", "")
	fresh.login(Credentials([]byte("new"), "carol", time.Now().Add(time.Hour)))
	fresh.allocate()

	r.server.SetSecrets([][]byte{[]byte("new"), nil})
	late := r.talk("udp", "dave")
	late.want(late.do(stun.MethodAllocate, requestUDP), stun.CodeUnauthorized)
	old.want(old.do(stun.MethodRefresh), 0) // a call outlives its secret

	r.server.SetSecrets([][]byte{nil}) // nothing to replace them with
	fresh.want(fresh.do(stun.MethodRefresh), 0)
}

func TestConnectionCloseFreesAllocation(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil)
			tk := r.talk(transport, "alice")
			tk.allocate()
			tk.want(tk.bind(0x4000, testNamed), 0)
			if n := r.total("allocations", transport); n != 1 {
				t.Fatalf("%v allocations, want 1", n)
			}
			_ = tk.conn.Close()
			eventually(t, testWait, "allocation freed", func() bool { return r.total("allocations") == 0 })
			eventually(t, testWait, "connection gone", func() bool { return r.server.Status().Connections == 0 })
			if n, users := r.server.quota.count(); n != 0 || users != 0 {
				t.Errorf("quota still counts %d allocations of %d users", n, users)
			}
		})
	}
}

// slowCloser yields connections whose Close takes its time, as that of TLS does
// when the goodbye finds no room in the kernel.
type slowCloser struct {
	net.Listener
	until chan struct{}
}

type slowToClose struct {
	net.Conn
	until chan struct{}
}

func (l slowCloser) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return slowToClose{c, l.until}, nil
}

func (c slowToClose) Close() error {
	<-c.until
	return c.Conn.Close()
}

// The client may have the place of its allocation back although its connection
// is still being closed.
func TestAllocationGoesBeforeTheConnection(t *testing.T) {
	r := newRig(t, nil)
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	s, err := New(Config{Realm: "example.com", RelayTo: []string{"sfu"}}, h, Options{Secrets: [][]byte{[]byte(testSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	ln, until := listen(t), make(chan struct{})
	r.addr["tcp"] = ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, []net.Listener{slowCloser{ln, until}}, nil) }()
	tk := r.talk("tcp", "alice")
	tk.allocate()
	_ = tk.conn.Close()
	eventually(t, testWait, "allocation freed", func() bool { return s.Status().Allocations["tcp"] == 0 })
	if n := s.Status().Connections; n != 1 {
		t.Errorf("%d connections, want 1 that is being closed", n)
	}
	close(until)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLifetimeEnds(t *testing.T) {
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // it mostly waits
			r := newRig(t, nil, func(s *Server) {
				s.lifetimes = lifetimes{min: 200 * time.Millisecond, max: time.Hour}
				s.patience = 3 * time.Second
			})
			tk := r.talk(transport, "alice")
			tk.want(tk.do(stun.MethodAllocate, requestUDP, lifetimeAttribute(0)), 0)
			eventually(t, testWait, "allocation expired", func() bool { return r.total("allocations") == 0 })
			if transport == "udp" {
				tk.want(tk.do(stun.MethodRefresh), stun.CodeAllocMismatch)
				tk.allocate() // the 5-tuple is free again
				return
			}
			if err := closedByServer(tk.conn, testWait); err != nil {
				t.Errorf("connection without allocation: %v", err)
			}
		})
	}
}

func TestLifetimeIsClamped(t *testing.T) {
	r := newRig(t, nil)
	tk := r.talk("udp", "alice")
	for _, tc := range []struct{ asked, want time.Duration }{
		{0, minLifetime}, {time.Second, minLifetime}, {20 * time.Minute, 20 * time.Minute}, {1 << 31 * time.Second, maxLifetime},
	} {
		m := tk.do(stun.MethodAllocate, requestUDP, lifetimeAttribute(tc.asked))
		tk.want(m, 0)
		if got, _ := attributes(m.Attributes).lifetime(); got != tc.want {
			t.Errorf("allocate asked %v got %v, want %v", tc.asked, got, tc.want)
		}
		if tc.asked > 0 {
			m := tk.do(stun.MethodRefresh, lifetimeAttribute(tc.asked))
			if got, _ := attributes(m.Attributes).lifetime(); got != tc.want {
				t.Errorf("refresh asked %v got %v, want %v", tc.asked, got, tc.want)
			}
		}
		tk.want(tk.do(stun.MethodRefresh, lifetimeAttribute(0)), 0)
	}
}

func TestQuotas(t *testing.T) {
	r := newRig(t, func(c *Config) { c.UserAllocations, c.MaxAllocations = 2, 3 })
	first := r.talk("udp", "alice")
	first.allocate()
	second := r.talk("tls", "alice")
	second.allocate()
	third := r.talk("tcp", "alice")
	third.want(third.do(stun.MethodAllocate, requestUDP), stun.CodeAllocQuotaReached)
	r.talk("tcp", "bob").allocate()
	carol := r.talk("udp", "carol")
	carol.want(carol.do(stun.MethodAllocate, requestUDP), stun.CodeInsufficientCapacity)

	first.want(first.do(stun.MethodRefresh, lifetimeAttribute(0)), 0)
	third.allocate()
	_ = second.conn.Close()
	eventually(t, testWait, "place freed", func() bool { return codeOf(carol.do(stun.MethodAllocate, requestUDP)) == 0 })
}

// A client behind a NAT may come from the same address and port over TCP and
// over UDP, to two people's surprise.
func TestSamePortOverTwoTransports(t *testing.T) {
	r := newRig(t, nil)
	tcp := r.talk("tcp", "alice")
	udpConn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(addrPort(tcp.conn.LocalAddr())), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(r.addr["udp"])))
	if err != nil {
		t.Fatal(err)
	}
	defer udpConn.Close()
	udp := &talker{rig: r, conn: udpConn, packets: newClientConn(udpConn, "udp")}
	udp.login(Credentials([]byte(testSecret), "bob", time.Now().Add(time.Hour)))
	tcp.allocate()
	udp.allocate()
	for i, tk := range []*talker{tcp, udp} {
		tk.want(tk.bind(0x4000+uint16(i), testNamed), 0)
		frame := channelFrame(0x4000+uint16(i), []byte{byte(i), 1, 2, 3})
		tk.send(frame)
		if got := tk.receive(testWait); string(got) != string(frame) {
			t.Errorf("client %d got %x, want %x", i, got, frame)
		}
	}
	_ = tcp.conn.Close()
	eventually(t, testWait, "TCP allocation freed", func() bool { return r.total("allocations", "tcp") == 0 })
	udp.want(udp.do(stun.MethodRefresh), 0)
}

func TestBitrate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AllocationBitrate = 8000 })
	tk := r.talk("tcp", "alice")
	tk.allocate()
	tk.want(tk.bind(0x4000, testNamed), 0)
	for range 100 {
		tk.send(channelFrame(0x4000, make([]byte, 1000)))
	}
	eventually(t, testWait, "all packets counted", func() bool { return r.total("drops_total", "bitrate")+r.total("packets_total", "up") >= 100 })
	if up := r.total("bytes_total", "up"); up < bucketMin/2 || up > bucketMin+8000 {
		t.Errorf("%v bytes passed at 1 kB/s, want about the burst of %d", up, bucketMin)
	}
}

func TestRelayToOutsidePeer(t *testing.T) {
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { echo(peer); close(ended) }()
	defer func() { _ = peer.Close(); <-ended }()
	before := runtime.NumGoroutine()
	eachTransport(t, func(c *Config) { c.RelayTo = []string{peer.LocalAddr().String()} }, func(r *rig, transport string) {
		relay := r.pionClient(transport, "alice")
		r.echoes(relay, addrPort(peer.LocalAddr()), 10, 200)
		tk := r.talk(transport, "bob")
		tk.allocate()
		tk.want(tk.permit(testNamed), stun.CodeForbidden) // sfu is not in the list
	})
	settled(t, before)
}

// A kernel socket that fails again and again does not take a core.
func TestRelayWaitsAfterReadErrors(t *testing.T) {
	r := testRelay(t, NewHairpin(testRelayIPs, nil), 0)
	conn, err := r.socket(netip.MustParseAddrPort("192.0.2.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = conn.SetReadDeadline(began) // from now on each read fails
	eventually(t, testWait, "several failures", func() bool { return testCounter(t, r.metrics.drops.socket) >= 10 })
	if n := testCounter(t, r.metrics.drops.socket); n > float64(time.Since(began)/readBackoff+2) {
		t.Errorf("%v failures in %v", n, time.Since(began))
	}
}

func TestProbe(t *testing.T) {
	r := newRig(t, nil)
	username, password := Credentials([]byte(testSecret), "doctor", time.Now().Add(time.Minute))
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			target := ProbeTarget{Network: transport, Address: r.addr[transport], Username: username, Password: password, Peer: testNamed}
			if transport == "tls" {
				if _, err := Probe(t.Context(), target); err == nil {
					t.Error("tls without Dial succeeded")
				}
				target.Dial = func(context.Context) (net.Conn, error) { return dialTransport("tls", r.addr["tls"]) }
			}
			res, err := Probe(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			if res.Relayed.Addr() != testRelayIP || !res.Mapped.Addr().IsLoopback() || res.RoundTrip <= 0 || res.Allocate <= 0 {
				t.Errorf("result %+v", res)
			}
			target.Peer = netip.MustParseAddrPort("127.0.0.1:9")
			if res, err := Probe(t.Context(), target); err == nil || !res.Relayed.IsValid() {
				t.Errorf("denied peer: %+v, %v", res, err)
			}
			target.Password = "wrong"
			if _, err := Probe(t.Context(), target); err == nil {
				t.Error("wrong password succeeded")
			}
		})
	}
	eventually(t, testWait, "probes left nothing", func() bool { return r.total("allocations") == 0 })
}
