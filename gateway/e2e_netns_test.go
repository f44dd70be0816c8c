package gateway_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/turn"
)

// inNamespace is set in the environment of a test that runs in a network
// namespace made for it.
const inNamespace = "SALLYPORT_TEST_NAMESPACE"

// TestForbiddenPeers: whoever has a credential still reaches nobody but the
// peers in relay_to, whatever address he names. It runs in a network namespace
// without a way out, in which the addresses are ours to listen on.
func TestForbiddenPeers(t *testing.T) {
	needPrograms(t, "turnutils_uclient", "ip")
	if os.Getenv(inNamespace) == "" {
		rerunInNamespace(t)
		return
	}
	for _, args := range []string{
		"link set lo up", "addr add 169.254.169.254/32 dev lo", "addr add 10.0.0.1/32 dev lo",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	traps := newTraps(t)
	permitted := traps.set("127.0.0.1:0")
	x, _ := startHere(t, func(c *gateway.Config) { c.TURN.RelayTo = []string{"sfu", permitted} })
	forbidden := []string{
		traps.set("127.0.0.1:0"), traps.set("[::1]:0"), traps.set("169.254.169.254:80"), traps.set("10.0.0.1:8443"),
		traps.set(x.Admin), traps.set(x.API), traps.set(x.HTTPS),
	}
	t.Run("", func(t *testing.T) {
		for _, to := range forbidden {
			for _, transport := range turnTransports {
				t.Run(transport+"/"+to, func(t *testing.T) {
					t.Parallel()
					x.refuses(t, transport, to)
				})
			}
		}
		t.Run("TCP allocation", func(t *testing.T) {
			t.Parallel()
			out, err := x.uclient(t, "tcp", permitted, "-T", "-n", "1")
			if err == nil || !strings.Contains(out, "error 442") { // unsupported transport protocol
				t.Errorf("uclient -T: %v, want error 442:\n%s", err, out)
			}
		})
	})
	if got := traps.sprung(); len(got) != 0 {
		t.Errorf("something arrived at %v", got)
	}
	traps.expect(t, permitted, func(ctx context.Context) { // so the traps do work
		_ = x.probe(ctx, "udp", permitted)
	})
}

// refuses wants error 403 from a peer, for coturn's client and for pion's.
func (x *target) refuses(t *testing.T, transport, to string) {
	t.Helper()
	want := "error 403 ("
	if strings.HasPrefix(to, "[") {
		want = "error 440 (" // uclient asks for an IPv6 relay, which there is none of
	}
	out, err := x.uclient(t, transport, to, "-n", "2")
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("uclient: %v, want %s…):\n%s", err, want, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := x.probe(ctx, transport, to); err == nil || !strings.Contains(err.Error(), "error 403") {
		t.Errorf("probe: %v, want error 403", err)
	}
}

// probe allocates over transport and sends to a peer.
func (x *target) probe(ctx context.Context, transport, to string) error {
	name, password := turn.Credentials([]byte(e2eTURNSecret), "probe "+transport+to, time.Now().Add(time.Hour))
	target := turn.ProbeTarget{Network: transport, Address: x.HTTPS, Username: name, Password: password}
	if to != "" {
		target.Peer = netip.MustParseAddrPort(to)
	}
	switch transport {
	case "udp":
		target.Address = x.UDP
	case "tls":
		target.Dial = func(ctx context.Context) (net.Conn, error) { return dialTLS(ctx, "", x.HTTPS) }
	}
	_, err := turn.Probe(ctx, target)
	return err
}

// rerunInNamespace runs the calling test once more, in a process with a network
// namespace of its own. flags are further ones of go test's.
func rerunInNamespace(t *testing.T, flags ...string) {
	t.Helper()
	out, err := runInNamespace(t, flags...)
	if err != nil {
		t.Errorf("in the namespace: %v\n%s", err, out)
		return
	}
	t.Logf("in the namespace:\n%s", out)
}

// runInNamespace is one run of it.
func runInNamespace(t *testing.T, flags ...string) (out []byte, err error) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 8*patience)
	defer cancel()
	command := exec.CommandContext(ctx, self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "6m")
	command.Args = append(command.Args, flags...)
	command.Env = append(os.Environ(), inNamespace+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 { // where users may, they become root of a namespace
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err = command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("SKIPPED, NOT TESTED: no network namespace to be had (%v): run as root", err)
	}
	if err == nil && !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		err = errors.New("it does not pass")
	}
	return out, err
}

// traps are sockets at which nothing may arrive, over UDP or TCP.
type traps struct {
	t  *testing.T
	wg sync.WaitGroup

	mu   sync.Mutex // guards the following
	hits map[string]*atomic.Int64
	hit  chan struct{} // gets an element with each, if there is room
}

func newTraps(t *testing.T) *traps {
	s := &traps{t: t, hits: map[string]*atomic.Int64{}, hit: make(chan struct{}, 1)}
	t.Cleanup(s.wg.Wait) // after the sockets, which are closed first
	return s
}

// set sets a trap and returns its address. Where TCP is taken, by a listener of
// the gateway's, only UDP is watched.
func (s *traps) set(addr string) string {
	s.t.Helper()
	packets, err := net.ListenPacket("udp", addr)
	must(s.t, err)
	addr = packets.LocalAddr().String()
	hits := new(atomic.Int64)
	s.mu.Lock()
	s.hits[addr] = hits
	s.mu.Unlock()
	s.t.Cleanup(func() { _ = packets.Close() })
	s.watch(hits, func() error {
		_, _, err := packets.ReadFrom(make([]byte, 1))
		return err
	})
	if streams, err := net.Listen("tcp", addr); err == nil {
		s.t.Cleanup(func() { _ = streams.Close() })
		s.watch(hits, func() error {
			conn, err := streams.Accept()
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	} else if !errors.Is(err, syscall.EADDRINUSE) {
		s.t.Fatal(err)
	}
	return addr
}

func (s *traps) watch(hits *atomic.Int64, wait func() error) {
	s.wg.Go(func() {
		for !errors.Is(wait(), net.ErrClosed) {
			hits.Add(1)
			select {
			case s.hit <- struct{}{}:
			default:
			}
		}
	})
}

func (s *traps) sprung() (at []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, hits := range s.hits {
		if hits.Load() > 0 {
			at = append(at, addr)
		}
	}
	return at
}

// expect runs act until something arrives at a trap, and nowhere else.
func (s *traps) expect(t *testing.T, addr string, act func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	done := make(chan struct{})
	go func() { defer close(done); act(ctx) }()
	select {
	case <-s.hit:
	case <-ctx.Done():
	}
	cancel()
	<-done
	if got := s.sprung(); len(got) != 1 || got[0] != addr {
		t.Errorf("something arrived at %v, want %s", got, addr)
	}
}
