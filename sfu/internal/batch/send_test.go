package batch

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// A datagram sent alone arrives as it is, an empty one too, and what cannot be sent
// is an error.
func TestWriteToUDPAddrPort(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		for _, at := range families {
			t.Run(at, func(t *testing.T) {
				s := open(t, at, o)
				c := client(t, s)
				for _, want := range []string{"one", "", "another"} {
					if n, err := s.WriteToUDPAddrPort([]byte(want), sourceOf(c)); n != len(want) || err != nil {
						t.Fatalf("%q: %d bytes sent, %v", want, n, err)
					}
					buf := make([]byte, 100)
					if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
						t.Fatalf("%q arrives as %q, %v", want, buf[:n], err)
					}
				}
				if _, err := s.WriteToUDPAddrPort(make([]byte, 70000), sourceOf(c)); err == nil {
					t.Error("a datagram of 70000 bytes was sent")
				}
				_ = s.Close()
				if _, err := s.WriteToUDPAddrPort([]byte("late"), sourceOf(c)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a closed socket: %v", err)
				}
			})
		}
		s := open(t, families[0], o)
		if _, err := s.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("[::1]:9")); err == nil {
			t.Error("IPv6 left by a socket of IPv4")
		}
	})
}
