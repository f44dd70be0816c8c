package sfu

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pion/webrtc/v3"
)

// A listener that is not the SFU's own, like the shared port 443, is in the
// candidates, and is enough.
func TestFurtherICETCPPort(t *testing.T) {
	socks, err := Listen(Config{UDP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(socks, Options{ICETCP: []netip.AddrPort{localAddrPort(shared.Addr())}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx, shared) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	a, b := join(t, srv, "call", "alpha", guestOptions{tcp: true}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	b.publish(webrtc.MimeTypeOpus, "b")
	a.hears(classVoice, "beta")
	b.hears(classVoice, "alpha")
	if got := a.sess.path(); got != "tcp" {
		t.Errorf("path %q", got)
	}
}

func TestICETCPEndpoints(t *testing.T) {
	port := func(list ...string) (out []netip.AddrPort) {
		for _, s := range list {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	for _, tt := range []struct {
		name      string
		advertise []string
		locals    []netip.Addr
		further   []netip.AddrPort
		want      []netip.AddrPort
	}{
		{"none", nil, addrs("192.0.2.1"), nil, nil},
		{"on all addresses", nil, addrs("192.0.2.1", "2001:db8::1"), port("[::]:443"), port("192.0.2.1:443", "[2001:db8::1]:443")},
		{"on all IPv4 addresses", nil, addrs("192.0.2.1", "2001:db8::1"), port("0.0.0.0:443"), port("192.0.2.1:443")},
		{"on one address", nil, addrs("192.0.2.1", "192.0.2.2"), port("192.0.2.2:443"), port("192.0.2.2:443")},
		{"behind NAT", []string{"203.0.113.1"}, addrs("192.0.2.1", "192.0.2.2"), port("[::]:443"), port("203.0.113.1:443")},
		{"not in the pairs", []string{"203.0.113.1/192.0.2.1"}, addrs("192.0.2.1", "192.0.2.2"), port("192.0.2.2:443"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			book, err := newAddressBook(Config{Advertise: tt.advertise}, tt.locals)
			if err != nil {
				t.Fatal(err)
			}
			m := newTCPMux(&Sockets{book: book}, tt.further, func(string) {})
			got := m.advertised(m.bound.mapped)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Fatalf("advertised (-want +got):\n%s", diff)
			}
			for _, a := range got {
				conns, err := m.GetAllConns("ufrag", a.Addr().Is6(), a.Addr().AsSlice())
				if err != nil || len(conns) != 1 || localAddrPort(conns[0].LocalAddr()) != a {
					t.Errorf("connections on %s: %v, %v", a, conns, err)
				}
			}
			m.RemoveConnByUfrag("ufrag")
			if len(m.conns) != 0 {
				t.Error("connections are left")
			}
		})
	}
}
