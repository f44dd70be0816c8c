package sfu

import (
	"strings"
	"testing"

	"github.com/pion/webrtc/v3"
)

// opusOnly is all that the transcriber knows.
func opusOnly() webrtc.RTPCodecParameters {
	c := webrtc.RTPCodecParameters{PayloadType: 111}
	c.MimeType, c.ClockRate, c.Channels = webrtc.MimeTypeOpus, 48000, 2
	return c
}

// TestBots: a transcriber, which refuses all video in the manner of pion (without
// naming the section), and a recorder, which takes everything, get every track,
// whether they come first or last.
func TestBots(t *testing.T) {
	for name, tt := range map[string]struct{ dc, first bool }{
		"first, signaling through the front door": {false, true},
		"first, signaling on the data channel":    {true, true},
		"last, signaling through the front door":  {false, false},
		"last, signaling on the data channel":     {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t)
			var transcriber, recorder *guest
			enter := func() {
				transcriber = join(t, srv, "call", "transcriber", guestOptions{bot: true, dc: tt.dc})
				recorder = join(t, srv, "call", "recorder", guestOptions{dc: tt.dc})
			}
			if tt.first {
				enter()
			}
			a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
			a.sess.ScreenOn("screen")
			a.publish(webrtc.MimeTypeVP8, "screen")
			a.publish(webrtc.MimeTypeOpus, "screen")
			a.publish(webrtc.MimeTypeOpus, "a")
			b.publish(webrtc.MimeTypeOpus, "b")
			if !tt.first {
				enter()
			}
			for _, g := range []*guest{transcriber, recorder} {
				g.parsed(classVoice, "alpha")
				g.parsed(classVoice, "beta")
				g.parsed(classScreenAudio, "alpha")
			}
			recorder.parsed(classScreen, "alpha")
			c := join(t, srv, "call", "gamma", guestOptions{}) // after the video was refused
			c.publish(webrtc.MimeTypeOpus, "c")
			transcriber.parsed(classVoice, "gamma")
			recorder.parsed(classVoice, "gamma")
			if n := len(transcriber.heardOf(classScreen, "alpha")); n != 0 {
				t.Errorf("the transcriber has %d screens", n)
			}
		})
	}
}

// parsed waits for a track and takes its ID apart as the Go client library does.
func (g *guest) parsed(class, from string) {
	g.t.Helper()
	h := g.hears(class, from)
	f := strings.Split(h.track.ID(), "_")
	if len(f) != 3 || f[0] != class || f[1] != from || f[2] == "" {
		g.t.Errorf("%s: track ID %q does not say %s of %s", g.name, h.track.ID(), class, from)
	}
	if h.track.StreamID() != from {
		g.t.Errorf("%s: stream ID %q, want %q", g.name, h.track.StreamID(), from)
	}
}
