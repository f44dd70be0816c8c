package turn

import (
	"net/netip"
	"testing"
	"time"
)

// A load balancer is one address for everybody: only the total holds it.
func TestTrustedHaveNoLimitByAddress(t *testing.T) {
	r := newRig(t, nil, func(s *Server) {
		s.patience = time.Hour
		s.SetTrusted([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	})
	for range lobbyPerNetwork {
		r.dial("tcp")
	}
	tk := r.talk("tcp", "alice") // one too many, were the address anybody's
	tk.allocate()
	_ = tk.conn.Close()
	eventually(t, testWait, "she left", func() bool { return r.server.Status().Connections == lobbyPerNetwork })
	r.server.SetTrusted(nil)
	r.talk("tcp", "bob").allocate() // those who came as trusted do not count now
}
