package sfu

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

var discard = slog.New(slog.DiscardHandler)

// roads runs a test over both kinds of signaling and both kinds of transport.
func roads(t *testing.T, f func(t *testing.T, o guestOptions)) {
	for _, tt := range []struct {
		name string
		o    guestOptions
	}{
		{"udp, signaling through the front door", guestOptions{}},
		{"udp, signaling on the data channel", guestOptions{dc: true}},
		{"tcp", guestOptions{tcp: true, dc: true}},
	} {
		t.Run(tt.name, func(t *testing.T) { f(t, tt.o) })
	}
}

func TestEveryoneHearsEveryoneElse(t *testing.T) {
	roads(t, func(t *testing.T, o guestOptions) {
		srv := startServer(t)
		a, b := join(t, srv, "call", "alpha", o), join(t, srv, "call", "beta", guestOptions{})
		a.publish(webrtc.MimeTypeOpus, "a")
		b.publish(webrtc.MimeTypeOpus, "b")
		for _, h := range []*heardTrack{a.hears(classVoice, "beta"), b.hears(classVoice, "alpha")} {
			if h.media.Type != classVoice {
				t.Errorf("media map at the track event: %+v, want a voice", h.media)
			}
			fields := strings.Split(h.track.ID(), "_")
			if len(fields) != 3 || fields[1] != h.track.StreamID() || len(fields[2]) != 8 || h.media.Sender != fields[1] {
				t.Errorf("track %q of stream %q, map says %+v", h.track.ID(), h.track.StreamID(), h.media)
			}
		}
		c := join(t, srv, "other call", "gamma", o)
		if got := len(c.sending()); got != 0 {
			t.Errorf("another call is sent %d tracks", got)
		}
	})
}

func TestSequenceNumbersAndTimestampsAreThePublishers(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	h := b.hears(classVoice, "alpha")
	until(t, "the sequence number to wrap", func() bool { return b.count(h) > 60 })
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range h.packets {
		if want := h.packets[0].SequenceNumber + uint16(i); p.SequenceNumber != want || p.Timestamp != uint32(want)*960 {
			t.Fatalf("packet %d: sequence number %d timestamp %d, want %d and %d", i, p.SequenceNumber, p.Timestamp, want, uint32(want)*960)
		}
	}
}

func TestLateJoinerGetsAllTracksInOneOffer(t *testing.T) {
	srv := startServer(t)
	const speakers = 20
	var all sync.WaitGroup
	for i := range speakers {
		g := newGuest(t, fmt.Sprintf("speaker%d", i), guestOptions{})
		all.Go(func() {
			g.join(srv, "call")
			g.do(func() { g.sess.told = 0 }) // this is not about them
			g.murmur()
		})
	}
	all.Wait()
	until(t, "everybody to be published", func() bool {
		n := 0
		for _, s := range srv.Status().Calls[0].Sessions {
			n += len(s.Tracks)
		}
		return n == speakers
	})
	late := join(t, srv, "call", "late", guestOptions{})
	for i := range speakers {
		late.hears(classVoice, fmt.Sprintf("speaker%d", i))
	}
	if got := late.offered(); got != 1 {
		t.Errorf("%d offers for %d speakers, want 1", got, speakers)
	}
}

func TestMuteStopsPacketsWithoutNegotiation(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	h := b.hears(classVoice, "alpha")
	offers, ssrc := b.offered(), h.track.SSRC()

	a.sess.Mute()
	until(t, "the voice-off of a mute", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.voice) == 1 && !a.voice[0] })
	n := -1
	until(t, "silence", func() bool { // no packet for a quarter of a second
		last := n
		n = b.count(h)
		time.Sleep(250 * time.Millisecond)
		return last == n
	})
	a.sess.Unmute()
	until(t, "sound", func() bool { return b.count(h) > n+5 })
	if b.offered() != offers || h.track.SSRC() != ssrc {
		t.Errorf("mute and unmute negotiated: %d offers, before %d", b.offered(), offers)
	}
}

func TestMuteBeforeTheFirstTrackHolds(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.sess.Mute()
	a.publish(webrtc.MimeTypeOpus, "a")
	until(t, "the track to be offered", func() bool { return b.sending()[wire.Media{Type: classVoice, Sender: "alpha"}] == 1 })
	a.sess.Unmute()
	b.hears(classVoice, "alpha")
}

