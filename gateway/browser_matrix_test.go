package gateway_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// A settings is what a Mattermost server can tell its clients about calls.
type settings struct{ dcSignaling, simulcast, av1 bool }

func (s settings) String() string {
	return fmt.Sprintf("data channel %s, simulcast %s, AV1 %s", onOff(s.dcSignaling), onOff(s.simulcast), onOff(s.av1))
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// TestBrowserMatrix is a call of three with every combination of the settings.
func TestBrowserMatrix(t *testing.T) {
	rig := startBrowserRig(t)
	rig.do(t, browserCommand{Do: "click", Page: "slides", Selector: "h1"}, nil) // the share has sound
	for i := range 8 {
		s := settings{dcSignaling: i&1 != 0, simulcast: i&2 != 0, av1: i&4 != 0}
		t.Run(s.String(), func(t *testing.T) { rig.testSettings(t, s) })
	}
	t.Run("a recorder", rig.testRecorder)
}

// join is call with settings.
func (rig *browserRig) join(t *testing.T, name string, s settings) *caller {
	t.Helper()
	query := url.Values{"name": {name}, "room": {"Matrix"}}
	for key, on := range map[string]bool{"dc": s.dcSignaling, "simulcast": s.simulcast, "av1": s.av1} {
		if on {
			query.Set(key, "1")
		}
	}
	c := rig.visit(t, browserCommand{Page: name, Width: 640, Height: 480}, query)
	c.click("#join-button")
	c.wait(`sallyport.state === 'connected'`)
	return c
}

// testSettings: two talk, one shares the screen with its sound and the other the
// camera; a third comes late, without AV1; the second leaves.
func (rig *browserRig) testSettings(t *testing.T, s settings) {
	a, b := rig.join(t, "Laptop", s), rig.join(t, "Phone", s)
	a.click("#b-tone")
	b.click("#b-mic")
	a.click("#b-screen")
	b.click("#b-camera")
	b.seesCounter()
	a.plays(`.tile:not(.self) video`)

	late := s
	late.av1 = false
	began := time.Now()
	c := rig.join(t, "Tablet", late)
	joined := time.Now()
	c.seesCounter()
	t.Logf("joined in %v, saw the screen %v later", joined.Sub(began).Round(time.Millisecond), time.Since(joined).Round(time.Millisecond))
	c.plays(`.tile:not(.self) video`)
	c.click("#b-tone")

	a.hears("voice Phone", "voice Tablet")
	b.hears("voice Laptop", "voice Tablet", "screen-audio Laptop")
	c.hears("voice Laptop", "voice Phone", "screen-audio Laptop")
	b.counts()
	c.counts()
	rig.checkCodecs(t, s, a, b, c)

	a.click("#b-tone") // mute
	c.silent("voice Laptop")
	a.click("#b-tone")
	c.hears("voice Laptop")

	b.close()
	for _, left := range []*caller{a, c} {
		left.wait(`sallyport.participants.length === 2 && !sallyport.media.some(m => m.type === 'video')`)
	}
	a.hears("voice Tablet")
	c.counts()
	a.close()
	c.close()
}

// checkCodecs: what getStats says is in use is what the settings ask for.
func (rig *browserRig) checkCodecs(t *testing.T, s settings, a, b, c *caller) {
	t.Helper()
	sent := "VP8"
	received := "VP8"
	switch {
	case s.simulcast:
		sent = "VP8 h, VP8 l"
	case s.av1:
		sent, received = "AV1, VP8", "AV1"
	}
	var streams []struct {
		Kind, Codec, RID string
		FramesEncoded    int
	}
	a.until("send "+sent, func() error {
		a.eval(`sallyport.stats().then(s => s.outbound)`, &streams)
		var names []string
		for _, x := range streams {
			if x.Kind == "video" && x.FramesEncoded > 5 {
				names = append(names, strings.TrimSpace(x.Codec+" "+x.RID))
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, ", "); got != sent {
			return fmt.Errorf("it sends %s", got)
		}
		return nil
	})
	for _, want := range []struct {
		at          *caller
		name, codec string
	}{
		{b, "screen Laptop", received}, {c, "screen Laptop", "VP8"}, {a, "video Phone", received}, {c, "video Phone", "VP8"},
	} {
		if got := want.at.media()[want.name]; got.Codec != want.codec || got.FramesDecoded == 0 {
			t.Errorf("%s gets %+v, want %s", want.at.name, got, want.codec)
		}
	}
	if s.simulcast {
		b.rate("screen Laptop", 8) // more than the low layer's five
		c.rate("screen Laptop", 8)
	}
}

// testRecorder: a participant that only looks and listens, as the recorder bot,
// which is a browser without a microphone. It comes last and gets everything.
func (rig *browserRig) testRecorder(t *testing.T) {
	for _, s := range []settings{{}, {dcSignaling: true, simulcast: true}} {
		a, b := rig.join(t, "Laptop", s), rig.join(t, "Phone", s)
		a.click("#b-tone")
		b.click("#b-mic")
		a.click("#b-screen")
		b.click("#b-camera")
		b.seesCounter()
		recorder := rig.join(t, "Recorder", s)
		recorder.seesCounter()
		recorder.hears("voice Laptop", "voice Phone", "screen-audio Laptop")
		recorder.counts()
		recorder.plays(`.tile:not(.self) video`)
		recorder.screenshot("recorder")
		var sent []any
		recorder.eval(`sallyport.stats().then(s => s.outbound)`, &sent)
		if len(sent) != 0 {
			t.Errorf("the recorder sends %v", sent)
		}
		a.hears("voice Phone") // and nobody is disturbed
		for _, x := range []*caller{recorder, b, a} {
			x.close()
		}
	}
}
