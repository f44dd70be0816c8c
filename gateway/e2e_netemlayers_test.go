package gateway_test

import (
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// TestNetemLate: one who joins late over a narrow link begins with the layer that
// fits, sees a picture at once, and harms nobody.
func TestNetemLate(t *testing.T) {
	inNetwork(t, func(n *network) {
		a := n.stage(nil)
		early := n.audience(peer.UDP, nil)
		eventually(t, "the high layer", func() bool { return early.view.layer() == 'h' })
		began := time.Now()
		late := n.client(peer.UDP, func(l *access) { l.down.set(narrow()) })
		joined := time.Now()
		go late.view.watch(t.Context())
		took := eventually(t, "a picture", func() bool { return late.view.layer() != 0 })
		t.Logf("joined after %v, picture %v later", joined.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond))
		if took > time.Second+20*time.Millisecond+nextFrame {
			t.Errorf("a picture after %v, want 1 s and a round trip", took)
		}
		time.Sleep(8 * time.Second)
		for _, f := range late.view.since(joined) {
			if f.layer != 'l' {
				t.Errorf("layer %c over a narrow link: %s", f.layer, late.view.story(joined))
				break
			}
		}
		for _, f := range early.view.since(began) {
			if f.layer != 'h' {
				t.Errorf("layer %c for who has room: %s", f.layer, early.view.story(began))
				break
			}
		}
		heard := late.ears.since(joined.Add(2*time.Second), a.Session())
		t.Logf("voice: %v; screen: %s", heard, late.view.story(joined))
		if heard.loss() > 0.02 || heard.pause > 500*time.Millisecond {
			t.Errorf("voice: %v", heard)
		}
		if lost, of := late.view.missing(time.Second); lost*100 > of {
			t.Errorf("%d of %d packets of the screen are missing", lost, of)
		}
	})
}

// TestNetemPublisher: the publisher stops his high layer and begins with it again,
// as Chromium does when its uplink is poor.
func TestNetemPublisher(t *testing.T) {
	inNetwork(t, func(n *network) {
		delay := func(l *access) { l.both(condition{delay: 20 * time.Millisecond}) }
		a := n.client(peer.UDP, delay)
		must(t, a.Unmute(within(t)))
		must(t, a.ShareLayers(within(t), peer.Video{Bitrate: 300_000, FPS: 10}, highVideo))
		b, c := n.audience(peer.UDP, delay), n.audience(peer.TURNTLS, delay)
		all := map[string]*client{"UDP": b, "TURN": c}
		for name, x := range all {
			eventually(t, "the high layer over "+name, func() bool { return x.view.layer() == 'h' })
		}
		began := time.Now()
		time.Sleep(time.Second)
		for range 2 {
			must(t, a.PauseLayer(peer.HighLayer, true))
			for name, x := range all {
				eventually(t, "the low layer over "+name, func() bool { return x.view.layer() == 'l' })
			}
			time.Sleep(time.Second)
			must(t, a.PauseLayer(peer.HighLayer, false))
			for name, x := range all {
				took := eventually(t, "the high layer again over "+name, func() bool { return x.view.layer() == 'h' })
				if took > 5*time.Second {
					t.Errorf("%s: the high layer was there again after %v", name, took)
				}
			}
			time.Sleep(time.Second)
		}
		for name, x := range all {
			t.Logf("%s: screen: %s", name, x.view.story(began))
			if freeze := x.view.freeze(began); freeze > 500*time.Millisecond+nextFrame/2 { // at 10 fps
				t.Errorf("%s: the picture stood still for %v", name, freeze)
			}
			x.view.check(t)
			if heard := x.ears.since(began, a.Session()); heard.loss() > 0.01 || heard.pause > 500*time.Millisecond {
				t.Errorf("%s: voice: %v", name, heard)
			}
		}
	})
}
