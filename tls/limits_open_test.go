package tls

import (
	"net"
	"net/netip"
	"testing"
)

// Handed over or not, an open connection counts until its new owner closes it:
// here net/http, two servers that echo, and the Port itself.
func TestOpenConnectionsPerAddress(t *testing.T) {
	r := newRig(t, PortOptions{OpenPerAddress: 4}).serve()
	h2 := r.dialTLS("h2")
	r.talk(h2, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), 9)
	h1 := r.dialTLS("http/1.1")
	r.talk(h1, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 15)
	relay := r.dialTLS()
	r.talk(relay, stun, 46)
	plain := r.dial()
	r.talk(plain, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 15)
	eventually(t, "all handed over", func() bool { return r.port.pending.size() == 0 })

	for range 2 {
		if err := closed(r.dial()); err != nil {
			t.Errorf("fifth connection of the address: %v", err)
		}
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "open_address") == 2 })
	r.talk(r.dialFrom("127.0.0.2"), stun, 46) // others are not affected

	for what, c := range map[string]net.Conn{"HTTP/2": h2, "HTTP/1.1": h1, "redirect": plain} {
		c.Close()
		eventually(t, what+" is closed", func() bool { return r.port.open.size() == 4 })
		r.talk(r.dial(), stun, 46)
	}
	if _, err := r.dialFrom("127.0.0.2").Write([]byte{0xFF, 0xFF, 0xFF}); err != nil { // refused by the Port
		t.Fatal(err)
	}
	eventually(t, "nothing is left of rubbish", func() bool {
		return r.metric("sallyport_demux_connections_total", "plain", "unknown") == 1 && r.port.open.size() == 5
	})
}

func TestOpenConnectionsInAll(t *testing.T) {
	r := newRig(t, PortOptions{OpenTotal: 2}).serve()
	r.talk(r.dial(), stun, 46)
	r.talk(r.dialFrom("127.0.0.2"), stun, 46)
	if err := closed(r.dialFrom("127.0.0.3")); err != nil {
		t.Errorf("third connection: %v", err)
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "open_total") == 1 })
}

// Those that are refused for being too many at once are not counted as open.
func TestRefusedIsNotOpen(t *testing.T) {
	r := newRig(t, PortOptions{PerAddress: 1})
	r.dial()
	for range 3 {
		if err := closed(r.dial()); err != nil {
			t.Error(err)
		}
	}
	if n := r.port.open.size(); n != 1 {
		t.Errorf("%d connections are open, want 1", n)
	}
}

// Whatever the limit of files, something is left for the rest of the process.
func TestOpenTotal(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 0, 256: 128, 1024: 512, 2048: 1024, 4096: 3072, 65536: 49152, 1048576: 786432, 1<<64 - 1: 3 << 28,
	} {
		if got := openTotal(files); got != want {
			t.Errorf("openTotal(%d) = %d, want %d", files, got, want)
		}
	}
	if got, want := (PortOptions{}).withDefaults().OpenTotal, openTotal(maxFiles()); got != want || got <= 0 {
		t.Errorf("the default is %d, want %d", got, want)
	}
}

// A load balancer is one address for everybody: only the totals hold it.
func TestTrustedHaveNoLimitByAddress(t *testing.T) {
	r := newRig(t, PortOptions{PerAddress: 1, OpenPerAddress: 2, OpenTotal: 5, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}).serve()
	for range 3 {
		r.dialFrom("127.0.0.2")
	}
	eventually(t, "three pending", func() bool { return r.port.pending.size() == 3 })
	r.dial()
	eventually(t, "four pending", func() bool { return r.port.pending.size() == 4 })
	if err := closed(r.dial()); err != nil {
		t.Errorf("second connection of another address: %v", err)
	}
	r.talk(r.dialFrom("127.0.0.2"), stun, 46)
	if err := closed(r.dialFrom("127.0.0.2")); err != nil {
		t.Errorf("connection beyond the total: %v", err)
	}
}
