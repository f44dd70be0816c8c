package sfu

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

func TestFit(t *testing.T) {
	var want []*up
	for i, c := range []string{classVoice, classVoice, classVoice, classScreen, classVoice, classVideo} {
		u := &up{}
		u.class.Store(&upClass{class: c, id: fmt.Sprint(i)})
		u.on.Store(i != 1)
		want = append(want, u)
	}
	for most, ids := range map[int][]string{
		6: {"0", "1", "2", "3", "4", "5"}, // everything, as it is
		5: {"3", "5", "0", "2", "4"},      // but the muted one
		4: {"3", "5", "0", "2"},
		2: {"3", "5"},
	} {
		var got []string
		for _, u := range fit(want, most) {
			got = append(got, u.class.Load().id)
		}
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("at most %d (-want +got):\n%s", most, diff)
		}
	}
}

// TestMoreTracksThanSections: a participant on the data channel is offered what its
// descriptions can hold, what can be seen before all, and can go on negotiating.
func TestMoreTracksThanSections(t *testing.T) {
	srv := startServer(t)
	r := join(t, srv, "call", "receiver", guestOptions{dc: true})
	const room, voices = 2, 4
	r.do(func() { r.sess.sections = 1 + room + spareSections })
	var speakers []*guest
	for i := range voices {
		g := join(t, srv, "call", fmt.Sprint("speaker", i), guestOptions{})
		if i > 0 {
			g.sess.Mute()
		}
		g.publish(webrtc.MimeTypeOpus, "voice")
		speakers = append(speakers, g)
	}
	r.hears(classVoice, "speaker0")
	until(t, "two voices to be offered", func() bool { return len(r.sending()) == room })
	speakers[0].sess.Mute()
	speakers[voices-1].sess.Unmute()
	r.hears(classVoice, speakers[voices-1].name)
	r.publish(webrtc.MimeTypeOpus, "mine")
	speakers[0].hears(classVoice, "receiver")
	if got := len(r.sending()); got < room || got > room+1 { // its own section carries one, too
		t.Errorf("%d tracks in the media map, want %d", got, room)
	}
}

func TestFitSections(t *testing.T) {
	var want []*up
	for _, class := range []string{classVoice, classScreenAudio, classScreen, classVoice, classVideo} {
		u := &up{}
		u.class.Store(&upClass{class: class})
		u.on.Store(true)
		want = append(want, u)
	}
	for _, tt := range []struct {
		audio, video, room int // sections there are, and may be
		want               string
	}{
		{0, 0, 5, "voice screen-audio screen voice video"},
		{0, 0, 4, "screen-audio screen video voice"},
		{0, 0, 2, "screen-audio screen"},
		{2, 2, 4, "screen-audio screen video voice"}, // what is there is used again
		{4, 0, 4, "screen-audio voice voice"},
		{0, 4, 5, "screen-audio screen video"},
		{3, 1, 5, "screen-audio screen video voice voice"},
		{9, 0, 5, "screen-audio voice voice"},
	} {
		have := map[webrtc.RTPCodecType]int{webrtc.RTPCodecTypeAudio: tt.audio, webrtc.RTPCodecTypeVideo: tt.video}
		var got []string
		for _, u := range fitSections(want, have, 1+tt.room+spareSections) {
			got = append(got, u.kind())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt, diff)
		}
	}
}

// TestWhoeverSpeaksIsHeard: when there are more voices than fit, the voice of
// somebody who unmutes takes the place of a muted one.
func TestWhoeverSpeaksIsHeard(t *testing.T) {
	srv := startServer(t)
	few := func(g *guest) *guest {
		g.do(func() { g.sess.told = 1 })
		return g
	}
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	r := few(join(t, srv, "call", "gamma", guestOptions{}))
	all := join(t, srv, "call", "delta", guestOptions{dc: true}) // has room for everything
	a.publish(webrtc.MimeTypeOpus, "a")
	b.sess.Mute()
	b.publish(webrtc.MimeTypeOpus, "b")
	voice := func(from string) wire.Media { return wire.Media{Type: classVoice, Sender: from} }
	until(t, "both voices to be offered", func() bool { return len(all.sending()) == 2 })
	r.hears(classVoice, "alpha")
	a.sess.Mute()
	b.sess.Unmute()
	r.hears(classVoice, "beta")
	if diff := cmp.Diff(map[wire.Media]int{voice("beta"): 1}, r.sending()); diff != "" {
		t.Errorf("media map (-want +got):\n%s", diff)
	}
}
