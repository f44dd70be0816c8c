package turn

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
)

func TestBadCredentials(t *testing.T) {
	good, password := Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour))
	expired, expiredPassword := Credentials([]byte(testSecret), "alice", time.Now().Add(-time.Second))
	bare := "alice"
	for _, tc := range []struct{ name, username, password string }{
		{"wrong password", good, "wrong"},
		{"empty password", good, ""},
		{"other user's password", strings.Replace(good, "alice", "bob", 1), password},
		{"expired", expired, expiredPassword},
		{"no expiry", bare, passwordOf([]byte(testSecret), bare)},
		{"negative expiry", "-1:alice", passwordOf([]byte(testSecret), "-1:alice")},
		{"empty", "", passwordOf([]byte(testSecret), "")},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			eachTransport(t, nil, func(r *rig, transport string) {
				tk := r.talk(transport, "")
				tk.login(tc.username, tc.password)
				m := tk.do(stun.MethodAllocate, requestUDP)
				if codeOf(m) != stun.CodeUnauthorized || len(attr(m, stun.AttrNonce)) == 0 || len(attr(m, stun.AttrRealm)) == 0 {
					t.Errorf("answer %v, want 401 with realm and nonce", m)
				}
				if r.total("allocations") != 0 {
					t.Error("there is an allocation")
				}
			})
		})
	}
}

func TestUsernameSplitsAtFirstColon(t *testing.T) {
	r := newRig(t, func(c *Config) { c.UserAllocations = 1 })
	for _, user := range []string{"a:b:c", "a", "ünï:cødé", ""} {
		tk := r.talk("udp", "") // talk takes "" for nobody
		tk.login(Credentials([]byte(testSecret), user, time.Now().Add(time.Hour)))
		tk.allocate()
	}
	again := r.talk("udp", "")
	again.login(Credentials([]byte(testSecret), "a:b:c", time.Now().Add(2*time.Hour)))
	again.want(again.do(stun.MethodAllocate, requestUDP), stun.CodeAllocQuotaReached)
}

func TestOtherUser(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		tk.allocate()
		tk.want(tk.bind(0x4000, testNamed), 0)
		mallory := &talker{rig: r, conn: tk.conn, packets: tk.packets}
		mallory.login(Credentials([]byte(testSecret), "mallory", time.Now().Add(time.Hour)))
		mallory.want(mallory.do(stun.MethodRefresh, lifetimeAttribute(0)), stun.CodeWrongCredentials)
		mallory.want(mallory.permit(testNamed), stun.CodeWrongCredentials)
		mallory.want(mallory.bind(0x4001, testNamed), stun.CodeWrongCredentials)
		mallory.want(mallory.do(stun.MethodAllocate, requestUDP), stun.CodeAllocMismatch)
		tk.want(tk.do(stun.MethodRefresh), 0)
	})
}

func TestWithoutAllocation(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		tk.want(tk.do(stun.MethodRefresh), stun.CodeAllocMismatch)
		tk.want(tk.do(stun.MethodRefresh, lifetimeAttribute(0)), stun.CodeAllocMismatch)
		tk.want(tk.permit(testNamed), stun.CodeAllocMismatch)
		tk.want(tk.bind(0x4000, testNamed), stun.CodeAllocMismatch)
	})
}

