package sfu

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"

	"sallyport/sfu/internal/seqmap"
	"sallyport/sfu/internal/vp8"
)

// A recorder is a webrtc.TrackLocalWriter that keeps the payloads it gets.
type recorder struct{ got []string }

func (r *recorder) WriteRTP(_ *rtp.Header, payload []byte) (int, error) {
	r.got = append(r.got, string(payload))
	return len(payload), nil
}

func (r *recorder) Write([]byte) (int, error) { return 0, nil }

// Whatever a client loses of it: nothing is sent before a key frame of the
// layer that is to be sent, at the start and at a switch, and the old layer goes
// on until then.
func TestALayerBeginsWithItsKeyFrame(t *testing.T) {
	low, high := &encoding{rank: 0}, &encoding{rank: 1}
	out := &recorder{}
	c := &choice{target: low, decideAt: time.Now().Add(time.Hour)}
	d := &down{choice: c}
	d.bound.Store(&binding{to: out})
	seq := uint16(0)
	send := func(from *encoding, payload string, key, fresh bool) {
		seq++
		d.forwardLayer(&layerPacket{
			Packet: &rtp.Packet{Payload: []byte(payload)}, from: from, at: time.Now(),
			vp8: vp8.Descriptor{Start: true, KeyFrame: key}, position: seqmap.Position{Seq: seq, Time: uint32(seq) * 3000}, fresh: fresh,
		})
	}
	send(low, "low, no key frame", false, true)
	send(low, "low, an old key frame", true, false)
	send(high, "high, not wanted", true, true)
	send(low, "low, key frame", true, true)
	send(low, "low", false, true)
	c.target = high
	send(high, "high, no key frame", false, true)
	send(low, "low until then", false, true)
	send(high, "high, key frame", true, true)
	send(low, "low, left", false, true)
	send(high, "high", false, true)

	want := []string{"low, key frame", "low", "low until then", "high, key frame", "high"}
	if diff := cmp.Diff(want, out.got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}
