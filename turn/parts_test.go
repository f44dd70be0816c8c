package turn

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCredentials(t *testing.T) {
	for _, tc := range []struct{ secret, user, username, password string }{
		{"s3cr3t", "alice", "1700000000:alice", "81mjszbESz91Gv1n2xG/SVLX+uY="},
	} {
		username, password := Credentials([]byte(tc.secret), tc.user, time.Unix(1700000000, 0))
		if username != tc.username || password != tc.password {
			t.Errorf("got %q, %q, want %q, %q", username, password, tc.username, tc.password)
		}
	}
}

func TestSplitUsername(t *testing.T) {
	for _, tc := range []struct {
		username, user string
		expiry         int64
		ok             bool
	}{
		{"1700000000:alice", "alice", 1700000000, true},
		{"1700000000:a:b", "a:b", 1700000000, true},
		{"1700000000:", "1700000000:", 1700000000, true},
		{"1700000000", "1700000000", 1700000000, true},
		{"alice:1700000000", "", 0, false}, {"", "", 0, false}, {":", "", 0, false}, {"-5:alice", "", 0, false},
		{"99999999999999999999:alice", "", 0, false}, {"0x10:alice", "", 0, false},
	} {
		expiry, user, ok := splitUsername(tc.username)
		if ok != tc.ok || ok && (user != tc.user || expiry.Unix() != tc.expiry) {
			t.Errorf("%q: %v, %q, %v", tc.username, expiry, user, ok)
		}
	}
}

func TestNonces(t *testing.T) {
	n, now := newNonces(), time.Unix(1700000000, 0)
	here, there := netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.1:1001")
	nonce := n.issue(here, now)
	if len(nonce) != nonceLength {
		t.Errorf("nonce has %d characters, want %d", len(nonce), nonceLength)
	}
	forged := append([]byte(nil), nonce...)
	forged[3] ^= 1
	for _, tc := range []struct {
		name  string
		nonce []byte
		from  netip.AddrPort
		at    time.Time
		want  bool
	}{
		{"fresh", nonce, here, now, true},
		{"an hour old", nonce, here, now.Add(nonceLifetime), true},
		{"older", nonce, here, now.Add(nonceLifetime + time.Second), false},
		{"other port", nonce, there, now, false},
		{"other address", nonce, netip.MustParseAddrPort("192.0.2.2:1000"), now, false},
		{"forged", forged, here, now, false},
		{"short", nonce[1:], here, now, false},
		{"not base64", []byte("!!!!!!!!!!!!!!!!"), here, now, false},
		{"ours, of another run", newNonces().issue(here, now), here, now, false},
	} {
		if got := n.valid(tc.nonce, tc.from, tc.at); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	c, now := newChallenges(), time.Unix(1700000000, 0)
	a := netip.MustParseAddr("192.0.2.1")
	allowed := func(ip netip.Addr) (n int) {
		for range 2 * challengeBurst {
			if c.allow(ip, now) {
				n++
			}
		}
		return n
	}
	if n := allowed(a); n != challengeBurst {
		t.Errorf("%d at once, want %d", n, challengeBurst)
	}
	now = now.Add(time.Second)
	if n := allowed(a); n != challengeRate {
		t.Errorf("%d a second later, want %d", n, challengeRate)
	}
	one, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:2")
	if n := allowed(one) + allowed(other); n != challengeBurst {
		t.Errorf("%d for one /64, want %d", n, challengeBurst)
	}
	// And all together, however many they are or pretend to be.
	now = now.Add(time.Minute)
	answered := 0
	for i := range 3 * answerBurst {
		if c.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now) {
			answered++
		}
	}
	if answered != answerBurst {
		t.Errorf("%d answers to forged addresses at once, want %d", answered, answerBurst)
	}
	now = now.Add(time.Second)
	if !c.allow(a, now) {
		t.Error("no answer a second after the flood")
	}
}

