package tls

import (
	"net"
	"net/netip"
	"testing"
)

// Limits can be changed while connections are open: those stay, and the next
// one meets the new limit.
func TestLimitsOfOpenConnectionsChange(t *testing.T) {
	r := newRig(t, PortOptions{OpenPerAddress: 1}).serve()
	r.talk(r.dial(), stun, 46)
	refused := func(c net.Conn) {
		t.Helper()
		if err := closed(c); err != nil {
			t.Errorf("one more than the limit: %v", err)
		}
	}
	refused(r.dial())
	r.port.SetLimits(2, nil)
	r.talk(r.dial(), stun, 46)
	refused(r.dial())
	r.port.SetLimits(0, nil) // any number
	for range 3 {
		r.talk(r.dial(), stun, 46)
	}
	r.port.SetLimits(1, []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")})
	refused(r.dial())
	for range 3 {
		r.talk(r.dialFrom("127.0.0.2"), stun, 46)
	}
}
