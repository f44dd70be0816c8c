package turn

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pion/stun"
)

func family(f byte) stun.Setter {
	return attribute(stun.AttrRequestedAddressFamily, []byte{f, 0, 0, 0})
}

// Clients choose the family of their relayed address, and reach peers of it.
func TestBothFamilies(t *testing.T) {
	named := netip.MustParseAddrPort("[2001:db8::7]:8443")
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil, func(s *Server) { s.hairpin.ipv6 = testRelayV6 })
			r.hairpin.Add([]Alias{{named, testLocal}})
			for _, tt := range []struct {
				ask         []stun.Setter
				relayed     netip.Addr
				near, far   netip.AddrPort // peers of the relay's family and of the other
				same, other byte
			}{
				{[]stun.Setter{requestUDP, family(familyIPv6)}, testRelayV6, named, testNamed, familyIPv6, familyIPv4},
				{[]stun.Setter{requestUDP, family(familyIPv4)}, testRelayIP, testNamed, named, familyIPv4, familyIPv6},
				{[]stun.Setter{requestUDP}, testRelayIP, testNamed, named, familyIPv4, familyIPv6},
			} {
				tk := r.talk(transport, "alice")
				m := tk.do(stun.MethodAllocate, tt.ask...)
				tk.want(m, 0)
				relayed, _ := parseXORAddress(attr(m, stun.AttrXORRelayedAddress), m)
				if relayed.Addr() != tt.relayed || r.hairpin.find(relayed) == nil {
					t.Errorf("relayed address %v, want one on %v", relayed, tt.relayed)
				}
				tk.want(tk.permit(tt.far), stun.CodePeerAddrFamilyMismatch)
				tk.want(tk.bind(0x4000, tt.far), stun.CodePeerAddrFamilyMismatch)
				tk.want(tk.do(stun.MethodRefresh, family(tt.other)), stun.CodePeerAddrFamilyMismatch)
				tk.want(tk.do(stun.MethodRefresh, family(tt.same)), 0)
				tk.want(tk.bind(0x4000, tt.near), 0)
				tk.send(channelFrame(0x4000, []byte("through")))
				if got := tk.receive(testWait); !bytes.Equal(got, channelFrame(0x4000, []byte("through"))[:len(got)]) || got == nil {
					t.Errorf("echo is % x", got)
				}
				tk.want(tk.permit(tt.near), 0)
				tk.send(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
					xorAddress{stun.AttrXORPeerAddress, tt.near}, attribute(stun.AttrData, []byte("by indication"))).Raw)
				if got := tk.receive(testWait); !bytes.Contains(got, []byte("by indication")) {
					t.Errorf("echo is % x", got)
				}
			}
		})
	}
}

// Without an address of a family there are no relays in it; who does not care
// gets what there is.
func TestFamilyThatIsNotThere(t *testing.T) {
	r := newRig(t, nil, func(s *Server) { s.hairpin.ipv4, s.hairpin.ipv6 = netip.Addr{}, testRelayV6 })
	tk := r.talk("tcp", "alice")
	tk.want(tk.do(stun.MethodAllocate, requestUDP, family(familyIPv4)), stun.CodeAddrFamilyNotSupported)
	m := tk.do(stun.MethodAllocate, requestUDP)
	tk.want(m, 0)
	if relayed, _ := parseXORAddress(attr(m, stun.AttrXORRelayedAddress), m); relayed.Addr() != testRelayV6 {
		t.Errorf("relayed address %v", relayed)
	}
	tk.want(tk.do(stun.MethodRefresh, attribute(stun.AttrRequestedAddressFamily, []byte{1})), stun.CodeBadRequest)
}
