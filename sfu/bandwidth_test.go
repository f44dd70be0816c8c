package sfu

import (
	"fmt"
	"testing"
	"time"
)

// TestLayersFollowTheBandwidth: a receiver's link is narrowed to less than the
// high layer and opened again. The limits are the product's; the test waits longer
// before it gives up, and reports what it saw. To stall is to be a bad link, too.
func TestLayersFollowTheBandwidth(t *testing.T) {
	for range 3 {
		complaint, p := "", startPulse()
		t.Run("", func(t *testing.T) { complaint = followBandwidth(t) })
		switch stalled := p.stop(); {
		case t.Failed() || complaint == "":
			return
		case stalled < 50*time.Millisecond:
			t.Fatal(complaint)
		default:
			t.Logf("not judged, this process stood still for %v: %s", stalled, complaint)
		}
	}
	t.Skip("SKIPPED, NOT TESTED: this machine is too busy to follow a bandwidth")
}

// followBandwidth returns what was not in time, or not at rest.
func followBandwidth(t *testing.T) (complaint string) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	n := newNarrow(t, srv)
	var w watcher
	b := join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: w.packet, rewrite: n.rewrite})
	shareScreen(t, a, [2]int{300_000, 1_500_000})
	reach := func(layer byte, limit time.Duration) {
		t.Helper()
		begun := time.Now()
		until(t, "layer "+string(layer), func() bool { return w.layer() == layer })
		took := time.Since(begun)
		s := b.sess.media.path.sample(time.Now())
		t.Logf("layer %c after %v; sent %d estimate %d bit/s, loss %.2f, queue %v, last train %d bit/s", layer, took.Round(time.Millisecond), s.Sent, s.Estimate, s.Loss, s.Queue, s.Capacity)
		if took > limit {
			complaint += fmt.Sprintf("layer %c took %v, want at most %v\n", layer, took, limit)
		}
	}
	reach('l', time.Second)
	reach('h', 5*time.Second)
	for range 2 {
		n.bitrate.Store(600_000)
		reach('l', 2*time.Second)
		complaint += stay(&w, 'l', 6*time.Second)
		n.bitrate.Store(0)
		reach('h', 5*time.Second)
		complaint += stay(&w, 'h', 3*time.Second)
	}
	if n.dropped.Load() == 0 {
		complaint += "nothing was dropped: the link was not narrow\n"
	}
	if got := w.check(t, false); got != 5 {
		complaint += fmt.Sprintf("%d switches, want 5\n", got)
	}
	return complaint
}

// stay complains if the layer changes within a while.
func stay(w *watcher, layer byte, d time.Duration) string {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := w.layer(); got != layer {
			return fmt.Sprintf("layer %c %v before the end of the wait, want %c all the time\n", got, time.Until(end), layer)
		}
	}
	return ""
}
