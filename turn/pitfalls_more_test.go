package turn

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
	"github.com/pion/turn/v2"
)

// Pitfalls of more than one connection.

// refusesReturn comes back from the same port after a connection that broke.
func (s *subject) refusesReturn() error {
	first := s.talk("tcp", "alice")
	first.allocate()
	_ = first.conn.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: the port is free at once
	from := first.conn.LocalAddr()
	_ = first.conn.Close()
	conn, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", s.addr["tcp"])
	if err != nil {
		return nil // somebody else has got the port
	}
	s.Cleanup(func() { _ = conn.Close() })
	again := &talker{rig: s.rig, conn: conn, packets: newClientConn(conn, "tcp")}
	again.login(Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour)))
	if code := codeOf(again.do(stun.MethodAllocate, requestUDP)); code != 0 {
		return fmt.Errorf("allocate on a new connection: %d", code)
	}
	return nil
}

// lendsNonce takes the nonce of one client for another's.
func (s *subject) lendsNonce() error {
	alice, bob := s.talk("udp", "alice"), s.talk("udp", "bob")
	bob.nonce = alice.nonce
	if code := codeOf(bob.do(stun.MethodAllocate, requestUDP)); code != stun.CodeStaleNonce {
		return fmt.Errorf("another client's nonce: %d, want 438", code)
	}
	return nil
}

func (s *subject) bindsForOthers() error {
	tk := s.talk("udp", "alice")
	tk.allocate()
	tk.username, tk.password = Credentials([]byte(testSecret), "mallory", time.Now().Add(time.Hour))
	tk.key = longTermKey(tk.username, bareRealm, tk.password)
	if code := codeOf(tk.bind(0x4000, s.peer)); code != stun.CodeWrongCredentials {
		return fmt.Errorf("ChannelBind by somebody else: %d, want 441", code)
	}
	return nil
}

func (s *subject) deniesChannel() error {
	tk := s.talk("udp", "alice")
	tk.allocate()
	if code := codeOf(tk.bind(0x4000, netip.MustParseAddrPort("192.0.2.1:9"))); code != stun.CodeForbidden {
		return fmt.Errorf("ChannelBind to a forbidden peer: %d, want 403", code)
	}
	return nil
}

// hasNoIPv6 asks a server that has relays on IPv6 for one.
func (s *subject) hasNoIPv6() error {
	s.addr["udp"] = s.addr["six"]
	if code := codeOf(s.talk("udp", "alice").do(stun.MethodAllocate, requestUDP, family(familyIPv6))); code != 0 {
		return fmt.Errorf("a relay on IPv6: %d", code)
	}
	return nil
}

// awaitsHandshake begins a TLS handshake and leaves it at that.
func (s *subject) awaitsHandshake() error {
	conn, err := net.Dial("tcp", s.addr["tls"])
	if err != nil {
		return err
	}
	s.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil {
		return err
	}
	return closedByServer(conn, blindWait)
}

// keepsOld lets media come and does not read it for a while: video of half a
// second ago is of no use to anybody.
func (s *subject) keepsOld() error {
	conn, err := net.Dial("tcp", s.addr["tcp"])
	if err != nil {
		return err
	}
	s.Cleanup(func() { _ = conn.Close() })
	tk := &talker{rig: s.rig, conn: conn, packets: newClientConn(conn, "tcp")}
	tk.login(Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour)))
	tk.allocate()
	tk.want(tk.bind(0x4000, s.peer), 0)
	const size, frames = 1000, 8000
	frame := channelFrame(0x4000, append([]byte{2 << 6, 96}, bytes.Repeat([]byte{1}, size-2)...))
	for n := range frames {
		if _, err := conn.Write(frame); err != nil {
			return err
		}
		if n%10 == 0 {
			time.Sleep(time.Millisecond) // as media comes
		}
	}
	time.Sleep(time.Second / 2)
	old := 0
	for tk.receive(200*time.Millisecond) != nil {
		old += size
	}
	if old > frames*size/8 {
		return fmt.Errorf("%d bytes of old video waited", old)
	}
	return nil
}

// TestPionAnswersFromAnotherAddress: given one socket for all addresses, as its
// examples do, pion answers from the one that the kernel prefers, and no client
// hears it. Whoever gives us sockets has one for each address: TestTURNAlone of
// the gateway is about that.
func TestPionAnswersFromAnotherAddress(t *testing.T) {
	asked := netip.MustParseAddr("127.0.0.2")
	for _, test := range []struct {
		bind, answers string
	}{{"0.0.0.0", "127.0.0.1"}, {asked.String(), asked.String()}} {
		conn, err := net.ListenPacket("udp4", test.bind+":0")
		if err != nil {
			t.Skipf("SKIPPED, NOT TESTED: this system has one loopback address: %v", err)
		}
		server, err := turn.NewServer(turn.ServerConfig{
			AuthHandler: func(string, string, net.Addr) ([]byte, bool) { return nil, false },
			PacketConnConfigs: []turn.PacketConnConfig{{
				PacketConn: conn, RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		port := addrPort(conn.LocalAddr()).Port()
		if _, err := client.WriteToUDPAddrPort(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw, netip.AddrPortFrom(asked, port)); err != nil {
			t.Fatal(err)
		}
		_ = client.SetReadDeadline(time.Now().Add(testWait))
		_, from, err := client.ReadFromUDPAddrPort(make([]byte, maxDatagram))
		if err != nil || from.Addr().String() != test.answers {
			t.Errorf("a socket on %s, asked at %v, answers from %v, %v; want %s", test.bind, asked, from, err, test.answers)
		}
	}
}
