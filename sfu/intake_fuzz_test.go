package sfu

import (
	"testing"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v2"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// nowhere is a network without interfaces: nothing is ever sent.
type nowhere struct{ transport.Net }

// Interfaces implements transport.Net.
func (nowhere) Interfaces() ([]*transport.Interface, error) { return nil, nil }

// A mute Signal notes answers and the end.
type muteSignal struct {
	answers chan wire.Description
	closed  chan struct{}
}

func (m muteSignal) Answer(d wire.Description) {
	select {
	case m.answers <- d:
	default:
	}
}
func (muteSignal) Offer(wire.Description)   {}
func (muteSignal) Candidate(wire.Candidate) {}
func (muteSignal) Voice(bool)               {}
func (m muteSignal) Closed()                { close(m.closed) }

// offerSomething makes an offer of ours with one voice and one picture, as
// makeOffer does.
func (s *Session) offerSomething() {
	for _, mime := range []string{webrtc.MimeTypeOpus, webrtc.MimeTypeVP8} {
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, "voice_x_y", "x")
		if err == nil {
			_, err = s.pc.AddTrack(track)
		}
		if err != nil {
			return // there is no section for it
		}
	}
	o, err := s.pc.CreateOffer(nil)
	if err == nil {
		err = s.pc.SetLocalDescription(o)
	}
	if err == nil {
		now := time.Now()
		s.offer, s.sentAt, s.sendAt, s.sends = &wire.Description{Type: "offer", SDP: o.SDP}, now, now.Add(far), 1
	}
}

// FuzzIntake plays a participant that sends an offer, a candidate, and then
// another offer or the answer to ours, to a session without a network. Whatever
// it sends, the session must end when told, soon, and its answer to an ordinary
// offer must have the sections of that.
func FuzzIntake(f *testing.F) {
	srv := nowhereServer(f)
	f.Fuzz(func(t *testing.T, first, candidate string, answer bool, second string) {
		if len(first)+len(candidate)+len(second) > 64<<10 {
			t.Skip("longer than what comes through Mattermost")
		}
		m := muteSignal{answers: make(chan wire.Description, 4), closed: make(chan struct{})}
		s, err := srv.Join(Member{Group: "g", Call: "c", User: "u", Session: "s"}, m)
		if err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(20*time.Second, func() { panic("the session takes too long") })
		defer late.Stop()
		s.Describe(wire.Description{Type: "offer", SDP: first})
		s.postWait(func() { s.remoteCandidate(wire.Candidate{Candidate: candidate}) })
		s.postWait(func() {
			if s.phase != answered {
				return
			}
			s.phase = active
			if answer {
				s.offerSomething()
				s.describe(wire.Description{Type: "answer", SDP: second}, overSignal)
			} else {
				s.describe(wire.Description{Type: "offer", SDP: second}, overSignal)
			}
		})
		done := make(chan struct{})
		s.postWait(func() { close(done) })
		select {
		case <-done:
		case <-s.done:
		}
		s.Leave()
		<-m.closed
		close(m.answers)
		offers := []string{first, second}
		for got := range m.answers {
			checkSections(t, offers[0], got.SDP)
			offers = offers[1:]
		}
	})
}

// checkSections compares the media sections of an answer with those of its offer:
// there must be as many, of the same kinds and names (RFC 3264 §6, RFC 8829 §5.3.1).
func checkSections(t *testing.T, offer, answer string) {
	t.Helper()
	var o, a sdp.SessionDescription
	if err := o.UnmarshalString(offer); err != nil {
		t.Errorf("answered an offer that cannot be read: %v\n%s", err, offer)
	}
	if err := a.UnmarshalString(answer); err != nil {
		t.Errorf("answer cannot be read: %v\n%s", err, answer)
	}
	if len(o.MediaDescriptions) != len(a.MediaDescriptions) {
		t.Fatalf("answer of %d sections to an offer of %d\n%s\n%s", len(a.MediaDescriptions), len(o.MediaDescriptions), offer, answer)
	}
	for i, want := range o.MediaDescriptions {
		got := a.MediaDescriptions[i]
		wantMid, _ := want.Attribute("mid")
		gotMid, named := got.Attribute("mid")
		if got.MediaName.Media != want.MediaName.Media || named && gotMid != wantMid {
			t.Errorf("section %d is %s %q, in the offer %s %q\n%s\n%s", i, got.MediaName.Media, gotMid, want.MediaName.Media, wantMid, offer, answer)
		}
	}
}

// nowhereServer is a server whose sessions have no network.
func nowhereServer(f testing.TB) *Server {
	f.Helper()
	socks, err := Listen(Config{UDP: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	srv, err := New(socks, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = srv.mux.Close() })
	srv.engine.settings.SetNet(nowhere{})
	srv.engine.settings.SetICEUDPMux(nil)
	srv.engine.settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	return srv
}
