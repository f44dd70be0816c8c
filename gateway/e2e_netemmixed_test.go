package gateway_test

import (
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// TestNetemMixed: everything at once. The receiver's link loses 5 % of all packets,
// both ways, and takes 100 ms; then its downlink is cut to 600 kbit/s, and opened
// again.
func TestNetemMixed(t *testing.T) {
	inNetwork(t, func(n *network) {
		bad := condition{loss: 0.05, delay: 100 * time.Millisecond}
		cut := bad
		cut.rate, cut.queue = narrow().rate, narrow().queue
		a := n.stage(nil)
		b := n.audience(peer.UDP, func(l *access) { l.both(bad) })
		layer := func(want byte) time.Duration {
			return eventually(t, "layer "+string(want), func() bool { return b.view.layer() == want })
		}
		hears := func(when string, from time.Time) {
			t.Helper()
			heard := b.ears.since(from, a.Session())
			t.Logf("%s: voice: %v; screen: %s", when, heard, b.view.story(from))
			if heard.loss() > 0.12 || heard.pause > time.Second {
				t.Errorf("%s: voice: %v", when, heard)
			}
		}
		t.Logf("high after %v", layer('h').Round(time.Millisecond))
		began := time.Now()
		time.Sleep(3 * time.Second)
		hears("wide", began)

		layer('h')
		began = time.Now()
		b.link.down.set(cut)
		down := layer('l')
		t.Logf("down after %v", down.Round(time.Millisecond))
		time.Sleep(6 * time.Second)
		hears("narrow", began)
		if share := b.view.share('l', began.Add(down)); share < 0.9 {
			t.Errorf("over the narrow link %.0f %% of the pictures are of the low layer", 100*share)
		}

		began = time.Now()
		b.link.down.set(bad)
		t.Logf("up after %v", layer('h').Round(time.Millisecond))
		time.Sleep(3 * time.Second)
		hears("wide again", began)
		b.view.check(t)
	})
}

// share is how much of what was shown from a moment on is of a layer.
func (v *view) share(layer byte, begin time.Time) float64 {
	var n, of int
	for _, f := range v.since(begin) {
		if of++; f.layer == layer {
			n++
		}
	}
	return float64(n) / float64(max(of, 1))
}
