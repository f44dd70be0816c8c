package sfu

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/sfu/wire"
)

// These tests play participants that are broken, or mean it.

// offerEdited sends an offer of g that has been edited on the way. The guest
// itself never applies it.
func (g *guest) offerEdited(edit func(string) string) {
	g.t.Helper()
	g.lock()
	offer, err := g.pc.CreateOffer(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	g.sess.Describe(wire.Description{Type: "offer", SDP: edit(offer.SDP)})
}

// section is a media section of an offer.
func section(kind, pt, codec, mid string, more ...string) string {
	lines := append([]string{
		fmt.Sprintf("m=%s 9 UDP/TLS/RTP/SAVPF %s", kind, pt), "c=IN IP4 0.0.0.0",
		fmt.Sprintf("a=rtpmap:%s %s", pt, codec), "a=mid:" + mid, "a=rtcp-mux",
	}, more...)
	return strings.Join(lines, "\r\n") + "\r\n"
}

func TestEndedSessionConnectsNoMore(t *testing.T) {
	srv := startServer(t) // whose end finds the connection that was made after the end
	for i := range 10 {
		g := newGuest(t, fmt.Sprint(i), guestOptions{})
		sess, err := srv.Join(Member{Group: "g", Call: "c", User: "u", Session: g.name}, g)
		if err != nil {
			t.Fatal(err)
		}
		offer, err := g.pc.CreateOffer(nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			sess.Describe(wire.Description{Type: "offer", SDP: strings.ReplaceAll(offer.SDP, "a=ice-ufrag", "a=x")})
		}
		<-g.closed
	}
}

func TestHalfAppliedOfferEndsTheSession(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	a.offerEdited(func(s string) string { return strings.ReplaceAll(s, "a=mid:", "a=nomid:") })
	<-a.closed
}

func TestReceiverThatNeverAgreedToAV1(t *testing.T) {
	srv := startServer(t)
	pub, r := join(t, srv, "call", "alpha", guestOptions{av1: true}), join(t, srv, "call", "beta", guestOptions{av1: true})
	r.offerEdited(func(s string) string { return s + section("video", "96", "VP8/90000", "7", "a=recvonly") })
	<-r.answers
	r.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	pub.sess.ScreenOn("screen")
	pub.publish(webrtc.MimeTypeVP8, "screen")
	pub.publish(webrtc.MimeTypeAV1, "screen")
	pub.publish(webrtc.MimeTypeOpus, "mic")
	r.hears(classVoice, "alpha")
	packets := func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, h := range r.heard {
			if h.track.Kind() == webrtc.RTPCodecTypeVideo {
				n += len(h.packets)
			}
		}
		return n
	}
	n := packets()
	until(t, "VP8 in place of AV1", func() bool { return packets() > n+20 })
}

func TestSectionTurnedOffByTheReceiver(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	b.publish(webrtc.MimeTypeOpus, "b")
	a.hears(classVoice, "beta")
	was := a.offered()
	a.offerEdited(func(s string) string { return strings.ReplaceAll(s, "a=recvonly", "a=inactive") })
	<-a.answers
	a.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	until(t, "another offer of the track", func() bool { return a.offered() > was && len(a.sending()) == 1 })
}

func TestFirstOfferWithMedia(t *testing.T) {
	srv := startServer(t)
	b := join(t, srv, "call", "beta", guestOptions{})
	g := newGuest(t, "alpha", guestOptions{})
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "mic", "stream")
	if err != nil {
		t.Fatal(err)
	}
	sender, err := g.pc.AddTrack(track)
	if err != nil {
		t.Fatal(err)
	}
	g.join(srv, "call")
	src := &source{g: g, stop: make(chan struct{}), level: 127, track: track, sender: sender}
	src.wg.Go(src.send)
	src.wg.Go(src.feedback)
	t.Cleanup(src.end)
	b.hears(classVoice, "alpha")
	b.publish(webrtc.MimeTypeOpus, "b")
	g.hears(classVoice, "beta")
}

// join joins with whatever the guest has to offer.
func (g *guest) join(srv *Server, call string) {
	g.t.Helper()
	sess, err := srv.Join(Member{Group: "group", Call: call, User: "user-" + g.name, Session: g.name}, g)
	if err != nil {
		g.t.Fatal(err)
	}
	g.sess = sess
	offer, err := g.pc.CreateOffer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(offer)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	sess.Describe(wire.Description{Type: "offer", SDP: offer.SDP})
	g.accept(<-g.answers)
	<-g.open
}

