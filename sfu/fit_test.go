package sfu

import (
	"fmt"
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
