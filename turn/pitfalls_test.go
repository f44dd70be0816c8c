package turn

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
)

// pitfalls are what goes wrong with pion/turn v2 on the Internet, as far as it
// can be seen from outside. Each tells what a subject does wrong, nil if nothing.
//
// Three are not among them. That an allocation which ends while it gets a
// permission crashes the process needs the end to come between two statements of
// pion's, some ns apart, on another goroutine; nothing from outside can hold one
// of them there, and a test that waits for chance proves nothing when it passes.
// Here one goroutine does both, which guard.delete is about. That messages of 1600
// bytes and more are dropped is so here too, on purpose, but counted: see
// TestLongFrames. And that a socket for all addresses answers from the wrong one
// is a matter of who opens the sockets, see TestPionAnswersFromAnotherAddress.
var pitfalls = map[string]func(s *subject) error{
	"a STUN length takes a core":                func(s *subject) error { return s.spins(stunFrame(0xFFEC, 0)) },
	"a ChannelData length takes a core":         func(s *subject) error { return s.spins(append(channelHead(0xFFFC), make([]byte, 16)...)) },
	"one byte at a time takes stack":            (*subject).stacks,
	"silent connections stay":                   (*subject).keepsSilent,
	"clients of unusual addresses are mixed":    (*subject).mixesClients,
	"TCP close leaves the allocation":           (*subject).leavesAllocation,
	"any user may refresh":                      (*subject).takesOtherUser,
	"a wrong password is a bad request":         (*subject).confusesPassword,
	"an expired credential ends the call":       (*subject).endsWithCredential,
	"a denied permission has no code":           (*subject).deniesWithoutCode,
	"a TCP relay is promised":                   (*subject).promisesTCP,
	"the address family is ignored":             (*subject).ignoresFamily,
	"a refresh of nothing is not answered":      (*subject).ignoresRefresh,
	"an even port takes several relays":         (*subject).wastesRelays,
	"closing the server leaves its clients":     (*subject).leavesClients,
	"each bad datagram is a line of log":        (*subject).logsAll,
	"the client chooses the realm":              (*subject).takesRealm,
	"an answer is six times the request":        (*subject).amplifies,
	"a lifetime above the maximum is the least": (*subject).shortens,
	"a client that comes back is refused":       (*subject).refusesReturn,
	"a nonce is good for others":                (*subject).lendsNonce,
	"any user may bind a channel":               (*subject).bindsForOthers,
	"a denied channel is a wrong password":      (*subject).deniesChannel,
	"a relay on IPv6 cannot be had":             (*subject).hasNoIPv6,
	"a handshake may take for ever":             (*subject).awaitsHandshake,
	"a slow reader gets what is old":            (*subject).keepsOld,
}

func TestPitfalls(t *testing.T) {
	for name, wrong := range pitfalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := wrong(newSubject(t, bareOurs)); err != nil {
				t.Errorf("ours: %v", err)
			}
			for range 8 { // what depends on time may need more than one look on a busy machine
				if err := wrong(newSubject(t, barePion)); err != nil {
					t.Logf("bare pion: %v", err)
					return
				}
			}
			t.Error("bare pion does nothing wrong: either it was repaired or the test is blind")
		})
	}
}

// spins sends something and looks whether the process works without need.
func (s *subject) spins(b []byte) error {
	conn := s.dial("tcp")
	if _, err := conn.Write(b); err != nil {
		return err
	}
	_ = conn.Close()
	const window = 600 * time.Millisecond
	time.Sleep(window / 6) // to read it
	before := s.ask("cpu")
	time.Sleep(window) // the window of the measurement
	if used := s.ask("cpu") - before; used > int(window.Milliseconds())/4 {
		return fmt.Errorf("%d ms of CPU in %v", used, window)
	}
	return nil
}

func (s *subject) stacks() error {
	conn := s.dial("tcp").(*net.TCPConn)
	before := s.ask("stack")
	b := append(stunFrame(12000, 0), make([]byte, 11000)...) // less than it says
	for _, c := range b {
		if _, err := conn.Write([]byte{c}); err != nil {
			return nil // cut off
		}
		time.Sleep(10 * time.Microsecond) // a segment for each
	}
	if used := s.ask("stack") - before; used > 600<<10 {
		return fmt.Errorf("%d bytes of stack for %d received", used, len(b))
	}
	return nil
}

func (s *subject) keepsSilent() error { return closedByServer(s.dial("tcp"), blindWait) }

func (s *subject) mixesClients() error {
	s.addr["tcp"] = s.addr["odd"]
	for range 2 {
		conn := s.dial("tcp")
		tk := &talker{rig: s.rig, conn: conn, packets: newClientConn(conn, "tcp"), username: "x"}
		m := tk.build(stun.MethodAllocate, requestUDP)
		if _, err := conn.Write(m.Raw); err != nil {
			continue
		}
		first := tk.answer(m.TransactionID, time.Second)
		if first == nil {
			continue // refused: nobody can be mixed with anybody
		}
		tk.username, tk.password = Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour))
		tk.realm, tk.nonce = attr(first, stun.AttrRealm), attr(first, stun.AttrNonce)
		tk.key = longTermKey(tk.username, bareRealm, tk.password)
		if code := codeOf(tk.do(stun.MethodAllocate, requestUDP)); code != 0 {
			return fmt.Errorf("a new client gets %d, with %d allocations", code, s.ask("allocations"))
		}
	}
	return nil
}

func (s *subject) leavesAllocation() error {
	tk := s.talk("tcp", "alice")
	tk.allocate()
	_ = tk.conn.Close()
	for end := time.Now().Add(blindWait); s.ask("allocations") > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d allocations %v later", s.ask("allocations"), blindWait)
		}
	}
	return nil
}

