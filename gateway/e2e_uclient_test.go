package gateway_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/sfu/peer"
)

var turnTransports = []string{"udp", "tcp", "tls"}

// TestUclient: coturn's test client, which shares no code with us, loses no
// packet on the shared port.
func TestUclient(t *testing.T) {
	needPrograms(t, "turnutils_uclient", "turnutils_peer")
	rtp, rtcp := startEcho(t)
	x, _ := startHere(t, func(c *gateway.Config) {
		c.TURN.RelayTo = []string{"sfu", rtp, rtcp}
	})
	var all sync.WaitGroup // not parallel subtests: few of those run at once, and each mostly waits
	for _, transport := range turnTransports {
		for name, mode := range map[string][]string{"channels": nil, "Send indications": {"-s"}} {
			all.Go(func() {
				var out string
				var err error
				for range 3 { // it does not wait for what is late on a busy machine
					out, err = x.uclient(t, transport, rtp, append(mode, "-n", "100", "-m", "3")...)
					if err == nil && uclientLost(out) == 0 {
						return
					}
				}
				t.Errorf("over %s with %s: uclient: %v\n%s", transport, name, err, out)
			})
		}
	}
	all.Wait()
}

var uclientTotal = regexp.MustCompile(`Total lost packets (-?\d+)`)

// uclientLost is the number of lost packets that uclient prints, -1 if it
// prints none.
func uclientLost(out string) int {
	if found := uclientTotal.FindStringSubmatch(out); found != nil {
		n, err := strconv.Atoi(found[1])
		if err == nil {
			return n
		}
	}
	return -1
}

func needPrograms(t *testing.T, names ...string) {
	t.Helper()
	packages := map[string]string{"turnutils_uclient": "coturn", "turnutils_peer": "coturn", "ip": "iproute2"}
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			p := name
			if packages[name] != "" {
				p = packages[name]
			}
			t.Skipf("SKIPPED, NOT TESTED: %s is missing: apt-get install %s", name, p)
		}
	}
}

// uclient runs turnutils_uclient over transport against a peer and returns what
// it prints. -c: no RTCP pairs, which would need reserved ports. Each run is a
// user of its own, so that the quota is no matter.
func (x *target) uclient(t *testing.T, transport, peerAddr string, extra ...string) (string, error) {
	t.Helper()
	server := x.HTTPS
	var way []string
	switch transport {
	case "udp":
		server = x.UDP
	case "tcp":
		way = []string{"-t"}
	case "tls":
		way = []string{"-t", "-S"}
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return "", err
	}
	peerHost, peerPort, err := net.SplitHostPort(peerAddr)
	if err != nil {
		return "", err
	}
	args := append([]string{"-c", "-u", peer.NewID(), "-W", e2eTURNSecret, "-e", peerHost, "-r", peerPort, "-p", port}, way...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "turnutils_uclient", append(append(args, extra...), host)...).CombinedOutput()
	return string(out), err
}

// startEcho runs turnutils_peer, which echoes, and returns its address and the
// one above it: uclient asks for a permission for that too.
func startEcho(t *testing.T) (rtp, rtcp string) {
	t.Helper()
	port := freePair(t)
	command := exec.Command("turnutils_peer", "-L", "127.0.0.1", "-p", strconv.Itoa(port))
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	rtp, rtcp = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
	conn, err := net.Dial("udp4", rtp)
	must(t, err)
	defer func() { _ = conn.Close() }()
	for end := time.Now().Add(patience); ; {
		_, _ = conn.Write([]byte("are you there"))
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 100)); err == nil {
			return rtp, rtcp
		} else if time.Now().After(end) {
			t.Fatalf("turnutils_peer does not echo: %v", err)
		}
	}
}

// freePair returns a UDP port that was free a moment ago, and so was the next.
func freePair(t *testing.T) int {
	t.Helper()
	loopback := net.IPv4(127, 0, 0, 1)
	for range 100 {
		first, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback})
		must(t, err)
		port := first.LocalAddr().(*net.UDPAddr).Port
		second, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback, Port: port + 1})
		_ = first.Close()
		if err == nil {
			_ = second.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}