func TestAllocateIsRefused(t *testing.T) {
	even, pair := attribute(stun.AttrEvenPort, []byte{0}), attribute(stun.AttrEvenPort, []byte{0x80})
	token := attribute(stun.AttrReservationToken, make([]byte, 8))
	for _, tc := range []struct {
		name  string
		attrs []stun.Setter
		want  stun.ErrorCode
	}{
		{"no transport", nil, stun.CodeBadRequest},
		{"short transport", []stun.Setter{attribute(stun.AttrRequestedTransport, []byte{17})}, stun.CodeBadRequest},
		{"TCP", []stun.Setter{attribute(stun.AttrRequestedTransport, []byte{6, 0, 0, 0})}, stun.CodeUnsupportedTransProto},
		{"SCTP", []stun.Setter{attribute(stun.AttrRequestedTransport, []byte{132, 0, 0, 0})}, stun.CodeUnsupportedTransProto},
		{"IPv6", []stun.Setter{requestUDP, family(familyIPv6)}, stun.CodeAddrFamilyNotSupported},
		{"no family", []stun.Setter{requestUDP, family(9)}, stun.CodeAddrFamilyNotSupported},
		{"short family", []stun.Setter{requestUDP, attribute(stun.AttrRequestedAddressFamily, []byte{1})}, stun.CodeBadRequest},
		{"pair of ports", []stun.Setter{requestUDP, pair}, stun.CodeInsufficientCapacity},
		{"short even port", []stun.Setter{requestUDP, attribute(stun.AttrEvenPort, nil)}, stun.CodeBadRequest},
		{"reservation", []stun.Setter{requestUDP, token}, stun.CodeInsufficientCapacity},
		{"both", []stun.Setter{requestUDP, even, token}, stun.CodeBadRequest},
		{"don't fragment", []stun.Setter{requestUDP, attribute(stun.AttrDontFragment, nil)}, stun.CodeUnknownAttribute},
		{"unknown", []stun.Setter{requestUDP, attribute(0x7001, []byte{1})}, stun.CodeUnknownAttribute},
		{"IPv4", []stun.Setter{requestUDP, family(familyIPv4)}, 0},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			r := newRig(t, nil)
			tk := r.talk("udp", "alice")
			m := tk.do(stun.MethodAllocate, tc.attrs...)
			tk.want(m, tc.want)
			if tc.want != 0 && r.total("allocations") != 0 {
				t.Error("refused, but there is an allocation")
			}
			if tc.name == "unknown" {
				if diff := cmp.Diff([]byte{0x70, 0x01}, attr(m, stun.AttrUnknownAttributes)); diff != "" {
					t.Errorf("UNKNOWN-ATTRIBUTES (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestEvenPort(t *testing.T) {
	r := newRig(t, nil)
	for range 3 {
		tk := r.talk("udp", "alice")
		m := tk.do(stun.MethodAllocate, requestUDP, attribute(stun.AttrEvenPort, []byte{0}))
		tk.want(m, 0)
		if relayed, _ := parseXORAddress(attr(m, stun.AttrXORRelayedAddress), m); relayed.Port()%2 != 0 {
			t.Errorf("port %d is odd", relayed.Port())
		}
	}
}

func TestAllocateTwice(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		m := tk.build(stun.MethodAllocate, requestUDP)
		first := tk.ask(m)
		tk.want(first, 0)
		if second := tk.ask(m); !bytes.Equal(first.Raw, second.Raw) {
			t.Errorf("retransmission answered %v, first time %v", second, first)
		}
		tk.want(tk.do(stun.MethodAllocate, requestUDP), stun.CodeAllocMismatch)
		if n := r.total("allocations"); n != 1 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestStaleNonce(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		good := tk.nonce
		elsewhere := r.server.nonces.issue(netip.MustParseAddrPort("192.0.2.1:1"), time.Now())
		from := addrPort(tk.conn.LocalAddr())
		old := r.server.nonces.issue(from, time.Now().Add(-nonceLifetime-time.Minute))
		for _, nonce := range [][]byte{[]byte("x"), elsewhere, old, bytes.Repeat([]byte("A"), nonceLength)} {
			tk.nonce = nonce
			m := tk.do(stun.MethodAllocate, requestUDP)
			tk.want(m, stun.CodeStaleNonce)
			if len(attr(m, stun.AttrNonce)) == 0 {
				t.Errorf("no new nonce for %q", nonce)
			}
		}
		tk.nonce = good
		tk.allocate()
	})
}

func TestIncompleteCredentials(t *testing.T) {
	r := newRig(t, nil)
	tk := r.talk("tcp", "alice")
	for name, attrs := range map[string][]stun.Setter{
		"no nonce":    {stun.NewUsername(tk.username), stun.Realm(tk.realm)},
		"no realm":    {stun.NewUsername(tk.username), stun.Nonce(tk.nonce)},
		"no username": {stun.Realm(tk.realm), stun.Nonce(tk.nonce)},
	} {
		all := append([]stun.Setter{stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), requestUDP}, attrs...)
		m := stun.MustBuild(append(all, stun.MessageIntegrity(tk.key))...)
		if got := codeOf(tk.ask(m)); got != stun.CodeBadRequest {
			t.Errorf("%s: %d, want 400", name, got)
		}
	}
}

// What follows MESSAGE-INTEGRITY is not signed and must not count.
func TestAttributesAfterIntegrity(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		signed := []stun.Setter{
			stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), requestUDP,
			stun.NewUsername(tk.username), stun.Realm(tk.realm), stun.Nonce(tk.nonce), stun.MessageIntegrity(tk.key),
		}
		m := stun.MustBuild(append(signed, attribute(stun.AttrEvenPort, []byte{0x80}), lifetimeAttribute(time.Hour),
			attribute(0x7001, nil), stun.MessageIntegrity("another"))...)
		answer := tk.ask(m)
		tk.want(answer, 0)
		if got, _ := attributes(answer.Attributes).lifetime(); got != minLifetime {
			t.Errorf("lifetime %v taken from an unsigned attribute", got)
		}
		// The same for peers: only the signed one gets a permission.
		m = stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodCreatePermission, stun.ClassRequest),
			stun.NewUsername(tk.username), stun.Realm(tk.realm), stun.Nonce(tk.nonce), stun.MessageIntegrity(tk.key),
			xorAddress{stun.AttrXORPeerAddress, testNamed})
		tk.want(tk.ask(m), stun.CodeBadRequest)
	})
}

