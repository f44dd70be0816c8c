package sfu

import (
	"errors"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"
)

// TestAnOfferThatFails: what it was to tell is told by a later one, also if that is
// only that a track has gone, and it is not tried all the time.
func TestAnOfferThatFails(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	b.publish(webrtc.MimeTypeOpus, "b")
	a.hears(classVoice, "beta")
	var tries []time.Time // by the clock of alpha's session, which is done with them when it sends
	a.do(func() {
		create := a.sess.create
		a.sess.create = func(o *webrtc.OfferOptions) (webrtc.SessionDescription, error) {
			if tries = append(tries, a.sess.madeAt); len(tries) <= 2 {
				return webrtc.SessionDescription{}, errors.New("not today")
			}
			return create(o)
		}
	})
	b.sess.Leave()
	until(t, "the voice to go", func() bool { return len(a.sending()) == 0 })
	a.do(func() {
		if len(tries) != 3 {
			t.Errorf("%d tries, want 3", len(tries))
			return
		}
		for i, wait := range []time.Duration{2 * offerEvery, 4 * offerEvery} {
			if got := tries[i+1].Sub(tries[i]); got < wait {
				t.Errorf("try %d after %v, want at least %v", i+2, got, wait)
			}
		}
	})
	b = join(t, srv, "call", "gamma", guestOptions{})
	b.publish(webrtc.MimeTypeOpus, "c")
	a.hears(classVoice, "gamma")
}
