package gateway_test

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"
)

// longestFreeze is how long a receiver may see no new picture when its layer
// changes.
const longestFreeze = 500 * time.Millisecond

// withKnownGaps in the environment runs tests that the product does not pass yet.
const withKnownGaps = "SALLYPORT_TEST_KNOWN_GAPS"

// TestBrowserLayers: the way to one of two receivers gets narrow while a screen with
// much motion is shared in two layers, and wide again. First it gets a little too
// narrow for the high layer, which must not be seen; then so suddenly that
// packets are lost before anybody can know.
func TestBrowserLayers(t *testing.T) {
	if os.Getenv(withKnownGaps) == "" {
		t.Skip("SKIPPED, A KNOWN GAP: on the way down to the low layer Chromium shows no picture for one to six seconds, " +
			"not 500 ms: the key frame is lost in the full queue, and sent again too seldom; " + withKnownGaps + "=1 runs it")
	}
	rig := startBrowserRig(t)
	const screen = "screen Laptop"
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
		c.rate(screen, 8)
		c.eval(`watchFrames('#screen-video')`, nil)
	}

	for _, step := range []struct {
		name string
		rate int64 // bit/s
		high bool  // the layer to follow
		most time.Duration
	}{
		{"a little too narrow", narrow.bitrate(screen) * 8 / 10, false, longestFreeze},
		{"wide", 0, true, longestFreeze},
		{"suddenly narrow", 700_000, false, 3 * time.Second},
		{"wide again", 0, true, longestFreeze},
	} {
		narrow.longestGap()
		wide.longestGap()
		began, keys, frozen := time.Now(), narrow.media()[screen].KeyFramesDecoded, narrow.media()[screen].FrozenSeconds
		way.rate.Store(step.rate)
		narrow.switches(screen, step.high, keys)
		took, gap, elsewhere := time.Since(began), narrow.longestGap(), wide.longestGap()
		t.Logf("%s (%d kbit/s): followed in %v; %v without a picture, %v at the other receiver; frozen %.2f s by getStats",
			step.name, step.rate/1000, took.Round(time.Millisecond), gap, elsewhere, narrow.media()[screen].FrozenSeconds-frozen)
		// What the other receiver misses too, the publisher has not sent in time.
		if usual := 200 * time.Millisecond; gap > step.most+max(0, elsewhere-usual) {
			t.Errorf("%s: %v without a picture, %v at the other receiver", step.name, gap, elsewhere)
		}
		narrow.hears("voice Laptop")
		narrow.seesCounter()
		narrow.screenshot("layers")
	}
	wide.rate(screen, 8) // which nothing of this concerns
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