func TestChannels(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		tk.allocate()
		tk.want(tk.bind(0x3FFF, testNamed), stun.CodeBadRequest)
		tk.want(tk.bind(0x7FFF, testNamed), stun.CodeBadRequest)
		tk.want(tk.bind(0x4000, testNamed), 0)
		tk.want(tk.bind(0x4000, testNamed), 0)                     // refresh
		tk.want(tk.bind(0x4000, testAliased), stun.CodeBadRequest) // number taken
		tk.want(tk.bind(0x4001, testNamed), stun.CodeBadRequest)   // peer taken
		tk.want(tk.bind(0x4001, testAliased), 0)
		tk.want(tk.do(stun.MethodChannelBind, xorAddress{stun.AttrXORPeerAddress, testNamed}), stun.CodeBadRequest)
		tk.want(tk.do(stun.MethodCreatePermission), stun.CodeBadRequest)
		tk.want(tk.do(stun.MethodCreatePermission, attribute(stun.AttrXORPeerAddress, nil)), stun.CodeBadRequest)

		for _, number := range []uint16{0x4000, 0x4001} { // the way back has the label of the way there
			for size := range 9 {
				frame := channelFrame(number, bytes.Repeat([]byte{7}, size))
				tk.send(frame)
				got := tk.receive(testWait)
				if transport != "udp" {
					frame = frame[:channelHeader+size]
				}
				if size == 0 && got == nil {
					t.Errorf("empty ChannelData is not relayed")
				}
				if !bytes.Equal(got[:min(len(got), channelHeader+size)], frame[:channelHeader+size]) {
					t.Errorf("channel %x, %d bytes: got %x, want %x", number, size, got, frame)
				}
			}
		}
		tk.send(channelFrame(0x4002, []byte("unbound")))
		eventually(t, testWait, "unbound channel counted", func() bool { return r.total("drops_total", "permission") == 1 })
	})
}

func TestAllocationHoldsOnlySoMuch(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RelayTo = []string{"192.0.2.0/24:9"} }, func(s *Server) { s.peers.interfaces = noInterfaces })
	tk := r.talk("tcp", "alice")
	tk.allocate()
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 9)
	}
	for i := range maxChannels {
		tk.want(tk.bind(0x4000+uint16(i), peer(i)), 0)
	}
	tk.want(tk.bind(0x5000, peer(maxChannels)), stun.CodeInsufficientCapacity)
	tk.want(tk.permit(peer(maxChannels)), stun.CodeInsufficientCapacity)
	tk.want(tk.permit(peer(1)), 0)
	var many []netip.AddrPort
	for range 100 {
		many = append(many, peer(1))
	}
	tk.want(tk.permit(many...), 0) // one permission
}

// A CreatePermission is granted whole or not at all: what is refused takes no
// room and opens nothing.
func TestPermissionsAreAllOrNone(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RelayTo = []string{"192.0.2.0/24:9"} }, func(s *Server) { s.peers.interfaces = noInterfaces })
	tk := r.talk("tcp", "alice")
	tk.allocate()
	peer := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 9)
	}
	for i := range maxPermissions - 1 {
		tk.want(tk.permit(peer(i)), 0)
	}
	tk.want(tk.permit(peer(100), peer(0), peer(101)), stun.CodeInsufficientCapacity)
	tk.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
		xorAddress{stun.AttrXORPeerAddress, peer(100)}, attribute(stun.AttrData, []byte("must not pass"))).Raw)
	tk.want(tk.permit(peer(101), peer(0)), 0) // the last place is still free
	if n := r.total("drops_total", "permission"); n != 1 {
		t.Errorf("%v packets without permission, want 1", n)
	}
}

