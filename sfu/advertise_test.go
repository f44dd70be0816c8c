package sfu

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// answers is an asker that knows the answers: hosts by name, reflexive addresses
// by server and local address. What it does not know fails.
type answers struct {
	mu        sync.Mutex // guards the following
	hosts     map[string][]netip.Addr
	reflex    map[string]netip.Addr
	questions []string
}

func (a *answers) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.questions = append(a.questions, host)
	if ips, ok := a.hosts[host]; ok {
		return ips, nil
	}
	return nil, errors.New("no such host")
}

func (a *answers) reflexive(_ context.Context, server string, local netip.Addr) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.questions = append(a.questions, server+" "+local.String())
	if ip, ok := a.reflex[server+" "+local.String()]; ok {
		return ip, nil
	}
	return netip.Addr{}, errors.New("no answer")
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func mapping(pairs ...string) map[netip.Addr]netip.Addr {
	m := map[netip.Addr]netip.Addr{}
	for _, p := range pairs {
		ext, in, _ := strings.Cut(p, "/")
		m[netip.MustParseAddr(in)] = netip.MustParseAddr(ext)
	}
	return m
}

func TestAdvertise(t *testing.T) {
	const v4, second, lo, v6 = "192.0.2.10", "192.0.2.11", "127.0.0.1", "2001:db8::10"
	known := &answers{
		hosts: map[string][]netip.Addr{
			"both.example":     addrs("203.0.113.9", "203.0.113.8", "2001:db8::9"),
			"four.example":     addrs("203.0.113.7"),
			"loopback.example": addrs("127.0.1.1"),
		},
		reflex: map[string]netip.Addr{
			"stun.example:3478 " + v4:      netip.MustParseAddr("203.0.113.5"),
			"other.example:3478 " + v4:     netip.MustParseAddr("203.0.113.5"),
			"other.example:3478 " + lo:     netip.MustParseAddr("203.0.113.6"),
			"wrong.example:3478 " + v4:     netip.MustParseAddr("2001:db8::5"),
			"[2001:db8::1]:3478 " + second: netip.MustParseAddr("203.0.113.4"),
		},
	}
	for _, tt := range []struct {
		name      string
		advertise []string
		local     []netip.Addr
		want      map[netip.Addr]netip.Addr
		useful    []netip.Addr // nil: all
	}{
		{"nothing", nil, addrs(v4), nil, nil},
		{"one for one", []string{"203.0.113.5"}, addrs(lo), mapping("203.0.113.5/" + lo), nil},
		{"one for all but loopback", []string{"203.0.113.5"}, addrs(v4, second, lo), mapping("203.0.113.5/"+v4, "203.0.113.5/"+second), addrs(v4, second)},
		{"other family", []string{"2001:db8::1"}, addrs(v4), mapping(), []netip.Addr{}},
		{"pairs", []string{"203.0.113.5/192.0.2.10"}, addrs(v4, second), mapping("203.0.113.5/" + v4), addrs(v4)},
		{"a name, the lowest address of each family", []string{"both.example"}, addrs(v4, v6), mapping("203.0.113.8/"+v4, "2001:db8::9/"+v6), nil},
		{"a name without IPv6", []string{"four.example"}, addrs(v4, v6), mapping("203.0.113.7/" + v4), nil},
		{"a name in a pair", []string{"four.example/192.0.2.11"}, addrs(v4, second), mapping("203.0.113.7/" + second), addrs(second)},
		{"a name nobody knows", []string{"none.example"}, addrs(v4), mapping(v4 + "/" + v4), nil},
		{"a name that is loopback", []string{"loopback.example"}, addrs(v4), mapping(v4 + "/" + v4), nil},
		{"a name that is loopback, as we are", []string{"loopback.example"}, addrs(lo), mapping("127.0.1.1/" + lo), nil},
		{"STUN", []string{"stun:stun.example:3478"}, addrs(v4, lo), mapping("203.0.113.5/" + v4), addrs(v4)},
		{"STUN that knows one of two", []string{"stun:stun.example:3478"}, addrs(v4, second), mapping("203.0.113.5/"+v4, second+"/"+second), nil},
		{"STUN, two servers", []string{"stun:stun.example:3478", "stun:[2001:db8::1]:3478"}, addrs(v4, second), mapping("203.0.113.5/"+v4, "203.0.113.4/"+second), nil},
		{"STUN, loopback only", []string{"stun:other.example:3478"}, addrs(lo), mapping("203.0.113.6/" + lo), nil},
		{"STUN that answers nonsense", []string{"stun:wrong.example:3478"}, addrs(v4), mapping(v4 + "/" + v4), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := newAddressBook(Config{Advertise: tt.advertise, IPv6: true}, tt.local)
			if err != nil {
				t.Fatal(err)
			}
			b.ask = known
			b.discover(context.Background(), true)
			if diff := cmp.Diff(tt.want, b.state.Load().now, sameAddr); diff != "" {
				t.Errorf("mapping (-want +got):\n%s", diff)
			}
			if tt.useful == nil {
				tt.useful = tt.local
			}
			for _, l := range tt.local {
				if got := b.useful(l); got != slices.Contains(tt.useful, l) {
					t.Errorf("useful %s: %v", l, got)
				}
			}
		})
	}
}

