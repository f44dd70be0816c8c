package turn

import (
	"context"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestUclient lets coturn's test client loose on us: an implementation that
// shares no code with ours, nor with pion's.
func TestUclient(t *testing.T) {
	for _, tool := range []string{"turnutils_uclient", "turnutils_peer"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: %s is missing; install the package coturn", tool)
		}
	}
	for _, transport := range transportsT {
		for name, extra := range map[string][]string{"channels": {"-G"}, "send": {"-s", "-l", "1200"}} {
			t.Run(transport+"/"+name, func(t *testing.T) {
				t.Parallel() // it mostly waits
				peer, rtcp := startPeer(t)
				r := newRig(t, func(c *Config) { c.RelayTo = []string{peer, rtcp} })
				r.lossless(transport, peer, append(extra, "-n", "50", "-m", "2")...)
				eventually(t, testWait, "everything freed", func() bool { return r.total("allocations") == 0 || transport == "udp" })
			})
		}
	}
}

// TestUclientRefused: the same with a peer that is not in relay_to.
func TestUclientRefused(t *testing.T) {
	if _, err := exec.LookPath("turnutils_uclient"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: turnutils_uclient is missing; install the package coturn")
	}
	trap, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil)
			out, err := r.runUclient(transport, trap.LocalAddr().String(), "-n", "5")
			if err == nil || !strings.Contains(out, "403") {
				t.Errorf("uclient: %v, want error 403\n%s", err, out)
			}
			if n := r.total("denied_peers_total"); n == 0 {
				t.Error("no denied peer counted")
			}
		})
	}
	_ = trap.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, _, err := trap.ReadFrom(make([]byte, 10)); err == nil {
		t.Error("something arrived at a peer that is not allowed")
	}
}

var uclientLost = regexp.MustCompile(`Total lost packets (-?\d+)`)

// lossless runs turnutils_uclient against the server. It does not wait for packets
// that are late, so a busy machine gets three tries to lose none.
func (r *rig) lossless(transport, peer string, extra ...string) {
	r.Helper()
	var out string
	for range 3 {
		var err error
		out, err = r.runUclient(transport, peer, extra...)
		found := uclientLost.FindAllStringSubmatch(out, -1)
		if err != nil || len(found) == 0 {
			r.Fatalf("uclient over %s: %v\n%s", transport, err, out)
		}
		if found[len(found)-1][1] == "0" {
			return
		}
	}
	r.Errorf("packets are lost; %v up, %v down, %v dropped by us\n%s",
		r.total("packets_total", "up"), r.total("packets_total", "down"), r.total("drops_total"), out)
}

// runUclient runs it without RTCP pairs (-c), which need reserved ports.
func (r *rig) runUclient(transport, peer string, extra ...string) (string, error) {
	host, port, err := net.SplitHostPort(r.addr[transport])
	if err != nil {
		r.Fatal(err)
	}
	peerHost, peerPort, err := net.SplitHostPort(peer)
	if err != nil {
		r.Fatal(err)
	}
	args := append([]string{"-c", "-u", "uclient", "-W", testSecret, "-e", peerHost, "-r", peerPort, "-p", port}, extra...)
	switch transport {
	case "tcp":
		args = append(args, "-t")
	case "tls":
		args = append(args, "-t", "-S")
	}
	limit := 60 * time.Second
	if slices.Contains(extra, "-R") {
		limit = 3 * time.Second // it never ends by itself, with no server
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "turnutils_uclient", append(args, host)...).CombinedOutput()
	return string(out), err
}

// startPeer runs turnutils_peer, which echoes, and returns its two addresses;
// uclient asks for a permission for the second even without RTCP.
func startPeer(t *testing.T) (rtp, rtcp string) {
	t.Helper()
	return startPeerAt(t, "127.0.0.1")
}

func startPeerAt(t *testing.T, ip string) (rtp, rtcp string) {
	t.Helper()
	port := freePair(t)
	cmd := exec.Command("turnutils_peer", "-L", ip, "-p", strconv.Itoa(port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	rtp, rtcp = net.JoinHostPort(ip, strconv.Itoa(port)), net.JoinHostPort(ip, strconv.Itoa(port+1))
	conn, err := net.Dial("udp", rtp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, testWait, "turnutils_peer echoes", func() bool {
		_, _ = conn.Write([]byte("are you there"))
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := conn.Read(make([]byte, 100))
		return err == nil
	})
	return rtp, rtcp
}

// freePair returns a port that was free a moment ago, and so was the next.
func freePair(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		port := first.LocalAddr().(*net.UDPAddr).Port
		second, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1})
		_ = first.Close()
		if err == nil {
			_ = second.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}