func TestScreenShare(t *testing.T) {
	roads(t, func(t *testing.T, o guestOptions) {
		srv := startServer(t)
		a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", o)
		a.sess.ScreenOn("screen-stream")
		video := a.publish(webrtc.MimeTypeVP8, "screen-stream")
		a.publish(webrtc.MimeTypeOpus, "screen-stream")
		b.hears(classScreen, "alpha")
		b.hears(classScreenAudio, "alpha")
		until(t, "a key frame request", func() bool { video.mu.Lock(); defer video.mu.Unlock(); return video.plis > 0 })

		b.sess.ScreenOn("second") // refused: somebody else shares
		b.publish(webrtc.MimeTypeVP8, "second")
		late := join(t, srv, "call", "late", o)
		late.hears(classScreen, "alpha")
		want := map[wire.Media]int{{Type: classScreen, Sender: "alpha"}: 1, {Type: classScreenAudio, Sender: "alpha"}: 1}
		if diff := cmp.Diff(want, late.sending()); diff != "" {
			t.Errorf("media map (-want +got):\n%s", diff)
		}
		a.sess.ScreenOff()
		until(t, "the screen to go", func() bool { return len(b.sending()) == 0 && len(late.sending()) == 0 })
	})
}

func TestSoundOfAScreenMayArriveBeforeItsAnnouncement(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "mic")
	b.hears(classVoice, "alpha")
	a.publish(webrtc.MimeTypeOpus, "screen")
	a.publish(webrtc.MimeTypeVP8, "screen")
	a.sess.ScreenOn("screen")
	b.hears(classScreenAudio, "alpha")
	b.hears(classScreen, "alpha")
	want := map[wire.Media]int{{Type: classVoice, Sender: "alpha"}: 1, {Type: classScreen, Sender: "alpha"}: 1, {Type: classScreenAudio, Sender: "alpha"}: 1}
	if diff := cmp.Diff(want, b.sending()); diff != "" {
		t.Errorf("media map (-want +got):\n%s", diff)
	}
	a.publish(webrtc.MimeTypeOpus, "another mic") // not announced: the new voice
	until(t, "the new voice", func() bool { return len(b.heardOf(classVoice, "alpha")) == 2 })
}

func TestCameraMayArriveBeforeItsAnnouncement(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeVP8, "camera")
	a.publish(webrtc.MimeTypeOpus, "mic")
	b.hears(classVoice, "alpha") // by now the camera has been arriving, unannounced
	if got := b.sending()[wire.Media{Type: classVideo, Sender: "alpha"}]; got != 0 {
		t.Error("an unannounced video track is distributed")
	}
	a.sess.VideoOn("camera")
	h := b.hears(classVideo, "alpha")
	offers := b.offered()
	a.sess.VideoOff()
	a.sess.VideoOn("camera, once more") // same track, new stream: nothing changes
	n := b.count(h)
	until(t, "more video", func() bool { return b.count(h) > n+5 })
	if b.offered() != offers {
		t.Error("a restarted camera was negotiated")
	}
}

