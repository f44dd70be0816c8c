package turn

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/turn/v2"
)

// The pitfalls of pion/turn are tried on two subjects: a server as its README
// makes one, and ours. Each is a process of its own, since some of the pitfalls
// leave a process unusable.
const (
	bareEnv   = "SALLYPORT_TEST_SUBJECT"
	barePion  = "pion"
	bareOurs  = "ours"
	bareRealm = "example.com"
)

// subjectAddrs are what a subject listens on: "odd" has unusual addresses, "six"
// is UDP over IPv4 with relays on IPv6, "peer" echoes.
var subjectAddrs = []string{"udp", "tcp", "tls", "odd", "six", "peer"}

// TestSubject is not a test but the process: it serves until its standard input
// ends, and answers what is asked there.
func TestSubject(t *testing.T) {
	var s servant
	switch os.Getenv(bareEnv) {
	case barePion:
		s = servePion(t)
	case bareOurs:
		s = serveOurs(t)
	default:
		return
	}
	for _, name := range subjectAddrs {
		fmt.Printf("> %s\n", s.addr[name])
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		answer := 0
		switch in.Text() {
		case "allocations":
			answer = s.allocations()
		case "relays":
			answer = s.relays()
		case "cpu":
			answer = int(cpuTime(t) / time.Millisecond)
		case "stack":
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			answer = int(m.StackInuse)
		case "stop":
			s.stop()
		}
		fmt.Printf("> %d\n", answer)
	}
}

// A servant is a subject inside its process.
type servant struct {
	addr                map[string]string
	allocations, relays func() int
	stop                func()
}

// oddListener yields connections whose address is of a type of its own, as
// those of many wrappers are.
type oddListener struct{ net.Listener }

type oddConn struct{ net.Conn }

type oddAddr struct{ net.Addr }

func (l oddListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return oddConn{c}, nil
}

func (c oddConn) RemoteAddr() net.Addr { return oddAddr{c.Conn.RemoteAddr()} }

// counting is pion's usual generator with a counter.
type counting struct {
	turn.RelayAddressGeneratorStatic
	made *atomic.Int64
}

func (c *counting) AllocatePacketConn(network string, port int) (net.PacketConn, net.Addr, error) {
	c.made.Add(1)
	return c.RelayAddressGeneratorStatic.AllocatePacketConn(network, port)
}

func servePion(t *testing.T) servant {
	plain, secure, odd := listen(t), listen(t), listen(t)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	six, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go echo(peer)
	made := new(atomic.Int64)
	relay := &counting{turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}, made}
	relay6 := &counting{turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv6loopback, Address: "::1"}, made}
	may := func(_ net.Addr, ip net.IP) bool { return ip.IsLoopback() }
	s, err := turn.NewServer(turn.ServerConfig{
		Realm: bareRealm,
		AuthHandler: func(username, realm string, _ net.Addr) ([]byte, bool) {
			expiry, _, ok := splitUsername(username)
			if !ok || time.Now().After(expiry) {
				return nil, false
			}
			return turn.GenerateAuthKey(username, realm, passwordOf([]byte(testSecret), username)), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{
			{PacketConn: udp, RelayAddressGenerator: relay, PermissionHandler: may},
			{PacketConn: six, RelayAddressGenerator: relay6, PermissionHandler: may},
		},
		ListenerConfigs: []turn.ListenerConfig{
			{Listener: plain, RelayAddressGenerator: relay, PermissionHandler: may},
			{Listener: tls.NewListener(secure, testCertificate(t)), RelayAddressGenerator: relay, PermissionHandler: may},
			{Listener: oddListener{odd}, RelayAddressGenerator: relay, PermissionHandler: may},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return servant{
		addr: map[string]string{
			"udp": udp.LocalAddr().String(), "six": six.LocalAddr().String(), "peer": peer.LocalAddr().String(),
			"tcp": plain.Addr().String(), "tls": secure.Addr().String(), "odd": odd.Addr().String(),
		},
		allocations: s.AllocationCount,
		relays:      func() int { return int(made.Load()) },
		stop:        func() { _ = s.Close() },
	}
}

func serveOurs(t *testing.T) servant {
	odd := listen(t) // served by a second server, for the rig's has its listeners
	r := newRig(t, func(c *Config) { c.Realm = bareRealm }, func(s *Server) {
		s.patience = time.Second
		s.hairpin.ipv6 = testRelayV6
	})
	ctx, cancel := context.WithCancel(t.Context())
	other, err := New(Config{Realm: bareRealm, RelayTo: []string{"sfu"}}, r.hairpin, Options{Secrets: [][]byte{[]byte(testSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = other.Run(ctx, []net.Listener{oddListener{odd}}, nil) }()
	live := func() (n int) {
		for _, s := range []*Server{r.server, other} {
			for _, k := range s.Status().Allocations {
				n += k
			}
		}
		return n
	}
	r.addr["odd"], r.addr["six"], r.addr["peer"] = odd.Addr().String(), r.addr["udp"], testNamed.String()
	return servant{
		addr: r.addr, allocations: live,
		relays: func() int {
			r.hairpin.mu.Lock()
			defer r.hairpin.mu.Unlock()
			return int(r.hairpin.last) - startLabel + 1
		},
		stop: func() { cancel(); r.stop() },
	}
}

// A subject is seen from outside.
type subject struct {
	*rig // for its talkers
	peer netip.AddrPort

	in    *bufio.Writer
	noise atomic.Int64 // lines of log
	said  chan string
}

// newSubject starts a process.
func newSubject(t *testing.T, kind string) *subject {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSubject$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), bareEnv+"="+kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &subject{rig: &rig{T: t, addr: make(map[string]string)}, in: bufio.NewWriter(in), said: make(chan string, 16)}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if text, ok := strings.CutPrefix(lines.Text(), "> "); ok {
				s.said <- text
			} else {
				s.noise.Add(1)
			}
		}
	}()
	for _, name := range subjectAddrs {
		s.addr[name] = s.hear()
	}
	s.peer = netip.MustParseAddrPort(s.addr["peer"])
	return s
}

func (s *subject) hear() string {
	s.Helper()
	select {
	case text := <-s.said:
		return text
	case <-time.After(testWait):
		s.Fatal("the process does not answer")
		return ""
	}
}

// ask returns what the process says of itself.
func (s *subject) ask(what string) (n int) {
	s.Helper()
	fmt.Fprintln(s.in, what)
	if err := s.in.Flush(); err != nil {
		s.Fatal(err)
	}
	if _, err := fmt.Sscan(s.hear(), &n); err != nil {
		s.Fatal(err)
	}
	return n
}