func TestLobby(t *testing.T) {
	l, a := newLobby(), netip.MustParseAddr("192.0.2.1")
	for i := range lobbyPerNetwork {
		if !l.enter(a) {
			t.Fatalf("no room for number %d", i)
		}
	}
	if l.enter(a) {
		t.Error("room for one more of this address")
	}
	if !l.enter(netip.MustParseAddr("192.0.2.2")) {
		t.Error("no room for another address")
	}
	l.leave(a)
	if !l.enter(a) {
		t.Error("a place did not become free")
	}
	for i := range lobbySize {
		l.enter(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if l.total != lobbySize || l.enter(netip.MustParseAddr("192.0.2.3")) {
		t.Errorf("%d in a lobby of %d", l.total, lobbySize)
	}
}

// noInterfaces stands for ownAddresses where this machine may have any.
func noInterfaces() (map[netip.Addr]struct{}, error) { return make(map[netip.Addr]struct{}), nil }

func TestPeers(t *testing.T) {
	p, err := newPeers([]string{"127.0.0.1:3480", "10.1.2.3:8443", "10.0.0.0/8:9000", "0.0.0.0/0:5000", "[2001:db8::/32]:6000", "::/0:7000", "[::1]:8000"})
	if err != nil {
		t.Fatal(err)
	}
	p.interfaces = noInterfaces
	if p.allows(netip.MustParseAddrPort("10.1.2.4:9000")) {
		t.Error("a network is open before it is known which addresses are ours")
	}
	if err := p.lookAround(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		peer string
		want bool
	}{
		{"127.0.0.1:3480", true}, {"127.0.0.1:3481", false}, {"10.1.2.3:8443", true}, {"10.1.2.3:9000", true}, {"10.1.2.3:9001", false},
		{"11.1.2.3:9000", false}, {"8.8.8.8:5000", true}, {"8.8.8.8:5001", false}, {"[2001:db8::1]:6000", true}, {"[2001:db9::1]:6000", false},
		{"[2606::1]:7000", true}, {"[::1]:8000", true}, {"[::1]:7000", false},
		// special ranges are not in a range, however wide
		{"127.0.0.1:5000", false}, {"169.254.169.254:5000", false}, {"0.0.0.0:5000", false}, {"224.0.0.1:5000", false}, {"255.255.255.255:5000", false},
		{"[::ffff:8.8.8.8]:7000", false}, {"[64:ff9b::808:808]:7000", false}, {"[2002:808:808::]:7000", false}, {"[fe80::1]:7000", false},
		{"[ff02::1]:7000", false}, {"[::]:7000", false}, {"[fd00:ec2::254]:7000", false},
	} {
		if got := p.allows(netip.MustParseAddrPort(tc.peer)); got != tc.want {
			t.Errorf("%s: %v", tc.peer, got)
		}
	}
	for ip, want := range map[string]bool{"127.0.0.1": true, "127.0.0.2": false, "10.1.1.1": true, "::1": true, "fe80::1": false} {
		if got := p.allowsIP(netip.MustParseAddr(ip)); got != want {
			t.Errorf("any port of %s: %v", ip, got)
		}
	}
	resolved := map[netip.AddrPort]struct{}{}
	for _, a := range []string{"127.0.0.1:1", "10.1.2.3:1", "10.1.2.4:1", "9.9.9.9:1"} {
		resolved[netip.MustParseAddrPort(a)] = struct{}{}
	}
	p.resolved.Store(&resolved)
	if p.allows(netip.MustParseAddrPort("127.0.0.1:1")) || !p.allows(netip.MustParseAddrPort("9.9.9.9:1")) {
		t.Error("a name leads to loopback, or not to a public address")
	}
	// From now on one of them is this machine.
	p.further = func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")}
	}
	if err := p.lookAround(); err != nil {
		t.Fatal(err)
	}
	for peer, want := range map[string]bool{
		"10.1.2.3:9000": false, "10.1.2.3:1": false, "10.1.2.3:5000": false, "[2001:db8::1]:6000": false, "[2001:db8::1%1]:6000": false,
		"10.1.2.3:8443": true, "10.1.2.4:9000": true, "10.1.2.4:1": true, "[2001:db8::2]:6000": true,
	} {
		if got := p.allows(netip.MustParseAddrPort(peer)); got != want {
			t.Errorf("%s, where 10.1.2.3 and 2001:db8::1 are ours: %v", peer, got)
		}
	}
}

func TestCheckRelayTo(t *testing.T) {
	for _, entry := range []string{"sfu", "rtcd.example.com:8443", "192.0.2.1:1", "192.0.2.0/24:65535", "[2001:db8::1]:8443", "[2001:db8::/32]:8443"} {
		if err := CheckRelayTo(entry); err != nil {
			t.Errorf("%q: %v", entry, err)
		}
	}
	for entry, want := range map[string]string{
		"":                   `read relay_to entry "": want "sfu", host:port or CIDR:port`,
		"SFU":                `read relay_to entry "SFU": want "sfu", host:port or CIDR:port`,
		"192.0.2.1":          `read relay_to entry "192.0.2.1": want "sfu", host:port or CIDR:port`,
		":8443":              `read relay_to entry ":8443": host is missing`,
		"192.0.2.1:0":        `read relay_to entry "192.0.2.1:0": port must be 1 to 65535`,
		"192.0.2.1:65536":    `read relay_to entry "192.0.2.1:65536": port must be 1 to 65535`,
		"2001:db8:::1:x":     `read relay_to entry "2001:db8:::1:x": port must be 1 to 65535`,
		"http://a.example:1": `read relay_to entry "http://a.example:1": parse network`,
		"a b:1":              `read relay_to entry "a b:1": host is neither a name nor an address`,
	} {
		err := CheckRelayTo(entry)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", entry, err, want)
		}
	}
}

func TestQuota(t *testing.T) {
	q := newQuota(3, 2)
	for _, step := range []struct {
		user string
		want error
	}{{"a", nil}, {"a", nil}, {"a", errUserQuota}, {"b", nil}, {"c", errTotalQuota}} {
		if err := q.acquire(step.user); err != step.want {
			t.Errorf("%s: %v, want %v", step.user, err, step.want)
		}
	}
	for _, u := range []string{"a", "b", "a"} {
		q.release(u)
	}
	if n, users := q.count(); n != 0 || users != 0 || len(q.users) != 0 {
		t.Errorf("%d allocations, %d users left", n, users)
	}
	unlimited := newQuota(0, 0)
	for range 100 {
		if err := unlimited.acquire("a"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	h := NewHairpin(testRelayIPs, nil)
	good := Options{Secrets: [][]byte{[]byte("s")}}
	for name, tc := range map[string]struct {
		cfg Config
		o   Options
	}{
		"no secret":    {Config{}, Options{}},
		"empty secret": {Config{}, Options{Secrets: [][]byte{[]byte("s"), {}}}},
		"bad peer":     {Config{RelayTo: []string{"everybody"}}, good},
		"bad limit":    {Config{MaxAllocations: -1}, good},
		"long realm":   {Config{Realm: strings.Repeat("x", MaxRealm+1)}, good},
	} {
		if _, err := New(tc.cfg, h, tc.o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{}, h, good); err != nil {
		t.Errorf("zero configuration: %v", err)
	}
}
