package sfu

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// TestSectionsAreUsedAgain: one who stays while others come, share everything and
// go, has as many sections as were in use at a time, whatever the order.
func TestSectionsAreUsedAgain(t *testing.T) {
	srv := startServer(t)
	stay := join(t, srv, "call", "stay", guestOptions{})
	const rounds = 12
	for i := range rounds {
		name := fmt.Sprint("visitor", i)
		v := join(t, srv, "call", name, guestOptions{})
		v.sess.ScreenOn("screen")
		v.sess.VideoOn("camera")
		sources := []*source{
			v.publish(webrtc.MimeTypeOpus, "mic"), v.publish(webrtc.MimeTypeVP8, "screen"),
			v.publish(webrtc.MimeTypeOpus, "screen"), v.publish(webrtc.MimeTypeVP8, "camera"),
		}
		for _, class := range classes {
			stay.hears(class, name)
		}
		if i%3 == 0 { // the share ends before the visitor goes
			v.sess.ScreenOff()
			until(t, "the screen to go", func() bool { return stay.sending()[wire.Media{Type: classScreenAudio, Sender: name}] == 0 })
		}
		for _, s := range sources {
			s.end()
		}
		v.sess.Leave()
		<-v.closed
		_ = v.pc.Close()
		if i%3 != 1 { // else the next one comes before this one's tracks are gone
			until(t, "the visitor's tracks to go", func() bool { return len(stay.sending()) == 0 })
		}
	}
	sdp := stay.pc.CurrentRemoteDescription().SDP
	// Two visitors' worth: those who go and those who come may meet in one offer.
	if audio, video := strings.Count(sdp, "m=audio"), strings.Count(sdp, "m=video"); audio > 4 || video > 4 {
		t.Errorf("%d audio and %d video sections after %d visitors with two of each", audio, video, rounds)
	}
}

// TestSectionsOfAV1AreUsedAgain: with sections that carry only one codec too.
func TestSectionsOfAV1AreUsedAgain(t *testing.T) {
	srv := startServer(t)
	stay := join(t, srv, "call", "stay", guestOptions{av1: true, rewrite: wide})
	stay.publishAlone(webrtc.MimeTypeVP8).end() // a section that is free, but not for AV1
	const rounds = 8
	for i := range rounds {
		name := fmt.Sprint("visitor", i)
		v := join(t, srv, "call", name, guestOptions{av1: true})
		v.sess.ScreenOn("screen")
		mime := []string{webrtc.MimeTypeAV1, webrtc.MimeTypeVP8}[i%2]
		src := v.publish(mime, "screen")
		if h := stay.hears(classScreen, name); h.track.Codec().MimeType != mime {
			t.Errorf("round %d: got %s, want %s", i, h.track.Codec().MimeType, mime)
		}
		src.end()
		v.sess.Leave()
		<-v.closed
		_ = v.pc.Close()
		until(t, "the visitor's track to go", func() bool { return len(stay.sending()) == 0 })
	}
	if n := strings.Count(stay.pc.CurrentRemoteDescription().SDP, "m=video"); n > 3 {
		t.Errorf("%d video sections after %d visitors", n, rounds)
	}
}