func TestAdvertiseKeepsWhatItKnew(t *testing.T) {
	asked := &answers{hosts: map[string][]netip.Addr{"a.example": addrs("203.0.113.9")}, reflex: map[string]netip.Addr{}}
	b, err := newAddressBook(Config{Advertise: []string{"a.example"}}, addrs("192.0.2.10"))
	if err != nil {
		t.Fatal(err)
	}
	b.ask = asked
	local := netip.MustParseAddr("192.0.2.10")
	step := func(answer []netip.Addr, want string, changes, fails bool) {
		t.Helper()
		asked.hosts = map[string][]netip.Addr{}
		if answer != nil {
			asked.hosts["a.example"] = answer
		}
		if changed := b.discover(context.Background(), true); changed != changes {
			t.Errorf("changed %v, want %v", changed, changes)
		}
		if got := b.advertised(local).String(); got != want {
			t.Errorf("advertised %s, want %s", got, want)
		}
		if err := b.trouble(); (err != nil) != fails {
			t.Errorf("trouble: %v", err)
		}
	}
	step(nil, "192.0.2.10", false, true)
	step(addrs("203.0.113.9"), "203.0.113.9", true, false)
	step(addrs("203.0.113.1", "203.0.113.9"), "203.0.113.9", false, false) // still among them
	step(nil, "203.0.113.9", false, true)
	step(addrs("203.0.113.1"), "203.0.113.1", true, false)
	if got := b.before(local).String(); got != "203.0.113.9" {
		t.Errorf("before %s", got)
	}
}

func TestParseAdvertisement(t *testing.T) {
	for entry, ok := range map[string]bool{
		"203.0.113.5": true, "2001:db8::1": true, "chat.example.com": true, "chat.example.com.": true, "localhost": true, "media_1.example": true,
		"203.0.113.5/10.0.0.1": true, "chat.example.com/10.0.0.1": true, "2001:db8::1/fd00::1": true, "chat.example.com/fd00::1": true,
		"stun:stun.example.com:3478": true, "stun:203.0.113.5:3478": true, "stun:[2001:db8::1]:3478": true,
		"": false, "203.0.113.256": false, "203.0.113": false, "0.0.0.0": false, "224.0.0.1": false, "fe80::1%eth0": false, "203.0.113.5/2001:db8::1": false,
		"203.0.113.5/lan": false, "/10.0.0.1": false, "a b": false, "-a.example": false, "a..b": false, "http://a": false, "a:1": false, strings.Repeat("a", 64): false,
		"stun:": false, "stun:a": false, "stun:a:0": false, "stun:a:65536": false, "stun:a:x": false, "stun:/a:1": false, "stun:0.0.0.0:1": false, "turn:a:1": false,
	} {
		if _, err := parseAdvertisement(entry); (err == nil) != ok {
			t.Errorf("%q: %v", entry, err)
		}
	}
	errs, mixed := CheckAdvertise([]string{"203.0.113.5", "a.example/10.0.0.1", "x y", "2001:db8::1"}, false)
	if errs[0] != nil || errs[1] != nil || errs[2] == nil || errs[3] == nil || !mixed {
		t.Errorf("%v, mixed %v", errs, mixed)
	}
	if _, mixed := CheckAdvertise([]string{"203.0.113.5", "a.example", "b c"}, false); mixed {
		t.Error("names and addresses are one form")
	}
}

