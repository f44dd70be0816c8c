package turn

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

func TestWatch(t *testing.T) {
	w, now := newWatch(), time.Now()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	for i := range 2 * maxSources {
		want := min(i+1, maxSources)
		if n, fresh := w.saw("a", at(i), now); n != want || fresh != (i < maxSources) {
			t.Fatalf("address %d: %d, %v", i, n, fresh)
		}
	}
	if n, fresh := w.saw("a", at(0), now); n != maxSources || fresh {
		t.Errorf("again: %d, %v", n, fresh)
	}
	for _, ip := range []string{"2001:db8::1", "2001:db8::2"} { // one customer
		if n, _ := w.saw("b", netip.MustParseAddr(ip), now); n != 1 {
			t.Errorf("%s: %d", ip, n)
		}
	}
	for i := range maxWatched + 100 {
		w.saw(fmt.Sprint(i), at(i), now)
	}
	if len(w.users) != maxWatched {
		t.Errorf("%d credentials are watched", len(w.users))
	}
	_, release := w.hold("holder", now)
	w.saw("late", at(1), now.Add(watchFor+time.Second))
	if len(w.users) != 2 {
		t.Errorf("%d credentials are watched an hour later, want the new one and who still has an allocation", len(w.users))
	}
	release()
	w.forgetOld(time.Now().Add(3 * watchFor))
	if len(w.users) != 0 {
		t.Errorf("%d credentials are watched an hour after that", len(w.users))
	}
}

// Those that stand out are told of, the worst first, and not too many.
func TestSuspects(t *testing.T) {
	w, now := newWatch(), time.Now()
	use := func(name string, addresses int, unanswered int64) {
		u, _ := w.hold(name, now)
		u.unanswered.Store(unanswered)
		for i := range addresses {
			w.saw(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), now)
		}
	}
	use("innocent", sharedFrom-1, astrayFrom-1)
	use("sold", 40, 0)
	for i := range 2 * maxSuspects {
		use(fmt.Sprint("astray ", i), 1, astrayFrom+int64(i))
	}
	use("shared", sharedFrom, 0)
	got := w.suspects()
	if len(got) != maxSuspects || got[0].Credential != fmt.Sprint("astray ", 2*maxSuspects-1) || got[0].Allocations != 1 || !got[0].Last.Equal(now) {
		t.Fatalf("%d suspects, first %+v", len(got), got[0])
	}
	if a, b := got[maxSuspects/2], got[maxSuspects/2+1]; a.Credential != "sold" || a.Addresses != 40 || b.Credential != "shared" {
		t.Errorf("%+v, %+v, want those with most addresses", a, b)
	}
	for _, s := range got {
		if s.Credential == "innocent" {
			t.Error("who does nothing is among them")
		}
	}
}

// What goes to another media server counts as long as that says nothing.
func TestAbuseOfOutsidePeers(t *testing.T) {
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	to := peer.LocalAddr()
	r := newRig(t, func(c *Config) { c.RelayTo = []string{to.String()} })
	relay := r.pionClient("udp", "alice")
	packet, buf := make([]byte, 1000), make([]byte, 1500)
	suspect := func() (s Suspect) {
		for _, s = range r.server.Status().Suspects {
		}
		return s
	}
	exchange := func(packets int, answer bool) {
		for range packets {
			if _, err := relay.WriteTo(packet, to); err != nil {
				t.Fatal(err)
			}
			_ = peer.SetReadDeadline(time.Now().Add(testWait))
			_, from, err := peer.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if answer {
				_, _ = peer.WriteTo([]byte("yes"), from)
				_ = relay.SetReadDeadline(time.Now().Add(testWait))
				if _, _, err := relay.ReadFrom(buf); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	exchange(astrayFrom/len(packet)+1, false)
	eventually(t, testWait, "what the peer has got is counted", func() bool { return suspect().Unanswered >= astrayFrom })
	silent := suspect()
	if silent.Unanswered < astrayFrom || silent.Allocations != 1 || silent.Addresses != 1 {
		t.Errorf("%+v of a peer that says nothing", silent)
	}
	exchange(1, true)
	before := suspect().Unanswered
	exchange(handoffEvery, true)
	if got := suspect().Unanswered; got != before {
		t.Errorf("%d bytes more of a peer that answers", got-before)
	}
}

// A credential that many use shows, and so does media that goes nowhere.
func TestAbuseShows(t *testing.T) {
	r := newRig(t, nil)
	for range sharedFrom {
		r.talk("udp", "alice").allocate() // from one address: nothing to see
	}
	if n := r.total("shared_credentials_total"); n != 0 {
		t.Errorf("%v shared credentials", n)
	}
	username, _ := Credentials([]byte(testSecret), "bob", time.Now().Add(time.Hour))
	for i := range sharedFrom + 3 {
		r.server.watchUse(username, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	if n, most := r.total("shared_credentials_total"), r.total("credential_addresses_max"); n != 1 || most != sharedFrom+3 {
		t.Errorf("%v shared credentials, most addresses %v", n, most)
	}

	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	relay := testRelay(t, h, 0)
	unanswered := func() float64 { return testCounter(t, relay.metrics.unanswered) }
	for range 2 {
		if _, err := relay.WriteTo(make([]byte, 100), net.UDPAddrFromAddrPort(testNamed)); err != nil {
			t.Fatal(err)
		}
	}
	if n := unanswered(); n != 200 {
		t.Errorf("%v bytes that nobody answered, want 200", n)
	}
	if _, err := h.Conns()[0].WriteTo([]byte("answer"), relay.addr); err != nil {
		t.Fatal(err)
	}
	if _, err := relay.WriteTo(make([]byte, 100), net.UDPAddrFromAddrPort(testNamed)); err != nil {
		t.Fatal(err)
	}
	if n := unanswered(); n != 200 {
		t.Errorf("%v bytes after the answer", n)
	}

	// The call ends, and he goes on.
	send := func(packets int) {
		for range packets {
			_, _ = relay.WriteTo(make([]byte, 100), net.UDPAddrFromAddrPort(testNamed))
		}
	}
	send(2 * handoffEvery) // noticed now
	if n := unanswered(); n != 200 {
		t.Errorf("%v bytes in a pause", n)
	}
	relay.heard.Add(-int64(silence + time.Second))
	send(2 * handoffEvery)
	if n := unanswered(); n < 200+100*handoffEvery {
		t.Errorf("%v bytes after the call", n)
	}
	_, _ = h.Conns()[0].WriteTo([]byte("answer"), relay.addr) // another one
	before := unanswered()
	send(2 * handoffEvery)
	if n := unanswered(); n != before {
		t.Errorf("%v bytes in the next call", n-before)
	}
}

// How long packets wait for the SFU is measured, now and then.
func TestHandoffIsMeasured(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	relay, conn, buf := testRelay(t, h, 0), h.Conns()[0], make([]byte, 100)
	for range 3 * handoffEvery {
		_, _ = relay.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(testNamed))
		if _, _, err := conn.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	}
	var m dto.Metric
	if err := relay.metrics.handoff.Write(&m); err != nil {
		t.Fatal(err)
	}
	if got := m.GetHistogram(); got.GetSampleCount() != 3 || got.GetSampleSum() <= 0 || got.GetSampleSum() > 1 {
		t.Errorf("%d measured, %v s", got.GetSampleCount(), got.GetSampleSum())
	}
}
