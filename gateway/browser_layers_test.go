package gateway_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"
)

// longestFreeze is how long a receiver may see no new picture when its layer
// changes. A sudden cut takes more: what is on the way by then fills the queue, and
// the low layer's key frame, up to 45 kB, takes 500 ms of what the narrow way has
// for video, whoever sends it.
const (
	longestFreeze     = 500 * time.Millisecond
	longestCutsFreeze = time.Second
)

// cutTo is about 1.2 times what the low layer has at most, with what is around it,
// and voice: bit/s.
const cutTo = 800_000

// usualGap is what a receiver with a wide way may see. What it misses beyond that,
// the publisher has not sent in time.
const usualGap = 200 * time.Millisecond

// TestBrowserLayers: the way to one of two receivers gets narrow while a screen with
// much motion is shared in two layers, and wide again. First it gets a little too
// narrow for the high layer, which must not be seen; then so suddenly that its
// queue is full before anybody can know.
func TestBrowserLayers(t *testing.T) {
	rig := startBrowserRig(t)
	way := newBottleneck(t, rig.addrs.TURN)
	s := settings{simulcast: true}
	a, wide := rig.join(t, "Laptop", s), rig.join(t, "Tablet", s)
	narrow := rig.visit(t, browserCommand{Page: "Phone", Width: 640, Height: 480, TURN: way.address()},
		url.Values{"name": {"Phone"}, "room": {"Matrix"}, "path": {"turn-udp"}})
	narrow.click("#join-button")
	narrow.wait(`sallyport.state === 'connected'`)
	a.click("#b-tone")
	a.click("#b-screen")
	rig.do(t, browserCommand{Do: "eval", Page: "slides", Value: `busy = true`}, nil)
	t.Cleanup(func() { rig.do(t, browserCommand{Do: "eval", Page: "slides", Value: `busy = false`}, nil) })
	for _, c := range []*caller{wide, narrow} {
		c.seesCounter()
		c.rate(layeredScreen, 8)
		c.eval(`watchFrames('#screen-video')`, nil)
	}
	bad, busy := followLayers(t, way, wide, narrow)
	if len(bad) > 0 && busy {
		t.Logf("once more, for the machine was busy: %v", bad)
		bad, _ = followLayers(t, way, wide, narrow)
	}
	for _, b := range bad {
		t.Error(b)
	}
	wide.rate(layeredScreen, 8) // which nothing of this concerns
}

const layeredScreen = "screen Laptop"

// followLayers narrows the way and widens it, twice. It returns what was wrong, and
// whether the receiver with a wide way was badly served, too.
func followLayers(t *testing.T, way *bottleneck, wide, narrow *caller) (bad []string, busy bool) {
	t.Helper()
	for _, step := range []struct {
		name string
		rate int64 // bit/s
		high bool  // the layer to follow
		most time.Duration
	}{
		{"a little too narrow", narrow.bitrate(layeredScreen) * 8 / 10, false, longestFreeze},
		{"wide", 0, true, longestFreeze},
		{"suddenly narrow", cutTo, false, longestCutsFreeze},
		{"wide again", 0, true, longestFreeze},
	} {
		narrow.longestGap()
		wide.longestGap()
		began, before := time.Now(), narrow.media()[layeredScreen]
		way.rate.Store(step.rate)
		narrow.switches(layeredScreen, step.high, before.KeyFramesDecoded)
		took, gap, elsewhere := time.Since(began), narrow.longestGap(), wide.longestGap()
		t.Logf("%s (%d kbit/s): followed in %v; %v without a picture, %v at the other receiver; frozen %.2f s by getStats",
			step.name, step.rate/1000, took.Round(time.Millisecond), gap, elsewhere, narrow.media()[layeredScreen].FrozenSeconds-before.FrozenSeconds)
		if gap > step.most+max(0, elsewhere-usualGap) {
			bad = append(bad, fmt.Sprintf("%s: %v without a picture, %v at the other receiver", step.name, gap, elsewhere))
		}
		busy = busy || elsewhere > usualGap
		narrow.hears("voice Laptop")
		narrow.seesCounter()
		narrow.screenshot("layers")
	}
	return bad, busy
}

// switches waits for a key frame after the given number of them, and for a second
// with as many pictures as the layer has: 20 or 5.
func (c *caller) switches(name string, high bool, keys int) {
	c.t.Helper()
	var before medium
	var since time.Time
	c.until("another layer", func() error {
		now := c.media()[name]
		if now.KeyFramesDecoded == keys {
			return fmt.Errorf("no key frame yet")
		}
		seconds := time.Since(since).Seconds()
		if rate := float64(now.FramesDecoded-before.FramesDecoded) / seconds; seconds < 1 || rate < 1 || high != (rate > 6.5) {
			if seconds > 1 {
				before, since = now, time.Now()
			}
			return fmt.Errorf("%.1f pictures a second", rate)
		}
		return nil
	})
}

// longestGap returns the longest time without a new picture since the last call.
func (c *caller) longestGap() time.Duration {
	c.t.Helper()
	var gaps []float64
	c.eval(`gaps()`, &gaps)
	return time.Duration(slices.Max(gaps)) * time.Millisecond
}

// bitrate measures two seconds of a stream, in bit/s.
func (c *caller) bitrate(name string) int64 {
	c.t.Helper()
	began, before := time.Now(), c.media()[name].BytesReceived
	time.Sleep(2 * time.Second) // is measured
	return int64(float64(c.media()[name].BytesReceived-before) * 8 / time.Since(began).Seconds())
}
