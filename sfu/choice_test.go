package sfu

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/seqmap"
	"sallyport/sfu/internal/srtp"
	"sallyport/sfu/internal/vp8"
)

// Whatever a client loses of it: nothing is sent before a key frame of the
// layer that is to be sent, at the start and at a switch, and the old layer goes
// on until then.
func TestALayerBeginsWithItsKeyFrame(t *testing.T) {
	low, high := &encoding{rank: 0}, &encoding{rank: 1}
	l := newLeg(t, srtp.AEADAES128GCM)
	c := &choice{target: low, decideAt: time.Now().Add(time.Hour)}
	d := &down{choice: c}
	o := l.stream(&outgoing{ssrc: 7})
	d.bound.Store(o)
	seq := uint16(0)
	send := func(from *encoding, payload string, key, fresh bool) {
		seq++
		d.forwardLayer(l.out, []layerPacket{{
			received: received{Packet: rtpheader.Packet{Payload: []byte(payload)}, at: time.Now()}, from: from,
			vp8: vp8.Descriptor{Start: true, KeyFrame: key}, position: seqmap.Position{Seq: seq, Time: uint32(seq) * 3000}, fresh: fresh,
		}})
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
	if diff := cmp.Diff(want, l.all()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// TestALayerStopsAtTheEndOfAFrame: then nothing of it is sent, until the other
// layer has a key frame, or itself if it is to stay.
func TestALayerStopsAtTheEndOfAFrame(t *testing.T) {
	low, high := &encoding{rank: 0}, &encoding{rank: 1}
	l := newLeg(t, srtp.AEADAES128GCM)
	c := &choice{target: high, decideAt: time.Now().Add(time.Hour), path: &congestion{}}
	d := &down{choice: c}
	o := l.stream(&outgoing{ssrc: 7})
	d.bound.Store(o)
	seq := uint16(0)
	send := func(from *encoding, payload string, key, last bool) {
		seq++
		d.forwardLayer(l.out, []layerPacket{{
			received: received{Packet: rtpheader.Packet{Payload: []byte(payload), Marker: last}, at: time.Now()}, from: from,
			vp8: vp8.Descriptor{Start: true, KeyFrame: key}, position: seqmap.Position{Seq: seq, Time: uint32(seq) * 3000}, fresh: true,
		}})
	}
	send(high, "high, key frame", true, true)
	send(high, "high, first half", false, false)
	c.target, c.stopped = low, true
	send(high, "high, second half", false, true)
	send(high, "high, stopped", false, true)
	send(low, "low, no key frame", false, true)
	c.target = high
	send(high, "high, still stopped", false, true)
	send(high, "high, key frame again", true, true)
	send(high, "high", false, true)
	c.target, c.stopped = low, true
	send(low, "low, key frame", true, true)
	send(low, "low", false, true)

	want := []string{"high, key frame", "high, first half", "high, second half", "high, key frame again", "high", "low, key frame", "low"}
	if diff := cmp.Diff(want, l.all()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}
