package sfu

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"
)

// watchKeys are the credentials of these tests.
var watchKeys = iceKeyPair{
	local:  iceCredentials{"ourUfrag", "our password of 22 characters"},
	remote: iceCredentials{"theirUfrag", "their password of 22 characters"},
}

func newWatch() *roleWatch {
	keys := newICEKeys()
	keys.put(watchKeys)
	return &roleWatch{keys: keys, ufrag: watchKeys.local.ufrag}
}

// ourCheck is a check as our agent sends it.
func ourCheck(t testing.TB, claim stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername("theirUfrag:ourUfrag"), claim,
		ice.PriorityAttr(1), stun.NewShortTermIntegrity(watchKeys.remote.password), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// answerTo answers a check of theirs as our agent does.
func answerTo(t testing.TB, check []byte, setters ...stun.Setter) []byte {
	t.Helper()
	m := &stun.Message{Raw: bytes.Clone(check)}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	out, err := stun.Build(append([]stun.Setter{m}, append(setters, stun.NewShortTermIntegrity(watchKeys.local.password), stun.Fingerprint)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out.Raw
}

// mustForge checks a made-up request as the agent does, and returns its claim.
func mustForge(t *testing.T, p []byte) ice.AttrControl {
	t.Helper()
	m := &stun.Message{Raw: bytes.Clone(p)}
	if err := m.Decode(); err != nil {
		t.Fatalf("decode made-up request: %v", err)
	}
	var user stun.Username
	if err := user.GetFrom(m); err != nil || user.String() != "ourUfrag:theirUfrag" {
		t.Errorf("user name %q, %v", user, err)
	}
	if err := stun.NewShortTermIntegrity(watchKeys.local.password).Check(m); err != nil {
		t.Errorf("integrity: %v", err)
	}
	if err := stun.Fingerprint.Check(m); err != nil {
		t.Errorf("fingerprint: %v", err)
	}
	if m.Contains(stun.AttrUseCandidate) {
		t.Error("a made-up request nominates")
	}
	var claim ice.AttrControl
	if err := claim.GetFrom(m); err != nil {
		t.Errorf("role: %v", err)
	}
	return claim
}

func TestRefusalMakesTheAgentSwitch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		check stun.Setter
		want  ice.AttrControl
	}{
		{"controlled", ice.AttrControlled(5), ice.AttrControl{Role: ice.Controlled, Tiebreaker: 0}},
		{"controlling", ice.AttrControlling(5), ice.AttrControl{Role: ice.Controlling, Tiebreaker: math.MaxUint64}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatch()
			check := ourCheck(t, tt.check)
			if pass, request := w.outgoing(check); !pass || request != nil {
				t.Fatal("a check of ours was not sent as it is")
			}
			refusal := refusalOf(t, check, watchKeys.remote.password)
			request := w.refusal(refusal)
			if got := mustForge(t, request); got != tt.want {
				t.Errorf("claims %+v, want %+v", got, tt.want)
			}
			if w.refusal(refusal) != nil {
				t.Error("a repeated 487 made a second request")
			}
			if pass, _ := w.outgoing(answerTo(t, request, stun.BindingSuccess)); pass {
				t.Error("the answer to a request that nobody sent goes out")
			}
			if pass, _ := w.outgoing(answerTo(t, request, stun.BindingError, stun.CodeRoleConflict)); pass {
				t.Error("the 487 to a request that nobody sent goes out")
			}
			if pass, _ := w.outgoing(answerTo(t, ourCheck(t, tt.check), stun.BindingSuccess)); !pass {
				t.Error("an answer to the other side does not go out")
			}
		})
	}
}

func TestOnlyValidRefusalsCount(t *testing.T) {
	check := ourCheck(t, ice.AttrControlled(5))
	unsigned := func() []byte {
		m := &stun.Message{Raw: bytes.Clone(check)}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		return stun.MustBuild(m, stun.BindingError, stun.CodeRoleConflict, stun.Fingerprint).Raw
	}()
	valid := refusalOf(t, check, watchKeys.remote.password)
	other := bytes.Clone(valid)
	binary.BigEndian.PutUint16(other[2:], uint16(len(valid))) // longer than the datagram
	for name, p := range map[string][]byte{
		"no integrity":            unsigned,
		"our own password":        refusalOf(t, check, watchKeys.local.password),
		"a guessed password":      refusalOf(t, check, "guess"),
		"another transaction":     refusalOf(t, ourCheck(t, ice.AttrControlled(5)), watchKeys.remote.password),
		"another error":           answerTo(t, check, stun.BindingError, stun.CodeBadRequest),
		"a changed error":         bytes.Replace(valid, []byte{4, 87}, []byte{4, 0}, 1),
		"a length that is beyond": other,
	} {
		w := newWatch()
		w.outgoing(check)
		if w.refusal(p) != nil {
			t.Errorf("%s: accepted", name)
		}
		if w.refusal(valid) == nil {
			t.Errorf("%s: the valid 487 after it is refused", name)
		}
	}
	w := newWatch()
	w.outgoing(check)
	w.keys.remove(watchKeys.local.ufrag)
	if w.refusal(valid) != nil {
		t.Error("accepted without credentials")
	}
}

