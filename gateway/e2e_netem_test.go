package gateway_test

import (
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// The screen of these tests: about what Chromium makes of one (rtcd protocol
// §4.12).
var (
	lowVideo  = peer.Video{Bitrate: 300_000, FPS: 5}
	highVideo = peer.Video{Bitrate: 1_500_000, FPS: 20}
)

// nextFrame is how long a source at 5 fps takes to begin a key frame that it is
// asked for. Chromium makes one of the next picture it has captured.
const nextFrame = 200 * time.Millisecond

// narrow is a link of 600 kbit/s with a buffer as routers have.
func narrow() condition {
	return condition{rate: 600_000, queue: 300 * time.Millisecond, delay: 10 * time.Millisecond}
}

// eventually waits for a condition, and returns how long it took.
func eventually(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > patience/2 {
			t.Fatalf("timed out waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// stage is a publisher who shares a layered screen and speaks.
func (n *network) stage(prepare func(*access)) *client {
	n.t.Helper()
	c := n.client(peer.UDP, prepare)
	must(n.t, c.Unmute(within(n.t)))
	must(n.t, c.ShareLayers(within(n.t), lowVideo, highVideo))
	return c
}

// audience joins and waits for a picture.
func (n *network) audience(path peer.Path, prepare func(*access)) *client {
	n.t.Helper()
	c := n.client(path, prepare)
	go c.view.watch(n.t.Context())
	eventually(n.t, "a picture", func() bool { return c.view.layer() != 0 })
	return c
}

// TestNetemLoss: 5 % of all packets are lost, in both directions, of everybody.
func TestNetemLoss(t *testing.T) {
	inNetwork(t, func(n *network) {
		lossy := func(a *access) { a.both(condition{loss: 0.05, delay: 20 * time.Millisecond}) }
		a := n.stage(lossy)
		b := n.audience(peer.UDP, lossy)
		eventually(t, "the high layer", func() bool { return b.view.layer() == 'h' })
		began, wait := time.Now(), 15*time.Second
		asked := a.Sent("screen").Asked
		time.Sleep(wait)
		heard := b.ears.since(began, a.Session())
		t.Logf("voice: %v", heard)
		// Two links lose 5 % each.
		if heard.loss() < 0.03 || heard.loss() > 0.18 || heard.pause > 500*time.Millisecond {
			t.Errorf("voice: %v", heard)
		}
		lost, of := b.view.missing(2 * time.Second)
		freeze, pli := b.view.freeze(began), a.Sent("screen").Asked-asked
		t.Logf("screen: %d of %d packets missing after repair, longest freeze %v, %d key frames asked for, %d switches",
			lost, of, freeze.Round(time.Millisecond), pli, b.view.check(t))
		t.Logf("screen: %s", b.view.story(began))
		if lost*200 > of {
			t.Errorf("%d of %d packets were not repaired", lost, of)
		}
		if float64(pli) > 2*wait.Seconds()+2 { // two layers, each a source
			t.Errorf("%d key frames asked for in %v", pli, wait)
		}
	})
}

// TestNetemDelay: 100 ms in each direction, a little more or less, for everybody
// and for the signalling too.
func TestNetemDelay(t *testing.T) {
	inNetwork(t, func(n *network) {
		const rtt = 200 * time.Millisecond
		far := func(a *access) { a.both(condition{delay: 95 * time.Millisecond, jitter: 10 * time.Millisecond}) }
		far(n.cable.ends[nth(0)]) // the plugin's
		a := n.stage(far)
		b := n.audience(peer.UDP, far)
		eventually(t, "the high layer", func() bool { return b.view.layer() == 'h' })
		began := time.Now()
		late := n.client(peer.UDP, far)
		joined := time.Now()
		go late.view.watch(t.Context())
		eventually(t, "a picture", func() bool { return late.view.layer() != 0 })
		t.Logf("joined after %v (connected %v, channel open %v), picture %v later", joined.Sub(began).Round(time.Millisecond),
			late.JoinTime().Round(time.Millisecond), late.OpenTime().Round(time.Millisecond), time.Since(joined).Round(time.Millisecond))
		if took := time.Since(joined); took > time.Second+rtt+nextFrame {
			t.Errorf("a late joiner saw a picture after %v, want 1 s and a round trip", took)
		}
		if took := joined.Sub(began); took > 5*time.Second {
			t.Errorf("joining took %v", took)
		}
		began = time.Now()
		time.Sleep(8 * time.Second)
		for name, c := range map[string]*client{"early": b, "late": late} {
			heard := c.ears.since(began, a.Session())
			t.Logf("%s: voice: %v; screen: %s", name, heard, c.view.story(began))
			if heard.loss() > 0.01 || heard.pause > 300*time.Millisecond || heard.worst > 600*time.Millisecond {
				t.Errorf("%s: voice: %v", name, heard)
			}
			c.view.check(t)
		}
	})
}

// TestNetemBandwidth: the downlink of one receiver is cut to 600 kbit/s and
// opened again. His layer follows, the others keep theirs.
func TestNetemBandwidth(t *testing.T) {
	inNetwork(t, func(n *network) {
		a := n.stage(nil)
		free := n.audience(peer.UDP, nil)
		b := n.audience(peer.UDP, nil)
		n.cut(a, b, limits{down: 2 * time.Second, up: 5 * time.Second, voice: 0.02, freeze: 500 * time.Millisecond})
		for _, f := range free.view.since(b.opened) {
			if f.layer != 'h' {
				t.Errorf("the receiver with a free link got layer %c: %s", f.layer, free.view.story(b.opened))
				break
			}
		}
		if switches := free.view.check(t); switches > 1 {
			t.Errorf("%d switches for a free link", switches)
		}
	})
}

// limits are what a receiver may have to bear when his link gets narrow.
type limits struct {
	down, up time.Duration // until the layer follows
	calm     time.Duration // after it went down, until voice and picture are good
	voice    float64       // loss from then on
	freeze   time.Duration // of the picture from then on
}

// cut narrows the downlink of b, who watches and hears a, and opens it again.
func (n *network) cut(a, b *client, most limits) {
	t := n.t
	t.Helper()
	layer := func(want byte) time.Duration {
		return eventually(t, "layer "+string(want), func() bool { return b.view.layer() == want })
	}
	layer('h')
	b.opened = time.Now()
	time.Sleep(2 * time.Second)
	begun := time.Now()
	b.link.down.set(narrow())
	down := layer('l')
	t.Logf("down after %v; meanwhile voice: %v; %d packets dropped by the link", down.Round(time.Millisecond), b.ears.since(begun, a.Session()), b.link.down.dropped.Load())
	switched := time.Now()
	time.Sleep(most.calm)
	low := time.Now()
	time.Sleep(6 * time.Second)
	heard := b.ears.since(low, a.Session())
	t.Logf("low: screen: %s; later voice: %v", b.view.story(switched), heard)
	if down > most.down {
		t.Errorf("down after %v, want at most %v", down, most.down)
	}
	if heard.loss() > most.voice || heard.pause > 500*time.Millisecond || heard.median > 500*time.Millisecond {
		t.Errorf("voice over the narrow link: %v", heard)
	}
	if freeze := b.view.freeze(low); freeze > most.freeze {
		t.Errorf("the picture stood still for %v after the switch", freeze)
	}
	opened := time.Now()
	b.link.down.set(condition{delay: narrow().delay})
	up := layer('h')
	t.Logf("up after %v; screen: %s", up.Round(time.Millisecond), b.view.story(opened))
	if up > most.up {
		t.Errorf("up after %v, want at most %v", up, most.up)
	}
	time.Sleep(3 * time.Second)
	if freeze := b.view.freeze(opened); freeze > 500*time.Millisecond {
		t.Errorf("the picture stood still for %v", freeze)
	}
	if switches := b.view.check(t); switches != 3 {
		t.Errorf("%d switches, want 3", switches)
	}
}
