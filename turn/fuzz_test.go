package turn

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
)

// keeper is a sender that keeps the last answer.
type keeper struct{ last []byte }

func (k *keeper) send(b []byte, _ netip.AddrPort) { k.last = append(k.last[:0], b...) }

// guardAlone returns a guard with the test's own pion, and a client of it that
// holds an allocation.
func guardAlone(t testing.TB, h *Hairpin) (*guard, *client, *keeper) {
	t.Helper()
	s, err := New(Config{Realm: "example.com", RelayTo: []string{"sfu"}}, h, Options{Secrets: [][]byte{[]byte(testSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	sh := newShard(1, &s.metrics.drops)
	sh.guard = &guard{server: s, lobby: newLobby(), shard: sh, pion: pionSide{key: []byte("inner"), nonce: []byte("nonce"), nonceAt: time.Now().Round(0)}}
	k := new(keeper)
	c := newClient(2, source{via: k, addr: netip.MustParseAddrPort("192.0.2.1:1000")}, overUDP)
	r, code := s.newRelay("alice", overUDP, wish{})
	if code != 0 {
		t.Fatal(code)
	}
	username, password := Credentials([]byte(testSecret), "alice", time.Now().Add(time.Hour))
	sh.guard.begin(c, &allocation{
		username: username, key: longTermKey(username, "example.com", password), relay: r, lifetime: time.Hour,
		permissions: map[netip.Addr]time.Time{testNamed.Addr(): time.Now().Add(time.Hour)},
		channels:    map[uint16]channel{0x4000: {testNamed, time.Now().Add(time.Hour)}},
	})
	return sh.guard, c, k
}

// FuzzGuard plays a client that may sign what it likes: what the guard lets
// through must be harmless to pion, and what it answers must be STUN.
func FuzzGuard(f *testing.F) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	peer := xorAddress{stun.AttrXORPeerAddress, testNamed}
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodBinding} {
		for _, attrs := range [][]stun.Setter{
			{}, {requestUDP}, {peer}, {peer, attribute(stun.AttrChannelNumber, []byte{0x40, 1, 0, 0})}, {lifetimeAttribute(0)},
			{attribute(stun.AttrXORPeerAddress, nil)}, {requestUDP, attribute(stun.AttrEvenPort, nil)}, {attribute(0x7FFF, nil)},
		} {
			m := stun.MustBuild(append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)...)
			f.Add(m.Raw, true, true, true)
			f.Add(m.Raw, false, true, false)
			f.Add(m.Raw, true, false, false)
		}
	}
	f.Add(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peer, attribute(stun.AttrData, []byte("x"))).Raw, true, false, true)
	f.Add(channelFrame(0x4000, []byte("data")), true, false, true)
	f.Add(channelHead(0xFFFF), true, false, true)
	f.Fuzz(func(t *testing.T, b []byte, known, sign, agree bool) {
		if len(b) > maxDatagram {
			return
		}
		g, c, k := guardAlone(t, h)
		defer func() {
			if c.allocation != nil {
				c.allocation.timer.Stop()
				c.allocation.relay.abandon()
			}
		}()
		from := c.source
		if !known {
			from.addr = netip.MustParseAddrPort("192.0.2.2:2000")
		}
		if sign {
			b = signed(b, c.allocation, g.server.nonces.issue(from.addr, time.Now()))
		}
		playPion(t, g, packetFrom(b, from), agree)
		if k.last != nil {
			m := &stun.Message{Raw: k.last}
			if err := m.Decode(); err != nil || !isResponse(k.last) {
				t.Fatalf("answer %x: %v", k.last, err)
			}
		}
		for _, other := range g.shard.byID {
			if other != c {
				other.allocation.timer.Stop()
				other.allocation.relay.abandon()
			}
		}
	})
}

func packetFrom(b []byte, from source) *packet {
	p := packetOf(b)
	p.source = from
	return p
}

// signed adds credentials to b if it is a STUN message.
func signed(b []byte, a *allocation, nonce []byte) []byte {
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if m.Decode() != nil {
		return b
	}
	m.Raw = m.Raw[:stunHeader+int(m.Length)]
	for _, s := range []stun.Setter{stun.NewUsername(a.username), stun.NewRealm("example.com"), stun.Nonce(nonce), stun.MessageIntegrity(a.key)} {
		if s.AddTo(m) != nil || len(m.Raw) > maxDatagram {
			return b
		}
	}
	return m.Raw
}

// playPion gives p to the guard and answers what it asks, until it asks no more.
func playPion(t *testing.T, g *guard, p *packet, agree bool) {
	t.Helper()
	var buf [maxDatagram + 1]byte
	n, from := g.packet(p, buf[:])
	for range 4 {
		if n == 0 {
			n, from = g.resume(buf[:])
			if n == 0 {
				return
			}
		}
		if clientID(from) == 0 || !looksLikeTURN(buf[:n]) {
			t.Fatalf("pion gets %x from %v", buf[:n], from)
		}
		checkForPion(t, buf[:n])
		if g.pion.pending == nil {
			return // data
		}
		class := stun.ClassErrorResponse
		if g.pion.offered != nil && agree {
			r, _, err := g.pion.AllocatePacketConn("udp4", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.LocalAddr() }()
		}
		if agree {
			class = stun.ClassSuccessResponse
		}
		g.answered(stun.MustBuild(stun.TransactionID, stun.NewType(g.pion.pending.method, class)).Raw)
		n = 0
	}
	t.Fatal("the guard does not come to an end")
}

// checkForPion fails if a STUN message could upset pion.
func checkForPion(t *testing.T, b []byte) {
	t.Helper()
	if b[0]>>6 == 1 {
		return
	}
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Get(stun.AttrXORPeerAddress); err == nil && len(v) != 8 && len(v) != 20 {
		t.Fatalf("pion gets a peer address of %d bytes", len(v))
	}
}
