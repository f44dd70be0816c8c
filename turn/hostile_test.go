package turn

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun"
)

// cpuTime is what this process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quiet fails if the process, with nothing to do, goes on taking much of a core.
// A slow machine may still have something to do at first.
func quiet(t *testing.T) {
	t.Helper()
	const window, windows = 500 * time.Millisecond, 5
	var used, passed time.Duration
	for range windows {
		before, began := cpuTime(t), time.Now()
		time.Sleep(window) // the window of the measurement
		if used, passed = cpuTime(t)-before, time.Since(began); used <= passed/10 {
			return
		}
	}
	t.Errorf("%v of CPU in %v", used, passed)
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func stunFrame(length uint16, body int) []byte {
	b := make([]byte, stunHeader+body)
	binary.BigEndian.PutUint16(b, uint16(stun.MethodAllocate))
	binary.BigEndian.PutUint16(b[2:], length)
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	return b
}

func channelHead(length uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x40, 0x00}, length)
}

// hostileStreams are what strangers might send. Each must cost them the
// connection, at once or when their time is up.
var hostileStreams = map[string][]byte{
	"STUN 0xFFEC":        stunFrame(0xFFEC, 0),
	"STUN 0xFFFC":        stunFrame(0xFFFC, 0),
	"STUN odd length":    stunFrame(7, 7),
	"ChannelData 0xFFFC": channelHead(0xFFFC),
	"ChannelData 0xFFFD": channelHead(0xFFFD),
	"ChannelData 0xFFFE": channelHead(0xFFFE),
	"ChannelData 0xFFFF": append(channelHead(0xFFFF), make([]byte, 70000)...),
	"half a header":      stunFrame(8, 0)[:10],
	"half a message":     stunFrame(4000, 100),
	"bad cookie":         make([]byte, 100),
	"HTTP":               []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
	"0xFF":               bytes.Repeat([]byte{0xFF}, 10000),
	"media of strangers": bytes.Repeat(channelFrame(0x4000, make([]byte, 1000)), 100),
	"bad attributes":     bytes.Repeat(stunFrame(100, 100), 100),
	"nothing":            nil,
}

func TestHostileStreams(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil, func(s *Server) { s.patience = 4 * time.Second }) // longer than quiet looks
			victim := r.pionClient(transport, "victim")
			r.echoes(victim, testNamed, 10, 500)
			goroutines, before := runtime.NumGoroutine(), memory()
			var conns []net.Conn
			for range 5 {
				for name, b := range hostileStreams {
					conn := r.dial(transport)
					_ = conn.SetWriteDeadline(time.Now().Add(testWait))
					if _, err := conn.Write(b); err != nil && !strings.Contains(name, "0x") {
						t.Logf("%s: %v", name, err) // the server was faster
					}
					conns = append(conns, conn)
				}
			}
			r.echoes(victim, testNamed, 10, 500)
			quiet(t)
			if used := int64(memory()) - int64(before); used > 32<<20 {
				t.Errorf("%d connections cost %d bytes", len(conns), used)
			}
			for i, conn := range conns {
				if err := closedByServer(conn, testWait); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
				_ = conn.Close()
			}
			r.echoes(victim, testNamed, 10, 500)
			settled(t, goroutines)
		})
	}
}

// A message in one-byte segments must cost neither stack nor much time.
func TestDribble(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil, func(s *Server) { s.patience = time.Hour })
			victim := r.pionClient(transport, "victim")
			r.echoes(victim, testNamed, 1, 500)
			before := memory()
			var all sync.WaitGroup
			for range 4 {
				conn := r.dial(transport)
				all.Go(func() {
					for _, b := range bytes.Repeat(stunFrame(4000, 4000), 3) {
						if _, err := conn.Write([]byte{b}); err != nil {
							t.Errorf("cut off: %v", err)
							return
						}
					}
				})
			}
			all.Wait()
			r.echoes(victim, testNamed, 10, 500)
			if used := int64(memory()) - int64(before); used > 8<<20 {
				t.Errorf("%d bytes for four dribbling connections", used)
			}
			tk := r.talk(transport, "alice")
			m := tk.build(stun.MethodAllocate, requestUDP)
			for _, b := range m.Raw {
				tk.send([]byte{b})
			}
			answer := tk.answer(m.TransactionID, testWait)
			if answer == nil {
				t.Fatal("an honest request in single bytes is not answered")
			}
			tk.want(answer, 0)
			quiet(t)
		})
	}
}

// Whoever has an allocation may send frames that are too long: they are
// skipped, whatever their length.
func TestLongFrames(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil)
			tk := r.talk(transport, "alice")
			tk.allocate()
			tk.want(tk.bind(0x4000, testNamed), 0)
			before := memory()
			sent := 0
			for _, length := range []uint16{0xFFFF, 0xFFFE, 0xFFFD, 0xFFFC, 0xFFEC, 4097, 1600, 1596} {
				for range 20 {
					tk.send(append(channelHead(length), make([]byte, (int(length)+3)&^3)...))
					sent++
				}
			}
			for _, length := range []uint16{0xFFFC, 0xFFEC, 4096, 1580} {
				tk.send(stunFrame(length, int(length)))
				sent++
			}
			frame := channelFrame(0x4000, make([]byte, maxDatagram-channelHeader)) // the longest that passes
			tk.send(frame)
			if got := tk.receive(testWait); !bytes.Equal(got, frame[:len(got)]) || len(got) == 0 {
				t.Errorf("got %d bytes after the long frames", len(got))
			}
			if got := r.total("drops_total", "oversize"); got != float64(sent) {
				t.Errorf("%v counted, %d sent", got, sent)
			}
			if used := int64(memory()) - int64(before); used > 8<<20 {
				t.Errorf("it cost %d bytes", used)
			}
			quiet(t)
		})
	}
}

