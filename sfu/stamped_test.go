package sfu

import (
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"
)

// stamps binds a stream to a new congestion and returns it and what went out.
func stamps(t *testing.T, mime string, id int) (interceptor.RTPWriter, *congestion, *[]rtp.Header) {
	t.Helper()
	c := &congestion{}
	t.Cleanup(func() { _ = c.Close() })
	var out []rtp.Header
	info := &interceptor.StreamInfo{SSRC: 7, MimeType: mime, RTPHeaderExtensions: []interceptor.RTPHeaderExtension{{URI: sdp.TransportCCURI, ID: id}}}
	w := c.BindLocalStream(info, interceptor.RTPWriterFunc(func(h *rtp.Header, p []byte, _ interceptor.Attributes) (int, error) {
		out = append(out, h.Clone())
		return len(p), nil
	}))
	return w, c, &out
}

func write(t *testing.T, w interceptor.RTPWriter, seq uint16) {
	t.Helper()
	h := rtp.Header{Version: 2, SSRC: 7, SequenceNumber: seq}
	if _, err := w.Write(&h, make([]byte, 1000), nil); err != nil {
		t.Fatal(err)
	}
	if len(h.Extensions) != 0 {
		t.Fatal("the header of the NACK buffer was changed")
	}
}

func TestRetransmissionsAreNumberedAndBounded(t *testing.T) {
	w, c, out := stamps(t, webrtc.MimeTypeVP8, 5)
	for i := range uint16(100) {
		write(t, w, 65500+i)
	}
	write(t, w, 65510)
	if n := len(*out); n != 101 {
		t.Fatalf("%d packets went out, want 101", n)
	}
	for i, h := range *out {
		if e := h.GetExtension(5); len(e) != 2 || int(e[0])<<8|int(e[1]) != i {
			t.Fatalf("packet %d has the transport-wide number %x", i, e)
		}
	}
	for range 200 {
		write(t, w, 65520)
	}
	if n := len(*out) - 100; n < 20 || n > 40 { // a fifth, and what there was to begin with
		t.Errorf("%d retransmissions for 100 packets", n)
	}
	for i := range uint16(100) {
		write(t, w, 64+i)
	}
	c.flush(7)
	n := len(*out)
	write(t, w, 163)
	if len(*out) != n {
		t.Error("sent again what was given up")
	}
	write(t, w, 164)
	write(t, w, 165)
	write(t, w, 164)
	if len(*out) != n+3 {
		t.Errorf("%d packets after giving up, want 3", len(*out)-n)
	}
}

func TestGivenUpIsForgottenBeforeTheNumbersWrap(t *testing.T) {
	w, c, out := stamps(t, webrtc.MimeTypeVP8, 5)
	write(t, w, 0)
	c.flush(7)
	for i := range uint16(40_000) {
		write(t, w, 1+i)
	}
	n := len(*out)
	write(t, w, 39_000)
	if len(*out) != n+1 {
		t.Error("a packet 40000 numbers later is not repaired")
	}
}

func TestAudioPassesBy(t *testing.T) {
	for _, tt := range []struct {
		mime string
		id   int
	}{{webrtc.MimeTypeOpus, 5}, {webrtc.MimeTypeVP8, 0}} {
		w, c, out := stamps(t, tt.mime, tt.id)
		write(t, w, 1)
		if c.estimator != nil || len(*out) != 1 || len((*out)[0].Extensions) != 0 {
			t.Errorf("%s with extension %d is under congestion control", tt.mime, tt.id)
		}
	}
}

func TestForwardingALayerAllocatesLittle(t *testing.T) {
	w, _, _ := stamps(t, webrtc.MimeTypeVP8, 5)
	h, p, seq := rtp.Header{Version: 2, SSRC: 7}, make([]byte, 1000), uint16(0)
	s := w.(*stampedStream)
	s.next = interceptor.RTPWriterFunc(func(*rtp.Header, []byte, interceptor.Attributes) (int, error) { return 0, nil })
	if a := testing.AllocsPerRun(1000, func() { seq++; h.SequenceNumber = seq; _, _ = w.Write(&h, p, nil) }); a != 0 {
		t.Errorf("%v allocations to number a packet", a)
	}
}
