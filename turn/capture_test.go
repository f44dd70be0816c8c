package turn

import (
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Addresses in the namespace of giveWayOut.
const (
	outside   = "198.18.0.1" // ours
	outside6  = "2001:db8:f::1"
	neighbour = "203.0.113.200" // anybody's, behind the default route
)

// giveWayOut gives the namespace we are in an interface with a default route,
// behind which nobody is: what is sent anywhere can be seen there.
func giveWayOut(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"link add out type veth peer name wall", "link set wall up", "link set out up",
		"addr add " + outside + "/24 broadcast + dev out", "neigh add 198.18.0.2 lladdr 02:00:00:00:00:01 dev out", "route add default via 198.18.0.2",
		"-6 addr add " + outside6 + "/64 dev out nodad", "-6 neigh add 2001:db8:f::2 lladdr 02:00:00:00:00:01 dev out",
		"-6 route add default via 2001:db8:f::2 dev out",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// A capture sees every packet that is sent, on all interfaces.
type capture struct {
	fd   int
	stop func()

	mu   sync.Mutex // guards the following
	seen map[netip.AddrPort]int
	away int // TCP and UDP packets on other interfaces than lo
}

const allProtocols = 0x0300 // ETH_P_ALL in network order

func startCapture(t *testing.T) *capture {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, allProtocols)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 20000}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 16<<20); err != nil {
		t.Logf("receive buffer: %v", err)
	}
	c := &capture{fd: fd, seen: make(map[netip.AddrPort]int)}
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { c.read(done) })
	c.stop = sync.OnceFunc(func() {
		close(done)
		reader.Wait()
		_ = syscall.Close(fd)
	})
	t.Cleanup(c.stop)
	return c
}

func (c *capture) read(done chan struct{}) {
	buf := make([]byte, 2048)
	for {
		n, from, err := syscall.Recvfrom(c.fd, buf, 0)
		if err != nil || n <= 0 {
			select {
			case <-done: // and nothing waits any more
				return
			default:
				continue
			}
		}
		link, ok := from.(*syscall.SockaddrLinklayer)
		to, known := destination(buf[:n])
		if !ok || !known {
			continue
		}
		c.mu.Lock()
		c.seen[to]++
		if link.Hatype != syscall.ARPHRD_LOOPBACK {
			c.away++
		}
		c.mu.Unlock()
	}
}

// to is how many packets were sent to an address; mapped ones leave as IPv4.
func (c *capture) to(a netip.AddrPort) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[unmapped(a)]
}

// elsewhere is how many packets left the machine, but those to some addresses.
func (c *capture) elsewhere(but ...netip.AddrPort) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.away
	for _, a := range but {
		n -= c.seen[a]
	}
	return n
}

// nothingTo fails if a packet was sent to one of the peers.
func (c *capture) nothingTo(t *testing.T, peers [][2]string) {
	t.Helper()
	for _, p := range peers {
		if n := c.to(netip.MustParseAddrPort(p[0])); n > 0 {
			t.Errorf("%d packets were sent to %s (%s)", n, p[0], p[1])
		}
	}
}

// destination is where a TCP or UDP packet goes.
func destination(b []byte) (netip.AddrPort, bool) {
	const tcp, udp = 6, 17
	switch {
	case len(b) >= 24 && b[0]>>4 == 4 && (b[9] == tcp || b[9] == udp):
		header := int(b[0]&15) * 4
		if len(b) < header+4 {
			return netip.AddrPort{}, false
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(b[header+2:])), true
	case len(b) >= 44 && b[0]>>4 == 6 && (b[6] == tcp || b[6] == udp):
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), binary.BigEndian.Uint16(b[42:])), true
	default:
		return netip.AddrPort{}, false
	}
}

// works fails unless the capture sees what is sent to these addresses.
func (c *capture) works(t *testing.T, to ...string) {
	t.Helper()
	for _, a := range to {
		conn, err := dialTransport("udp", a)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("seen"))
		_ = conn.Close()
		at := netip.MustParseAddrPort(a)
		before := time.Now()
		for c.to(at) == 0 {
			if time.Since(before) > testWait {
				t.Fatalf("the capture does not see what goes to %s", a)
			}
			time.Sleep(time.Millisecond)
		}
	}
}