func TestKeyframeRequestsAreThrottled(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	start := time.Now()
	a.sess.VideoOn("camera")
	src := a.publish(webrtc.MimeTypeVP8, "camera")
	for i := range 5 {
		join(t, srv, "call", fmt.Sprintf("viewer%d", i), guestOptions{}).hears(classVideo, "alpha")
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if most := int(time.Since(start)/keyframeEvery) + 1; src.plis < 1 || src.plis > most {
		t.Errorf("%d key frame requests in %s, want 1 to %d", src.plis, time.Since(start), most)
	}
}

// TestFullIntraRequests: old clients ask for a key frame with a FIR (RFC 5104 §4.3.1),
// many at once perhaps.
func TestFullIntraRequests(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.sess.VideoOn("camera")
	src := a.publish(webrtc.MimeTypeVP8, "camera")
	to := uint32(b.hears(classVideo, "alpha").track.SSRC())
	asked := func() int {
		src.mu.Lock()
		defer src.mu.Unlock()
		return src.plis
	}
	until(t, "the key frame request of the join", func() bool { return asked() > 0 })
	start, before := time.Now(), asked()
	for round := range 2 {
		until(t, "a key frame request", func() bool {
			for seq := range 5 {
				_ = b.pc.WriteRTCP([]rtcp.Packet{&rtcp.FullIntraRequest{MediaSSRC: to, FIR: []rtcp.FIREntry{{SSRC: to, SequenceNumber: uint8(seq)}}}})
			}
			return asked() > before+round
		})
	}
	// One more may have been on its way when it began.
	if n, most := asked()-before, int(time.Since(start)/keyframeEvery)+2; n > most {
		t.Errorf("%d key frame requests in %s, want at most %d", n, time.Since(start), most)
	}
}

func TestAV1GoesToThoseWhoHaveIt(t *testing.T) {
	srv := startServer(t)
	pub := join(t, srv, "call", "alpha", guestOptions{av1: true})
	plain, modern := join(t, srv, "call", "plain", guestOptions{}), join(t, srv, "call", "modern", guestOptions{av1: true})
	pub.sess.ScreenOn("screen")
	pub.publish(webrtc.MimeTypeVP8, "screen")
	modern.hears(classScreen, "alpha") // VP8 until there is better
	pub.publish(webrtc.MimeTypeAV1, "screen")
	codec := func(g *guest) (mime string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		most := 0
		for _, h := range g.heard {
			if n := len(h.packets); n > 0 && h.packets[n-1].SequenceNumber+500 > uint16(most) {
				mime = h.track.Codec().MimeType
			}
		}
		return mime
	}
	until(t, "AV1", func() bool {
		modern.mu.Lock()
		defer modern.mu.Unlock()
		for _, h := range modern.heard {
			if h.track.Codec().MimeType == webrtc.MimeTypeAV1 && len(h.packets) > 5 {
				return true
			}
		}
		return false
	})
	if diff := cmp.Diff(map[wire.Media]int{{Type: classScreen, Sender: "alpha"}: 1}, modern.sending()); diff != "" {
		t.Errorf("media map of the AV1 receiver (-want +got):\n%s", diff)
	}
	if got := codec(plain); got != webrtc.MimeTypeVP8 {
		t.Errorf("the receiver without AV1 gets %s", got)
	}
}

func TestVoiceActivity(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	src := a.publish(webrtc.MimeTypeOpus, "a")
	time.AfterFunc(1200*time.Millisecond, func() { src.set(func(s *source) { s.level = 20 }) })
	until(t, "a voice-on", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.voice) > 0 && a.voice[0] })
	a.sess.Mute()
	until(t, "a voice-off", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.voice) > 1 && !a.voice[1] })
	b := join(t, srv, "call", "beta", guestOptions{})
	src.set(func(s *source) { s.paused = true }) // as a muted client does
	a.sess.Unmute()
	src.set(func(s *source) { s.paused, s.level = false, 127 })
	h := b.hears(classVoice, "alpha")
	src.set(func(s *source) { s.level = 20 }) // loud within the first window: too early to say
	until(t, "a whole window", func() bool { return b.count(h) > 25 })
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.voice) != 2 {
		t.Errorf("speaking states %v: the levels from before the mute still count", a.voice)
	}
}

func TestLock(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.send(wire.ChannelMessage{Type: wire.ChannelUnlock}) // harmless
	a.lock()
	a.send(wire.ChannelMessage{Type: wire.ChannelLock})
	if <-a.granted {
		t.Error("the lock was granted twice")
	}
	b.publish(webrtc.MimeTypeOpus, "b") // waits for the lock of a, and b does not wait for a
	c := join(t, srv, "call", "gamma", guestOptions{})
	c.hears(classVoice, "beta")
	if got := a.offered(); got != 0 {
		t.Errorf("%d offers while the participant held the lock", got)
	}
	a.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	a.hears(classVoice, "beta")
}

func TestLockLeaseExpires(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.lock() // and never unlocks
	b.publish(webrtc.MimeTypeOpus, "b")
	a.hears(classVoice, "beta")
}

func TestOfferWithoutAnswerIsSentAgain(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.mu.Lock()
	a.silent = true
	a.mu.Unlock()
	b.publish(webrtc.MimeTypeOpus, "b")
	until(t, "the offer", func() bool { return a.offered() == 1 })
	c := join(t, srv, "call", "gamma", guestOptions{})
	c.hears(classVoice, "beta") // nobody else waits
	a.mu.Lock()
	a.silent = false
	a.mu.Unlock()
	a.hears(classVoice, "beta") // with the second offer
}

