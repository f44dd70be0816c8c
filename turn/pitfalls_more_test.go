package turn

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun"
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
	return closedByServer(conn, 3*time.Second)
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