func TestWatchYieldsToAPeerThatIgnoresRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		w.outgoing(ourCheck(t, ice.AttrControlled(5)))
		theirs := func(answer ...stun.Setter) (request []byte) {
			pass, request := w.outgoing(answerTo(t, ourCheck(t, ice.AttrControlled(9)), answer...))
			if !pass {
				t.Fatal("our answer was not sent")
			}
			return request
		}
		refuse := func() []byte { return theirs(stun.BindingError, stun.CodeRoleConflict) }
		for range 20 { // within a round trip or two
			if refuse() != nil {
				t.Fatal("yielded at once")
			}
		}
		time.Sleep(yieldAfter / 2)
		theirs(stun.BindingSuccess) // it has switched
		time.Sleep(yieldAfter)
		if refuse() != nil {
			t.Fatal("yielded although the conflict was over")
		}
		time.Sleep(refusalMemory + time.Second)
		if refuse() != nil {
			t.Fatal("yielded to two 487s that have nothing to do with each other")
		}
		time.Sleep(yieldAfter)
		request := refuse()
		if request == nil {
			t.Fatal("did not yield")
		}
		if got := mustForge(t, request); got.Role != ice.Controlled || got.Tiebreaker != 0 {
			t.Errorf("claims %+v", got)
		}
		if refuse() != nil {
			t.Error("yielded twice")
		}
	})
}

func TestWatchIsBounded(t *testing.T) {
	w := newWatch()
	first := ourCheck(t, ice.AttrControlled(1))
	w.outgoing(first)
	var last []byte
	for range 10 * checksKept {
		last = ourCheck(t, ice.AttrControlled(1))
		w.outgoing(last)
	}
	if len(w.sent) != checksKept || cap(w.sent) > 2*checksKept {
		t.Errorf("%d checks remembered in room for %d, want %d", len(w.sent), cap(w.sent), checksKept)
	}
	if w.refusal(refusalOf(t, first, watchKeys.remote.password)) != nil {
		t.Error("a check long gone is remembered")
	}
	if w.refusal(refusalOf(t, last, watchKeys.remote.password)) == nil {
		t.Error("the latest check is forgotten")
	}
}

// What strangers send must not cost memory, nor must media.
func TestWatchAllocatesNothing(t *testing.T) {
	w := newWatch()
	for range checksKept {
		w.outgoing(ourCheck(t, ice.AttrControlled(1)))
	}
	media := append([]byte{0x80, 111}, make([]byte, 200)...)
	flood := refusalOf(t, ourCheck(t, ice.AttrControlled(1)), "guess")
	check := ourCheck(t, ice.AttrControlled(1))
	for name, f := range map[string]func(){
		"media":     func() { w.outgoing(media); isBindingError(media) },
		"a flood":   func() { w.refusal(flood) },
		"our check": func() { w.outgoing(check) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The whole way through the mux: a 487 becomes the request, its answer is lost.
func TestMuxHandsRefusalsToTheAgent(t *testing.T) {
	socks, err := Listen(Config{UDP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMux(socks, nil, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.keys = newICEKeys()
	m.keys.put(watchKeys)
	agent, err := m.GetConn(watchKeys.local.ufrag, m.GetListenAddresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	at := localAddrPort(peer.LocalAddr())
	check := ourCheck(t, ice.AttrControlled(7))
	if _, err := agent.WriteTo(check, peer.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	m.deliver(m.newReader(), m.sockets[0], refusalOf(t, check, "guess"), at)
	m.deliver(m.newReader(), m.sockets[0], refusalOf(t, check, watchKeys.remote.password), netip.AddrPortFrom(at.Addr(), 9)) // from elsewhere
	m.deliver(m.newReader(), m.sockets[0], refusalOf(t, check, watchKeys.remote.password), at)
	buf := make([]byte, 1500)
	n, from, err := agent.ReadFrom(buf)
	if err != nil || localAddrPort(from) != at {
		t.Fatalf("from %v, %v; want %v", from, err, at)
	}
	mustForge(t, buf[:n])
	if !agent.(*muxConn).in.empty() {
		t.Error("the agent was given more than one request")
	}
	if _, err := agent.WriteTo(answerTo(t, buf[:n], stun.BindingSuccess), peer.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.WriteTo([]byte("media"), peer.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{string(check), "media"} {
		n, _, err := peer.ReadFrom(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("the peer got %q, %v; want %q", buf[:n], err, want)
		}
	}
}

func TestSDPCredentials(t *testing.T) {
	for _, tt := range []struct {
		name, sdp string
		want      iceCredentials
		ok        bool
	}{
		{"in the session", "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\nm=audio 9\r\n", iceCredentials{"u", "p"}, true},
		{"in each section", "v=0\nm=audio\na=ice-ufrag:u\na=ice-pwd:p\nm=video\na=ice-ufrag:u\na=ice-pwd:p\n", iceCredentials{"u", "p"}, true},
		{"no password", "v=0\r\na=ice-ufrag:u\r\n", iceCredentials{ufrag: "u"}, false},
		{"nothing", "", iceCredentials{}, false},
	} {
		if got, ok := sdpCredentials(tt.sdp); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, got, ok)
		}
	}
}

func FuzzRoleWatch(f *testing.F) {
	check := ourCheck(f, ice.AttrControlled(1))
	f.Add(check)
	f.Add(refusalOf(f, check, watchKeys.remote.password))
	f.Add(refusalOf(f, check, "guess"))
	f.Add([]byte{1, 0x11, 0, 4, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, p []byte) {
		w := newWatch()
		w.outgoing(check)
		if isBindingError(p) && w.refusal(p) != nil && !bytes.Equal(p[8:stunHeader], check[8:stunHeader]) {
			t.Error("accepted a 487 to a check that we did not send")
		}
		if pass, request := w.outgoing(p); !pass || request != nil {
			t.Errorf("sent %v, made up %d bytes", pass, len(request))
		}
	})
}