// A client that does not read loses its media, and nobody else theirs.
func TestSlowReader(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil)
			slow := r.talk(transport, "slow")
			slow.allocate()
			slow.want(slow.bind(0x4000, testNamed), 0)
			victim := r.pionClient(transport, "victim")
			r.echoes(victim, testNamed, 1, 500)
			relayed := r.hairpin.relays[startLabel].Load()
			conn := r.hairpin.Conns()[0]
			before := memory()
			data := make([]byte, 1200)
			eventually(t, testWait, "write queue full", func() bool {
				for range 500 {
					if _, err := conn.WriteTo(data, relayed.addr); err != nil {
						t.Fatal(err)
					}
				}
				return r.total("drops_total", "stream_queue") > 0
			})
			r.echoes(victim, testNamed, 50, 1000)
			if used := int64(memory()) - int64(before); used > 16<<20 {
				t.Errorf("a slow reader costs %d bytes", used)
			}
		})
	}
}

// A flood from strangers must not take the media of others. All share the kernel's
// socket buffer, which not every machine empties as fast as it is filled here: one
// that loses packets is tried with less.
func TestUDPFlood(t *testing.T) {
	r := newRig(t, nil)
	victim := r.pionClient("udp", "victim")
	r.echoes(victim, testNamed, 1, 500)
	goroutines, before := runtime.NumGoroutine(), memory()
	for pause := 2 * time.Millisecond; !survivesFlood(r, victim, pause); pause *= 4 {
		if pause > 100*time.Millisecond {
			t.Error("packets are lost, however weak the flood")
			break
		}
	}
	if used := int64(memory()) - int64(before); used > 32<<20 {
		t.Errorf("%d bytes", used)
	}
	settled(t, goroutines)
	quiet(t)
}

// survivesFlood tells whether hardly any of the victim's packets are lost while
// strangers send 50 of theirs at each pause.
func survivesFlood(r *rig, victim net.PacketConn, pause time.Duration) bool {
	var flood sync.WaitGroup
	done := make(chan struct{})
	kinds := [][]byte{
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), requestUDP).Raw,
		channelFrame(0x4000, make([]byte, 1000)), make([]byte, 1400), stunFrame(0xFFEC, 1000),
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), stun.NewUsername("1:x"), stun.NewRealm("r"), stun.NewNonce(strings.Repeat("n", 16)), stun.MessageIntegrity("k")).Raw,
	}
	for range 2 {
		conn := r.dial("udp")
		flood.Go(func() {
			for {
				for _, b := range kinds {
					for range 5 {
						_, _ = conn.Write(b)
					}
				}
				select {
				case <-done:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	lost := 0
	to, buf := net.UDPAddrFromAddrPort(testNamed), make([]byte, 2000)
	for sent := 0; sent < 200 && lost <= 20; sent++ {
		if _, err := victim.WriteTo(make([]byte, 300), to); err != nil {
			r.Error(err)
			break
		}
		_ = victim.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := victim.ReadFrom(buf); err != nil {
			lost++
		}
	}
	close(done)
	flood.Wait()
	return lost <= 20
}

// A hostile XOR-PEER-ADDRESS, of any length at the very end of the message.
func TestShortPeerAddresses(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		tk.allocate()
		for n := range 24 {
			if n == 8 || n == 20 {
				continue
			}
			short := attribute(stun.AttrXORPeerAddress, append([]byte{0, familyIPv4}, make([]byte, 30)...)[:n])
			tk.want(tk.do(stun.MethodCreatePermission, short), stun.CodeBadRequest)
			tk.want(tk.do(stun.MethodChannelBind, attribute(stun.AttrChannelNumber, []byte{0x40, 0, 0, 0}), short), stun.CodeBadRequest)
			tk.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), attribute(stun.AttrData, nil), short).Raw)
		}
		tk.want(tk.do(stun.MethodRefresh), 0)
	})
}

func TestConnectionsFromOneAddressAreLimited(t *testing.T) {
	r := newRig(t, nil, func(s *Server) { s.patience = time.Hour })
	var conns []net.Conn
	for range lobbyPerNetwork {
		conns = append(conns, r.dial("tcp"))
	}
	eventually(t, testWait, "all accepted", func() bool { return r.server.Status().Connections == lobbyPerNetwork })
	if err := closedByServer(r.dial("tcp"), testWait); err != nil {
		t.Errorf("one too many: %v", err)
	}
	// Those with an allocation do not count.
	tk := &talker{rig: r, conn: conns[0], packets: newClientConn(conns[0], "tcp")}
	tk.login(Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour)))
	tk.allocate()
	other := r.talk("tcp", "bob")
	other.allocate()
	_ = other.conn.Close()
	eventually(t, testWait, "place free", func() bool { return r.server.Status().Connections == lobbyPerNetwork })
	r.talk("tcp", "carol").allocate()
	for _, c := range conns {
		_ = c.Close()
	}
	eventually(t, testWait, "all ended", func() bool { return r.server.Status().Connections == 1 }) // carol's
	for range 10 {
		r.dial("tcp")
	}
	eventually(t, testWait, "ten more accepted", func() bool { return r.server.Status().Connections == 11 })
}
