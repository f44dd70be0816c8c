package turn

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
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
	r, code := s.newRelay("alice", "alice", overUDP, wish{})
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

// What a step of FuzzGuard does, by the bits of its first byte.
const (
	fuzzKnown  = 1 << iota // from the client that holds an allocation at first
	fuzzSigned             // with its credentials
	fuzzAgreed             // pion agrees to what it is asked
	fuzzExpire             // instead, the client's allocation expires
)

// step is one packet of a script for FuzzGuard.
func step(flags byte, b []byte) []byte {
	return append(append([]byte{flags}, byte(len(b)>>8), byte(len(b))), b...)
}

// FuzzGuard plays two clients that may sign what they like, several packets one
// after the other: what the guard lets through must be harmless to pion, and
// what it answers must be STUN.
func FuzzGuard(f *testing.F) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	peer := xorAddress{stun.AttrXORPeerAddress, testNamed}
	request := func(method stun.Method, attrs ...stun.Setter) []byte {
		return stun.MustBuild(append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)...).Raw
	}
	const owner = fuzzKnown | fuzzSigned | fuzzAgreed
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind, stun.MethodBinding} {
		for _, attrs := range [][]stun.Setter{
			{}, {requestUDP}, {peer}, {peer, attribute(stun.AttrChannelNumber, []byte{0x40, 1, 0, 0})}, {lifetimeAttribute(0)},
			{attribute(stun.AttrXORPeerAddress, nil)}, {requestUDP, attribute(stun.AttrEvenPort, nil)}, {attribute(0x7FFF, nil)},
		} {
			for _, flags := range []byte{owner, fuzzSigned, fuzzKnown} {
				f.Add(step(flags, request(method, attrs...)))
			}
		}
	}
	send := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peer, attribute(stun.AttrData, []byte("x"))).Raw
	bind := request(stun.MethodChannelBind, peer, attribute(stun.AttrChannelNumber, []byte{0x40, 1, 0, 0}))
	data, end := channelFrame(0x4001, []byte("data")), request(stun.MethodRefresh, lifetimeAttribute(0))
	allocate := request(stun.MethodAllocate, requestUDP)
	f.Add(step(fuzzKnown, channelHead(0xFFFF)))
	for _, flags := range []byte{owner, fuzzSigned | fuzzAgreed} { // a life
		f.Add(slices.Concat(step(flags, allocate), step(flags, allocate), step(flags, request(stun.MethodCreatePermission, peer)), step(flags, send),
			step(flags, bind), step(flags, data), step(flags, end), step(flags, data), step(flags, send), step(flags, allocate), step(flags, bind)))
	}
	f.Add(slices.Concat(step(owner, bind), step(fuzzExpire|fuzzAgreed, nil), step(owner, data), step(owner, allocate), step(fuzzExpire, nil), step(owner, end)))
	f.Fuzz(func(t *testing.T, script []byte) {
		g, c, k := guardAlone(t, h)
		defer func() {
			for _, left := range g.shard.byID {
				left.allocation.timer.Stop()
				left.allocation.relay.abandon()
			}
		}()
		credentials := *c.allocation
		for steps := 0; len(script) >= 3 && steps < 16; steps++ {
			flags, n := script[0], int(binary.BigEndian.Uint16(script[1:]))
			script = script[3:]
			b := script[:min(n, len(script), maxDatagram)]
			script = script[len(b):]
			play(t, g, c, flags, b, &credentials)
			if k.last != nil {
				m := &stun.Message{Raw: k.last}
				if err := m.Decode(); err != nil || !isResponse(k.last) {
					t.Fatalf("answer %x: %v", k.last, err)
				}
			}
		}
	})
}

// play does one step of a script.
func play(t *testing.T, g *guard, c *client, flags byte, b []byte, credentials *allocation) {
	t.Helper()
	agree := flags&fuzzAgreed != 0
	if flags&fuzzExpire != 0 {
		if c.allocation != nil {
			c.allocation.expires = time.Time{}
		}
		playPion(t, g, func(b []byte) (int, net.Addr) { return g.event(event{c, allocationExpired}, b) }, agree)
		return
	}
	from := c.source
	if flags&fuzzKnown == 0 {
		from.addr = netip.MustParseAddrPort("192.0.2.2:2000")
	}
	if flags&fuzzSigned != 0 {
		b = signed(b, credentials, g.server.nonces.issue(from.addr, time.Now()))
	}
	if len(b) > 0 { // as with sockets
		p := packetFrom(b, from)
		playPion(t, g, func(b []byte) (int, net.Addr) { return g.packet(p, b) }, agree)
	}
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

// playPion lets something happen to the guard and answers what it asks, until it
// asks no more.
func playPion(t *testing.T, g *guard, happen func(b []byte) (int, net.Addr), agree bool) {
	t.Helper()
	var buf [maxDatagram + 1]byte
	n, from := happen(buf[:])
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