func TestSessionEnds(t *testing.T) {
	t.Run("by leaving", func(t *testing.T) {
		srv := startServer(t)
		a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
		b.publish(webrtc.MimeTypeOpus, "b")
		a.hears(classVoice, "beta")
		b.sess.Leave()
		<-b.closed
		until(t, "the track to go", func() bool { return len(a.sending()) == 0 })
		if srv.Count() != 1 || srv.Session("group", "beta") != nil {
			t.Errorf("%d sessions after one of two has left", srv.Count())
		}
	})
	t.Run("when the client closes", func(t *testing.T) {
		srv := startServer(t)
		a := join(t, srv, "call", "alpha", guestOptions{})
		_ = a.pc.Close()
		<-a.closed
	})
	t.Run("without an offer", func(t *testing.T) {
		t.Parallel()
		srv := startServer(t)
		g := newGuest(t, "alpha", guestOptions{})
		if _, err := srv.Join(Member{Group: "g", Call: "c", User: "u", Session: "s"}, g); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-g.closed
		if took := time.Since(start); took < 9*time.Second || took > 20*time.Second {
			t.Errorf("ended after %s, want 10 s", took)
		}
		if srv.Count() != 0 {
			t.Errorf("%d sessions left", srv.Count())
		}
	})
	t.Run("by an unusable offer", func(t *testing.T) {
		srv := startServer(t)
		g := newGuest(t, "alpha", guestOptions{})
		sess, err := srv.Join(Member{Group: "g", Call: "c", User: "u", Session: "s"}, g)
		if err != nil {
			t.Fatal(err)
		}
		sess.Describe(wire.Description{Type: "offer", SDP: "v=0\r\n"})
		<-g.closed
	})
}

func TestJoin(t *testing.T) {
	srv := startServer(t)
	ok := Member{Group: "g", Call: "c", User: "u", Session: "s"}
	for _, m := range []Member{{}, {Call: "c", User: "u", Session: "s"}, {Group: "g", User: "u", Session: "s"}, {Group: "g", Call: "c", Session: "s"}, {Group: "g", Call: "c", User: "u"}} {
		if _, err := srv.Join(m, newGuest(t, "x", guestOptions{})); err != ErrInvalid {
			t.Errorf("join %+v: %v, want ErrInvalid", m, err)
		}
	}
	first, second := newGuest(t, "first", guestOptions{}), newGuest(t, "second", guestOptions{})
	if _, err := srv.Join(ok, first); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Join(ok, second); err != ErrExists {
		t.Errorf("second join: %v, want ErrExists", err)
	}
	foreign := ok
	foreign.Group = "other"
	if _, err := srv.Join(foreign, newGuest(t, "third", guestOptions{})); err != nil {
		t.Errorf("the same names in another group: %v", err)
	}
	moved := ok
	moved.Call = "d"
	if _, err := srv.Join(moved, second); err != nil {
		t.Errorf("the same session in another call: %v", err)
	}
	<-first.closed
	if _, err := srv.Sessions("g", "c"); err != ErrNoCall {
		t.Errorf("the call everybody left: %v, want ErrNoCall", err)
	}
	if got, err := srv.Sessions("g", "d"); err != nil || len(got) != 1 {
		t.Errorf("the new call: %v, %v", got, err)
	}
	srv.Drain()
	if _, err := srv.Join(Member{Group: "g", Call: "c", User: "u", Session: "s2"}, second); err != ErrDraining {
		t.Errorf("join while draining: %v", err)
	}
}

func TestChurnDoesNotGrowTheDescription(t *testing.T) {
	srv := startServer(t)
	stay := join(t, srv, "call", "stay", guestOptions{})
	for i := range 12 {
		name := fmt.Sprintf("visitor%d", i)
		v := join(t, srv, "call", name, guestOptions{})
		src := v.publish(webrtc.MimeTypeOpus, "v")
		stay.hears(classVoice, name)
		src.end()
		v.sess.Leave()
		<-v.closed
		_ = v.pc.Close()
		until(t, "the visitor's track to go", func() bool { return len(stay.sending()) == 0 })
	}
	if got := strings.Count(stay.pc.CurrentRemoteDescription().SDP, "m=audio"); got > 3 {
		t.Errorf("%d audio sections after 12 visitors who came one after another", got)
	}
}
