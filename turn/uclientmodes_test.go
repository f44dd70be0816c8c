package turn

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// TestUclientModes runs the modes of coturn's client that ask for something
// special or misbehave.
func TestUclientModes(t *testing.T) {
	if _, err := exec.LookPath("turnutils_uclient"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: turnutils_uclient is missing; install the package coturn")
	}
	for _, transport := range transportsT {
		// What becomes of it with coturn's server is the same.
		for mode, check := range map[string]func(r *rig, transport, peer string, args ...string){
			"-X": (*rig).lossless,                    // IPv4 asked for
			"-D": (*rig).lossless,                    // ChannelData padded on UDP, too
			"-N": refused("channel bind: error 400"), // a second channel to a peer, which ends it
			"-R": survives,                           // messages that are wrong from the first byte
			"-O": survives,                           // allocates and is gone
			"-B": survives,                           // leaves in the middle
			"-T": refused("error 442"),
			"-P": refused("error 442"),
		} {
			if transport == "udp" && (mode == "-T" || mode == "-P") {
				continue // these imply TCP
			}
			t.Run(transport+mode, func(t *testing.T) {
				t.Parallel() // it mostly waits
				peer, rtcp := startPeer(t)
				r := newRig(t, func(c *Config) { c.RelayTo = []string{peer, rtcp} })
				check(r, transport, peer, mode, "-n", "20", "-m", "2")
				if transport != "udp" { // there it takes their lifetime
					eventually(t, testWait, "allocations freed", func() bool { return r.total("allocations") == 0 })
				}
				tk := r.talk(transport, "after") // and everybody else is served
				tk.allocate()
				tk.want(tk.permit(netip.MustParseAddrPort(peer)), 0)
			})
		}
	}
}

func refused(text string) func(r *rig, transport, peer string, args ...string) {
	return func(r *rig, transport, peer string, args ...string) {
		r.Helper()
		out, err := r.runUclient(transport, peer, args...)
		if err == nil || !strings.Contains(out, text) {
			r.Errorf("uclient: %v, want %q\n%s", err, text, out)
		}
	}
}

// survives: what becomes of such a client does not matter.
func survives(r *rig, transport, peer string, args ...string) {
	_, _ = r.runUclient(transport, peer, args...)
}

// TestUclientIPv6: -x asks for an IPv6 relay and gets one, to a peer on IPv6.
func TestUclientIPv6(t *testing.T) {
	for _, tool := range []string{"turnutils_uclient", "turnutils_peer"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: %s is missing; install the package coturn", tool)
		}
	}
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			peer, rtcp := startPeerAt(t, "::1")
			r := newRig(t, func(c *Config) { c.RelayTo = []string{peer, rtcp} }, func(s *Server) { s.hairpin.ipv6 = testRelayV6 })
			r.lossless(transport, peer, "-x", "-n", "20", "-m", "2")
			if n := r.total("packets_total", "up"); n < 40 {
				t.Errorf("%v packets relayed", n)
			}
		})
	}
}
