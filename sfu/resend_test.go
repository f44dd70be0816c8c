package sfu

import (
	"slices"
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// TestLatePacketsSpoilNoResend: a packet that comes late is sent again as well as
// those that came before it.
func TestLatePacketsSpoilNoResend(t *testing.T) {
	made, err := resends{}.NewInterceptor("")
	if err != nil {
		t.Fatal(err)
	}
	var sent []uint16
	w := made.BindLocalStream(&interceptor.StreamInfo{SSRC: 7, RTCPFeedback: []interceptor.RTCPFeedback{{Type: "nack"}}},
		interceptor.RTPWriterFunc(func(h *rtp.Header, p []byte, _ interceptor.Attributes) (int, error) {
			if len(p) != 100 || p[0] != byte(h.SequenceNumber) {
				t.Errorf("packet %d has payload %x", h.SequenceNumber, p)
			}
			sent = append(sent, h.SequenceNumber)
			return len(p), nil
		}))
	payload := make([]byte, 100)
	header := rtp.Header{Version: 2, SSRC: 7}
	order := []uint16{65533, 65534, 0, 1, 2, 65535, 3}
	for _, n := range order {
		header.SequenceNumber, payload[0] = n, byte(n)
		if _, err := w.Write(&header, payload, nil); err != nil {
			t.Fatal(err)
		}
	}
	sent = nil
	nack := rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{65532, 65533, 65534, 65535, 0, 1, 2, 3, 4})}
	b, err := nack.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := made.BindRTCPReader(interceptor.RTCPReaderFunc(func(p []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		return copy(p, b), a, nil
	}))
	if _, _, err := r.Read(make([]byte, 1500), nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(order)
	slices.Sort(sent)
	if !slices.Equal(sent, order) {
		t.Errorf("sent again: %d, want %d", sent, order)
	}
	nack.MediaSSRC = 8
	if b, err = nack.Marshal(); err != nil {
		t.Fatal(err)
	}
	sent = nil
	if _, _, err := r.Read(make([]byte, 1500), nil); err != nil || len(sent) != 0 {
		t.Errorf("packets of another stream sent: %d", sent)
	}
}