func TestTooManyDataChannelsEndTheSession(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	for i := range maxChannels {
		if _, err := a.pc.CreateDataChannel(fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	<-a.closed
}

func TestSectionsAreBounded(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	a.offerEdited(func(s string) string {
		var b strings.Builder
		for i := range maxSections {
			b.WriteString(section("audio", "111", "opus/48000/2", fmt.Sprint("x", i)))
		}
		return s + b.String()
	})
	a.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	a.lock() // by now the offer has been handled
	if n := len(a.sess.pc.GetTransceivers()); n != 0 {
		t.Errorf("an offer of %d sections made %d transceivers", maxSections+1, n)
	}
}

func TestCandidatesInDescriptionsAreBounded(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	for round := range 3 {
		a.offerEdited(func(s string) string {
			var b strings.Builder
			for i := range 100 {
				fmt.Fprintf(&b, "a=candidate:1 1 udp 2130706431 127.0.0.1 %d typ host\r\n", 10000+100*round+i)
			}
			return s + b.String()
		})
		<-a.answers
		a.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	}
	remote := 0
	for _, stat := range a.sess.pc.GetStats() {
		if c, ok := stat.(webrtc.ICECandidateStats); ok && c.Type == webrtc.StatsTypeRemoteCandidate {
			remote++
		}
	}
	if remote == 0 || remote > maxCandidates+1 { // one more: where its checks come from
		t.Errorf("%d remote candidates are checked, want 1 to %d", remote, maxCandidates)
	}
}

func TestFloodOfSSRCs(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a") // of who only listens no RTCP is read
	b.publish(webrtc.MimeTypeOpus, "b")
	h := a.hears(classVoice, "beta")
	next := uint32(1)
	flood := func(count int) { // each packet names 250 receivers
		for range count {
			p := &rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1000}
			for range 250 {
				p.SSRCs = append(p.SSRCs, next)
				next++
			}
			if a.pc.WriteRTCP([]rtcp.Packet{p}) != nil {
				return
			}
		}
	}
	flood(40) // more than have a buffer
	n := a.count(h)
	until(t, "the voice to go on", func() bool { return a.count(h) > n+10 })
	until(t, "the session to end", func() bool {
		flood(20)
		select {
		case <-a.closed:
			return true
		default:
			return false
		}
	})
}

// A crude track is one whose packets are written as they are.
type crude struct {
	*webrtc.TrackLocalStaticRTP
	bound chan webrtc.TrackLocalContext
}

// Bind implements webrtc.TrackLocal.
func (c *crude) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	c.bound <- ctx
	return c.TrackLocalStaticRTP.Bind(ctx)
}

func TestUnknownPayloadTypeDoesNotEndTheTrack(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	static, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "mic", "stream")
	if err != nil {
		t.Fatal(err)
	}
	track := &crude{static, make(chan webrtc.TrackLocalContext, 1)}
	var sender *webrtc.RTPSender
	a.negotiate(func() {
		if sender, err = a.pc.AddTrack(track); err != nil {
			t.Fatal(err)
		}
	})
	src := &source{g: a, stop: make(chan struct{}), level: 127, track: static, sender: sender}
	src.wg.Go(src.send)
	src.wg.Go(src.feedback)
	t.Cleanup(src.end)
	h := b.hears(classVoice, "alpha")
	ctx := <-track.bound
	if _, err := ctx.WriteStream().WriteRTP(&rtp.Header{Version: 2, PayloadType: 13, SequenceNumber: 9, SSRC: uint32(ctx.SSRC())}, []byte{1}); err != nil {
		t.Fatal(err)
	}
	n := b.count(h)
	until(t, "the track to go on", func() bool { return b.count(h) > n+50 })
}

func TestTwoSSRCsInOneSectionOfAnAnswer(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.mu.Lock()
	a.silent = true
	a.mu.Unlock()
	b.publish(webrtc.MimeTypeOpus, "b")
	until(t, "the offer", func() bool { return a.offered() == 1 })
	a.mu.Lock()
	offer := *a.held
	a.mu.Unlock()
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer.SDP}); err != nil {
		t.Fatal(err)
	}
	answer, err := a.pc.CreateAnswer(nil)
	if err == nil {
		err = a.pc.SetLocalDescription(answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	sdp := strings.ReplaceAll(answer.SDP, "a=recvonly\r\n", "a=sendrecv\r\na=msid:x y\r\na=ssrc:1001 cname:x\r\na=ssrc:1002 cname:x\r\na=ssrc:1003 msid:p q\r\n")
	if sdp == answer.SDP {
		t.Fatal("the answer has no section that only receives")
	}
	a.sess.Describe(wire.Description{Type: "answer", SDP: sdp})
	a.lock() // by now the answer has been handled
	a.hears(classVoice, "beta")
}

func TestWishForTheLockRepeatsALostOffer(t *testing.T) {
	var took time.Duration
	for range 3 { // a stall may take the second that is to spare
		if took = lockAfterALostOffer(t); took <= 5*time.Second {
			return
		}
	}
	t.Errorf("the lock took %s: clients have given up after 5 s", took)
}

// lockAfterALostOffer returns after what time the lock was granted.
func lockAfterALostOffer(t *testing.T) (took time.Duration) {
	t.Helper()
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.mu.Lock()
	a.silent = true
	a.mu.Unlock()
	b.publish(webrtc.MimeTypeOpus, "b")
	until(t, "the offer that is lost", func() bool { return a.offered() == 1 })
	a.mu.Lock()
	a.silent = false
	a.mu.Unlock()
	start := time.Now()
	until(t, "the lock", func() bool {
		a.send(wire.ChannelMessage{Type: wire.ChannelLock})
		select {
		case granted := <-a.granted:
			if !granted {
				<-time.After(50 * time.Millisecond) // as clients do: who asks more often is not heard
			}
			return granted
		case <-time.After(patience):
			return false
		}
	})
	took = time.Since(start)
	a.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
	a.hears(classVoice, "beta")
	return took
}

// TestFloodOnTheDataChannel: what a participant says is looked at a hundred times
// a second and no more often, before it is inflated.
func TestFloodOnTheDataChannel(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	big := append([]byte{byte(wire.ChannelSDP), 0xc5, 0x10, 0x00}, make([]byte, 0x1000)...) // not deflated at all
	dropped := srv.metrics.errors.WithLabelValues("group", "signaling")
	for range 2 * messagesAtOnce {
		if err := a.dc.Send(big); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "messages to be dropped", func() bool { return testutil.ToFloat64(dropped) > messagesAtOnce })
	until(t, "the lock", func() bool { // is heard again soon
		a.send(wire.ChannelMessage{Type: wire.ChannelLock})
		return len(a.granted) > 0
	})
}
