package sfu

import (
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
)

// Reports pass, and so do NACKs within the budget. A NACK beyond it never
// reaches what answers it, and the reports behind it still do.
func TestNACKsBeyondTheBudgetAreDropped(t *testing.T) {
	var nacks []rtcp.NackPair
	for seq := range uint16(60) {
		nacks = append(nacks, rtcp.NackPair{PacketID: seq * 17, LostPackets: 0xFFFF})
	}
	nack := &rtcp.TransportLayerNack{Nacks: nacks} // 1,020 packets in 252 bytes
	small := &rtcp.TransportLayerNack{Nacks: nacks[:1]}
	report := &rtcp.ReceiverReport{}
	incoming := []rtcp.Packet{small, nack, nack, report}

	dropped := 0
	i, err := nackBudgets{func(string) { dropped++ }}.NewInterceptor("")
	if err != nil {
		t.Fatal(err)
	}
	read := i.BindRTCPReader(interceptor.RTCPReaderFunc(func(p []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		b, err := incoming[0].Marshal()
		incoming = incoming[1:]
		return copy(p, b), a, err
	}))
	buf := make([]byte, 1500)
	for _, want := range []int{len(small.Nacks), 0} {
		_, a, err := read.Read(buf, nil)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := a.GetRTCPPackets(nil)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if n, ok := packets[0].(*rtcp.TransportLayerNack); ok {
			got = len(n.Nacks)
		}
		if got != want {
			t.Errorf("a NACK of %d pairs came through, want %d", got, want)
		}
	}
	if dropped != 2 {
		t.Errorf("%d dropped, want 2", dropped)
	}
}