func (s *subject) takesOtherUser() error {
	tk := s.talk("udp", "alice")
	tk.allocate()
	tk.username, tk.password = Credentials([]byte(testSecret), "mallory", time.Now().Add(time.Hour))
	tk.key = longTermKey(tk.username, bareRealm, tk.password)
	if code := codeOf(tk.do(stun.MethodRefresh)); code != stun.CodeWrongCredentials {
		return fmt.Errorf("Refresh by somebody else: %d, want 441", code)
	}
	return nil
}

func (s *subject) confusesPassword() error {
	tk := s.talk("udp", "alice")
	tk.key = longTermKey(tk.username, bareRealm, "wrong")
	m := tk.do(stun.MethodAllocate, requestUDP)
	if code := codeOf(m); code != stun.CodeUnauthorized || !m.Contains(stun.AttrNonce) || !m.Contains(stun.AttrRealm) {
		return fmt.Errorf("wrong password: %d, realm %v, nonce %v; want 401 with both", code, m.Contains(stun.AttrRealm), m.Contains(stun.AttrNonce))
	}
	return nil
}

func (s *subject) endsWithCredential() error {
	tk := s.talk("udp", "")
	until := time.Now().Truncate(time.Second).Add(5 * time.Second)
	tk.login(Credentials([]byte(testSecret), "alice", until))
	tk.allocate()
	time.Sleep(time.Until(until.Add(50 * time.Millisecond))) // the credential's life
	if code := codeOf(tk.do(stun.MethodRefresh)); code != 0 {
		return fmt.Errorf("refresh after the credential's expiry: %d", code)
	}
	return nil
}

func (s *subject) deniesWithoutCode() error {
	tk := s.talk("udp", "alice")
	tk.allocate()
	m := tk.permit(netip.MustParseAddrPort("192.0.2.1:9"))
	if code := codeOf(m); code != stun.CodeForbidden {
		return fmt.Errorf("CreatePermission for a forbidden peer: %v with code %d, want 403", m.Type.Class, code)
	}
	return nil
}

func (s *subject) promisesTCP() error {
	const protocolTCP = 6
	code := codeOf(s.talk("udp", "alice").do(stun.MethodAllocate, attribute(stun.AttrRequestedTransport, []byte{protocolTCP, 0, 0, 0})))
	if code != stun.CodeUnsupportedTransProto {
		return fmt.Errorf("a TCP relay: %d, want 442", code)
	}
	return nil
}

func (s *subject) ignoresFamily() error {
	m := s.talk("udp", "alice").do(stun.MethodAllocate, requestUDP, family(familyIPv6))
	relayed, _ := parseXORAddress(attr(m, stun.AttrXORRelayedAddress), m)
	if code := codeOf(m); code == 0 && !relayed.Addr().Is6() || code != 0 && code != stun.CodeAddrFamilyNotSupported {
		return fmt.Errorf("asked for IPv6: %d, %v", code, relayed)
	}
	return nil
}

func (s *subject) ignoresRefresh() error {
	tk := s.talk("udp", "alice")
	m := tk.build(stun.MethodRefresh)
	tk.send(m.Raw)
	if answer := tk.answer(m.TransactionID, blindWait); answer == nil || codeOf(answer) != stun.CodeAllocMismatch {
		return fmt.Errorf("refresh without allocation: %v, want 437", answer)
	}
	return nil
}

func (s *subject) wastesRelays() error {
	tk := s.talk("udp", "alice")
	before := s.ask("relays")
	if code := codeOf(tk.do(stun.MethodAllocate, requestUDP, attribute(stun.AttrEvenPort, []byte{0}))); code != 0 {
		return fmt.Errorf("EVEN-PORT: %d", code)
	}
	// Ours goes over the odd label, which costs nothing.
	if made := s.ask("relays") - before; made > 2 || s.ask("allocations") != 1 {
		return fmt.Errorf("%d relays made for one allocation", made)
	}
	return nil
}

func (s *subject) leavesClients() error {
	conn := s.talk("tcp", "alice").conn
	s.ask("stop")
	return closedByServer(conn, blindWait)
}

func (s *subject) logsAll() error {
	tk := s.talk("udp", "")
	for range 25 {
		for range 20 {
			tk.send([]byte{0xC0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
		}
		tk.ask(stun.MustBuild(stun.TransactionID, stun.BindingRequest)) // it has seen them by now
	}
	if n := s.noise.Load(); n > 20 {
		return fmt.Errorf("%d lines for 500 datagrams", n)
	}
	return nil
}

func (s *subject) takesRealm() error {
	tk := s.talk("udp", "alice")
	tk.realm = []byte("somebody else's")
	tk.key = longTermKey(tk.username, string(tk.realm), tk.password)
	if code := codeOf(tk.do(stun.MethodAllocate, requestUDP)); code != stun.CodeUnauthorized {
		return fmt.Errorf("signed for another realm: %d, want 401", code)
	}
	return nil
}

func (s *subject) amplifies() error {
	tk := s.talk("udp", "")
	ask := stunFrame(0, 0)
	tk.send(ask)
	if b := tk.receive(300 * time.Millisecond); len(b) > 3*len(ask) {
		return fmt.Errorf("%d bytes answer %d", len(b), len(ask))
	}
	return nil
}

func (s *subject) shortens() error {
	m := s.talk("udp", "alice").do(stun.MethodAllocate, requestUDP, lifetimeAttribute(2*time.Hour))
	if granted, _ := attributes(m.Attributes).lifetime(); codeOf(m) != 0 || granted < time.Hour/2 {
		return fmt.Errorf("asked for two hours, got %v", granted)
	}
	return nil
}
