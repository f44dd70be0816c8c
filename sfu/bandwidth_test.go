package sfu

import (
	"testing"
	"time"
)

// TestLayersFollowTheBandwidth: a receiver's link is narrowed to less than the
// high layer and opened again. The limits are the product's; the test waits longer
// before it gives up, and reports what it saw.
func TestLayersFollowTheBandwidth(t *testing.T) {
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
			t.Errorf("layer %c took %v, want at most %v", layer, took, limit)
		}
	}
	reach('l', time.Second)
	reach('h', 5*time.Second)
	for range 2 {
		n.bitrate.Store(600_000)
		reach('l', 2*time.Second)
		stay(t, &w, 'l', 6*time.Second)
		n.bitrate.Store(0)
		reach('h', 5*time.Second)
		stay(t, &w, 'h', 3*time.Second)
	}
	if n.dropped.Load() == 0 {
		t.Error("nothing was dropped: the link was not narrow")
	}
	if got := w.check(t, false); got != 5 {
		t.Errorf("%d switches, want 5", got)
	}
}

// stay verifies that the layer does not change for a while.
func stay(t *testing.T, w *watcher, layer byte, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got := w.layer(); got != layer {
			t.Fatalf("layer %c %v before the end of the wait, want %c all the time", got, time.Until(end), layer)
		}
	}
}
