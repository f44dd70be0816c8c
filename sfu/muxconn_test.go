package sfu

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/srtp"
	"sallyport/sfu/wire"
)

// remoteAt is one of many remote addresses.
func remoteAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), uint16(20000+i))
}

// requests delivers a STUN request from each remote address, and answers it as an
// ICE agent does. It returns the agent's connection.
func requests(t *testing.T, m *mux, ufrag string, from ...netip.AddrPort) *muxConn {
	t.Helper()
	agent, err := m.GetConn(ufrag, m.GetListenAddresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	r := m.newReader()
	for _, a := range from {
		m.deliver(r, m.sockets[0], bindingRequest(t, ufrag+":x"), a)
		if _, err := agent.WriteTo([]byte("answer"), net.UDPAddrFromAddrPort(a)); err != nil {
			t.Fatal(err)
		}
	}
	return agent.(*muxConn)
}

// routed reports whether what comes from a remote address is c's.
func (c *muxConn) routed(from netip.AddrPort) bool {
	r := c.mux.sockets[0].routes.get(from)
	return r != nil && r.conn == c
}

// TestThereIsRoomForEveryCandidate: and for the address that a NAT makes of them
// in the end.
func TestThereIsRoomForEveryCandidate(t *testing.T) {
	m := newLeg(t, srtp.AEADAES128GCM).srv.mux
	c := requests(t, m, "many")
	for i := range maxCandidates { // checks that nobody answers
		if _, err := c.WriteTo([]byte("check"), net.UDPAddrFromAddrPort(remoteAt(i))); err != nil {
			t.Fatal(err)
		}
	}
	if at := remoteAt(maxCandidates); !requests(t, m, "many", at).routed(at) {
		t.Error("one more address has no route")
	}
}

// TestSilentPathsMakeRoom: a participant that goes from network to network is found
// in each, and the path in use is never given up for that.
func TestSilentPathsMakeRoom(t *testing.T) {
	m := newLeg(t, srtp.AEADAES128GCM).srv.mux
	used := remoteAt(0)
	c := requests(t, m, "roams", used)
	for i := 1; i < 3*maxRoutes/2; i++ {
		at := remoteAt(i)
		if !requests(t, m, "roams", used, at).routed(at) {
			t.Fatalf("address %d has no route", i)
		}
		c.paths[at].heard.Store(time.Now().Add(-2*routeIdle + time.Duration(i)*time.Millisecond).UnixNano())
		if len(c.paths) > maxRoutes || !c.routed(used) {
			t.Fatalf("with %d addresses: %d paths, that in use has a route: %v", i, len(c.paths), c.routed(used))
		}
	}
	if gone := remoteAt(1); c.routed(gone) {
		t.Error("the path that was silent longest has kept its route")
	}
	if n := m.sockets[0].routes.count(); n > maxRoutes+1 { // and that of the leg
		t.Errorf("%d routes", n)
	}
	for i := 200; i < 200+2*maxRoutes; i++ { // all at a time is an attack
		requests(t, m, "roams", remoteAt(i))
	}
	if len(c.paths) > maxRoutes || !c.routed(used) {
		t.Errorf("under attack: %d paths, that in use has a route: %v", len(c.paths), c.routed(used))
	}
}

// TestAnAddressInUseIsNotIdle: a client that sends no STUN request while media flows
// keeps its address: who speaks by its packets, who only listens by its pings.
func TestAnAddressInUseIsNotIdle(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	b.hears(classVoice, "alpha")
	for _, g := range []*guest{a, b} {
		w := g.sess.media.way.Load()
		r := w.socket.Load().routes.get(w.remote)
		if r == nil || r.conn != w.conn {
			t.Fatalf("%s has no route", g.name)
		}
		for range 3 { // one might be a late request
			r.seen.Store(0)
			until(t, g.name+" to count as alive", func() bool {
				if g == b {
					g.send(wire.ChannelMessage{Type: wire.ChannelPing})
				}
				return time.Since(time.Unix(0, r.seen.Load())) < routeIdle
			})
		}
	}
}