func FuzzParseAdvertisement(f *testing.F) {
	for _, s := range []string{"203.0.113.5", "a.example/10.0.0.1", "stun:[::1]:3478", "stun:a.b:1", "/", "::/::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAdvertisement(s)
		if err != nil {
			return
		}
		said := 0
		for _, set := range []bool{a.external.IsValid(), a.host != "", a.server != ""} {
			if set {
				said++
			}
		}
		if said != 1 {
			t.Errorf("%q says %d things: %+v", s, said, a)
		}
	})
}

// A stunServer answers on loopback, first with what is no answer.
func stunServer(t *testing.T, answer netip.Addr) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = c.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 1500)
		for lost := true; ; lost = false {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: buf[:n]}
			if lost || m.Decode() != nil {
				continue // the first request is lost
			}
			other := stun.MustBuild(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(1, 2, 3, 4), Port: 1})
			for _, p := range [][]byte{[]byte("garbage"), other.Raw, m.Raw,
				stun.MustBuild(m, stun.BindingSuccess).Raw,
				stun.MustBuild(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: answer.AsSlice(), Port: 1}).Raw} {
				_, _ = c.WriteTo(p, from)
			}
		}
	})
	return "stun:" + c.LocalAddr().String()
}

func TestSTUNDiscovery(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	server := stunServer(t, netip.MustParseAddr("203.0.113.77"))
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0", Advertise: []string{"stun:" + silent.LocalAddr().String(), server}})
	if err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	for _, a := range append(socks.Addresses(), socks.TCPAddresses()...) {
		if want := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.77"), a.Local.Port()); a.Advertised != want {
			t.Errorf("advertised %s, want %s", a.Advertised, want)
		}
	}
	if err := socks.book.trouble(); err != nil {
		t.Error(err)
	}
}

func TestSTUNWithoutAnswerIsBounded(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	if _, err := (network{}).reflexive(ctx, silent.LocalAddr().String(), netip.MustParseAddr("127.0.0.1")); err == nil || ctx.Err() == nil {
		t.Errorf("ended early or well: %v", err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(patience))
	for range 2 { // there is a retransmission
		if _, _, err := silent.ReadFrom(make([]byte, 100)); err != nil {
			t.Error(err)
		}
	}
}

func FuzzMappedAddress(f *testing.F) {
	id := [stun.TransactionIDSize]byte{1, 2, 3}
	f.Add(stun.MustBuild(stun.NewTransactionIDSetter(id), stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(1, 2, 3, 4), Port: 1}).Raw)
	f.Add(stun.MustBuild(stun.NewTransactionIDSetter(id), stun.BindingSuccess).Raw)
	f.Fuzz(func(t *testing.T, p []byte) {
		if ip, ok := mappedAddress(p, id); ok && !ip.IsValid() {
			t.Error("no address, but ok")
		}
	})
}