// UDP sources can be forged: what strangers get is short and rare.
func TestUDPStrangersGetLittle(t *testing.T) {
	const rate, burst = 1, 50 // as if the network had nearly spent what it may
	r := newRig(t, nil, func(s *Server) { s.challenges.rate, s.challenges.burst = rate, burst })
	tk := r.talk("udp", "")
	ask := tk.build(stun.MethodAllocate)
	if m := tk.ask(ask); len(m.Raw) > 80 {
		t.Errorf("%d bytes answer to %d", len(m.Raw), len(ask.Raw))
	}
	began, answered := time.Now(), 1
	for n := 1; n < 4*burst; n++ { // one at a time: nothing is lost on the way
		tk.send(ask.Raw)
		for r.total("drops_total", "challenge") < float64(n+1-answered) {
			if tk.receive(time.Millisecond) != nil {
				answered++
			}
		}
	}
	if most := burst + 1 + int(rate*time.Since(began).Seconds()); answered < burst || answered > most {
		t.Errorf("%d requests caused %d answers, want %d to %d", 4*burst, answered, burst, most)
	}
	for _, transport := range []string{"tcp", "tls"} { // streams have proven where they are
		tk := r.talk(transport, "")
		for range 2 * burst {
			tk.want(tk.do(stun.MethodAllocate, requestUDP), stun.CodeUnauthorized)
		}
	}
}

func TestBinding(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "")
		m := tk.ask(stun.MustBuild(stun.TransactionID, stun.BindingRequest))
		addr, ok := parseXORAddress(attr(m, stun.AttrXORMappedAddress), m)
		if !ok || addr != addrPort(tk.conn.LocalAddr()) {
			t.Errorf("mapped address %v, want %v", addr, tk.conn.LocalAddr())
		}
		if m.Contains(stun.AttrFingerprint) {
			t.Error("FINGERPRINT without being asked")
		}
	})
}

func TestMappedAddressInAllocate(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		tk := r.talk(transport, "alice")
		m := tk.do(stun.MethodAllocate, requestUDP)
		tk.want(m, 0)
		mapped, _ := parseXORAddress(attr(m, stun.AttrXORMappedAddress), m)
		relayed, _ := parseXORAddress(attr(m, stun.AttrXORRelayedAddress), m)
		if mapped != addrPort(tk.conn.LocalAddr()) || relayed.Addr() != testRelayIP || relayed.Port() < firstLabel {
			t.Errorf("mapped %v, relayed %v", mapped, relayed)
		}
		if r.hairpin.find(relayed) == nil {
			t.Error("relayed address is not registered")
		}
	})
}

func TestMalformedDatagramsGetNothing(t *testing.T) {
	r := newRig(t, nil)
	tk := r.talk("udp", "alice")
	tk.allocate()
	good := tk.build(stun.MethodRefresh).Raw
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	bad := [][]byte{
		{}, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 20), bytes.Repeat([]byte{0xFF}, 100),
		good[:len(good)-1], good[:19], append(bytes.Clone(good), 0),
		edit(func(b []byte) []byte { b[4] ^= 1; return b }),                                  // cookie
		edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),                           // fingerprint
		edit(func(b []byte) []byte { binary.BigEndian.PutUint16(b[2:], 0xFFEC); return b }),  // length
		edit(func(b []byte) []byte { binary.BigEndian.PutUint16(b[22:], 0xFFFF); return b }), // attribute length
		{0x40, 0, 0xFF, 0xFF, 1}, {0x40, 0, 0, 2, 1}, {0x00, 0x0A, 0, 0, 0x21, 0x12, 0xA4, 0x42}, //
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodConnect, stun.ClassRequest)).Raw, // RFC 6062
		stun.MustBuild(stun.TransactionID, stun.NewType(0x0FF, stun.ClassRequest)).Raw,              // no such method
		stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw,                                 // an answer
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication)).Raw, // no peer
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodData, stun.ClassIndication)).Raw, // ours to send
		stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), attribute(stun.AttrData, nil), attribute(stun.AttrXORPeerAddress, nil)).Raw,
	}
	for _, b := range bad {
		tk.send(b)
	}
	tk.want(tk.do(stun.MethodRefresh), 0) // the first answer to anything
	if got := r.total("drops_total", "malformed"); got != float64(len(bad)) {
		t.Errorf("%v of %d counted", got, len(bad))
	}
}
