package sfu

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/pion/stun"

	"sallyport/sfu/internal/batch"
)

// addressed is one datagram of a script for FuzzDeliver: from one of four
// addresses, to the shared port or to the SFU's own.
func addressed(from byte, shared bool, p []byte) []byte {
	if shared {
		from |= 4
	}
	return append([]byte{from, byte(len(p) >> 8), byte(len(p))}, p...)
}

// FuzzDeliver lets datagrams come to the SFU's port and to the one it shares with
// a TURN server. Each goes to the session, to the TURN server or to nobody, never
// to two; and nobody gets into a session without its ufrag.
func FuzzDeliver(f *testing.F) {
	check, stranger := bindingRequest(f, "local:remote"), bindingRequest(f, "somebody:remote")
	success := stunMessage(f, stun.MethodBinding, stun.ClassSuccessResponse)
	failure := stunMessage(f, stun.MethodBinding, stun.ClassErrorResponse)
	allocate := stunMessage(f, stun.MethodAllocate, stun.ClassRequest)
	dtls, rtp, quic := bytes.Repeat([]byte{22}, 40), bytes.Repeat([]byte{0x80}, 40), bytes.Repeat([]byte{0xC0}, 40)
	for _, shared := range []bool{true, false} {
		var all []byte
		for _, p := range [][]byte{dtls, allocate, stranger, success, check, success, failure, dtls, rtp, allocate, {0x40, 0, 0, 1, 9}, quic, {5}, nil} {
			f.Add(addressed(0, shared, p))
			all = append(all, addressed(1, shared, p)...)
		}
		f.Add(all)
		f.Add(slices.Concat(addressed(0, shared, check), addressed(0, !shared, check), addressed(0, shared, rtp), addressed(0, !shared, rtp), addressed(1, shared, rtp)))
	}
	socks, err := listen(Config{UDP: "127.0.0.1:0"}, "127.0.0.1:0", batch.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		drops := 0
		m, err := newMux(socks, nil, func(string) { drops++ })
		if err != nil {
			t.Fatal(err)
		}
		var session [2]*muxConn // on the SFU's own port, on the shared one
		for i := range session {
			c, err := m.GetConn("local", net.UDPAddrFromAddrPort(m.bound.mapped(m.sockets[i].local)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			session[i] = c.(*muxConn)
		}
		guest, r := socks.shared[0], m.newReader()
		guest.in = newQueue(sharedBacklog)
		admitted := make(map[netip.AddrPort]bool) // who named the ufrag
		for steps := 0; len(script) >= 3 && steps < 32; steps++ {
			at, n := script[0]>>2&1, int(binary.BigEndian.Uint16(script[1:]))
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1 + script[0]&3}), 5000)
			script = script[3:]
			p := bytes.Clone(script[:min(n, len(script), maxDatagram)])
			script = script[len(p):]
			to, conn := m.sockets[at], session[at]
			before := [3]int{session[0].in.count + session[1].in.count, guest.in.count, drops}
			m.deliver(r, to, p, from)
			got := [3]int{session[0].in.count + session[1].in.count - before[0], guest.in.count - before[1], drops - before[2]}
			if ufrag, ok := requestUfrag(p); ok && string(ufrag) == "local" {
				admitted[from] = true
				to.claim(from, conn, net.UDPAddrFromAddrPort(from)) // as when the agent answers
			}
			switch {
			case got[0]+got[1]+got[2] > 1:
				t.Fatalf("%x goes to session, guest, nobody: %v", p, got)
			case got[0] > 0 && !admitted[from]:
				t.Fatalf("%x from %v gets into a session", p, from)
			case got[1] > 0 && to.guest == nil:
				t.Fatalf("%x on the SFU's own port goes to the TURN server", p)
			}
		}
		r.finish()
	})
}