// Names are asked every minute, STUN servers every three; after a failure both
// soon, but not for ever.
func TestAddressesAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := &answers{hosts: map[string][]netip.Addr{"a.example": addrs("203.0.113.9")}}
		b, err := newAddressBook(Config{Advertise: []string{"a.example", "stun:s.example:1"}}, addrs("192.0.2.10"))
		if err != nil {
			t.Fatal(err)
		}
		b.ask = asked
		asked.reflex = map[string]netip.Addr{"s.example:1 192.0.2.10": netip.MustParseAddr("203.0.113.9")}
		b.discover(t.Context(), true)
		met, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		log := slog.New(slog.NewTextHandler(&lines, nil))
		changes := 0
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.keep(ctx, log, met, func() { changes++ }) })
		after := func(d time.Duration) (names, servers int) {
			asked.mu.Lock()
			asked.questions = nil
			asked.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			asked.mu.Lock()
			defer asked.mu.Unlock()
			for _, q := range asked.questions {
				if q == "a.example" {
					names++
				} else {
					servers++
				}
			}
			return names, servers
		}
		if names, servers := after(9*time.Minute + time.Second); names != 9 || servers != 3 {
			t.Errorf("in 9 minutes: names %d times, STUN servers %d, want 9 and 3", names, servers)
		}
		asked.mu.Lock()
		asked.hosts, asked.reflex = nil, nil
		asked.mu.Unlock()
		if names, servers := after(30 * time.Minute); names < 30 || names > 34 || servers < 10 || servers > 15 {
			t.Errorf("in 30 minutes of failure: names %d times, STUN servers %d", names, servers)
		}
		if got := strings.Count(lines.String(), "level=WARN"); got > 2 || changes != 0 {
			t.Errorf("%d warnings, %d changes:\n%s", got, changes, lines.String())
		}
		asked.mu.Lock()
		asked.hosts = map[string][]netip.Addr{"a.example": addrs("203.0.113.10")}
		asked.reflex = map[string]netip.Addr{"s.example:1 192.0.2.10": netip.MustParseAddr("203.0.113.10")}
		asked.mu.Unlock()
		after(3 * time.Minute)
		if got := b.advertised(netip.MustParseAddr("192.0.2.10")).String(); got != "203.0.113.10" || changes == 0 {
			t.Errorf("advertised %s after %d changes", got, changes)
		}
		cancel()
		wg.Wait()
	})
}

// While calls go on what is advertised changes: those calls stay, new sessions
// get the new address, and whoever must know is told.
func TestAddressChangesWhileRunning(t *testing.T) {
	told := make(chan []Address, 1)
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0", Advertise: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	book := socks.book
	asked := &answers{hosts: map[string][]netip.Addr{"a.example": addrs("127.0.0.1")}}
	book.entries, book.ask = []advertisement{{host: "a.example"}}, asked
	if book.discover(context.Background(), true) {
		t.Fatal("127.0.0.1 by name is another address")
	}
	srv, err := New(socks, Options{Readvertised: func(a []Address) { told <- a }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })

	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{tcp: true})
	a.publish(webrtc.MimeTypeOpus, "a")
	h := b.hears(classVoice, "alpha")

	asked.mu.Lock()
	asked.hosts["a.example"] = addrs("127.0.0.2")
	asked.mu.Unlock()
	if !book.discover(ctx, true) {
		t.Fatal("nothing changed")
	}
	srv.readvertise()
	if got := (<-told)[0].Advertised.Addr().String(); got != "127.0.0.2" {
		t.Errorf("told of %s", got)
	}
	for _, g := range []*guest{a, b} {
		if _, err := srv.mux.GetConn("stale-"+g.name, net.UDPAddrFromAddrPort(socks.Addresses()[0].Local)); err != nil {
			t.Errorf("an agent that listed the addresses before the change: %v", err)
		}
	}
	n := b.count(h)
	until(t, "media after the change", func() bool { return b.count(h) > n+20 })
	a.publish(webrtc.MimeTypeOpus, "a2") // negotiates

	c := newGuest(t, "gamma", guestOptions{})
	sess, err := srv.Join(Member{Group: "group", Call: "call", User: "u", Session: "gamma"}, c)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	sess.Describe(wire.Description{Type: "offer", SDP: offer.SDP})
	answer := <-c.answers
	found := map[string]bool{}
	for _, line := range candidateLine.FindAllString(answer.SDP, -1) {
		if f := strings.Fields(line); len(f) > 5 {
			found[f[2]+" "+f[4]] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"udp 127.0.0.2": true, "tcp 127.0.0.2": true}, found); diff != "" {
		t.Errorf("candidates of a new session (-want +got):\n%s\n%s", diff, slices.Collect(maps.Keys(found)))
	}
	sess.Leave()
}
