package sfu

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// answerTo makes g answer an offer and returns the answer, unsent.
func (g *guest) answerTo(d wire.Description) wire.Description {
	g.t.Helper()
	if err := g.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.SDP}); err != nil {
		g.t.Fatal(err)
	}
	a, err := g.pc.CreateAnswer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(a)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return wire.Description{Type: "answer", SDP: a.SDP}
}

// do runs f on the goroutine of the session and waits for it.
func (g *guest) do(f func()) {
	g.t.Helper()
	done := make(chan struct{})
	g.sess.postWait(func() { f(); close(done) })
	select {
	case <-done:
	case <-time.After(patience):
		g.t.Fatal("the session does not get to it")
	}
}

// nextOffer waits for an offer beyond the first n and returns it.
func (g *guest) nextOffer(n int) wire.Description {
	g.t.Helper()
	until(g.t, "an offer", func() bool { return g.offered() > n })
	g.mu.Lock()
	defer g.mu.Unlock()
	return *g.held
}

// twice makes the session send its offer again, and g answer both sendings. It
// returns the answers, unsent.
func (g *guest) twice() (first, second wire.Description) {
	g.t.Helper()
	offer := g.nextOffer(0)
	first = g.answerTo(offer)
	g.do(func() { g.sess.sendAt = time.Now() })
	again := g.nextOffer(1)
	if again != offer {
		g.t.Fatal("the offer sent again is another one")
	}
	return first, g.answerTo(again)
}

// TestLateAnswer: an offer is sent twice, because its answer takes long, and both
// answers arrive, the second one at every point of what follows.
func TestLateAnswer(t *testing.T) {
	type scene struct {
		a, b, c *guest
		late    wire.Description
	}
	pending := func(s scene) bool { // the newer offer is waiting for its answer
		ok := false
		s.a.do(func() { ok = s.a.sess.offer != nil && !s.a.sess.sentAt.IsZero() })
		return ok
	}
	for name, f := range map[string]func(t *testing.T, s scene){
		"before the next offer": func(t *testing.T, s scene) {
			s.a.sess.Describe(s.late)
			s.c.publish(webrtc.MimeTypeOpus, "c")
			s.a.sess.Describe(s.a.answerTo(s.a.nextOffer(2)))
		},
		"instead of the next answer": func(t *testing.T, s scene) {
			s.c.publish(webrtc.MimeTypeOpus, "c")
			offer := s.a.nextOffer(2)
			s.a.sess.Describe(s.late)
			if !pending(s) {
				t.Fatal("the late answer was taken for that to the newer offer")
			}
			s.a.sess.Describe(s.a.answerTo(offer))
		},
		"to an offer that takes a track away": func(t *testing.T, s scene) {
			s.b.sess.Leave()
			offer := s.a.nextOffer(2)
			s.a.sess.Describe(s.late)
			if !pending(s) {
				t.Fatal("the late answer was taken for that to the newer offer")
			}
			s.a.sess.Describe(s.a.answerTo(offer))
			until(t, "the track to go", func() bool { return len(s.a.sending()) == 0 })
			s.c.publish(webrtc.MimeTypeOpus, "c")
			s.a.sess.Describe(s.a.answerTo(s.a.nextOffer(3)))
		},
		"to an offer that uses a section again": func(t *testing.T, s scene) {
			s.b.sess.Leave()
			away := s.a.answerTo(s.a.nextOffer(2))
			s.a.do(func() { s.a.sess.sendAt = time.Now() })
			s.a.nextOffer(3)
			s.a.sess.Describe(away)
			s.c.publish(webrtc.MimeTypeOpus, "c")
			offer := s.a.nextOffer(4)
			s.a.sess.Describe(away) // inactive: by its directions it would do
			if !pending(s) {
				t.Fatal("the late answer was taken for that to the newer offer")
			}
			s.a.sess.Describe(s.a.answerTo(offer))
		},
		"after an offer of the participant": func(t *testing.T, s scene) {
			s.a.publish(webrtc.MimeTypeOpus, "a")
			s.a.sess.Describe(s.late)
			s.c.publish(webrtc.MimeTypeOpus, "c")
			s.a.sess.Describe(s.a.answerTo(s.a.nextOffer(2)))
		},
		"while the participant offers": func(t *testing.T, s scene) { // glare
			s.c.publish(webrtc.MimeTypeOpus, "c")
			offer := s.a.nextOffer(2)
			mine, err := s.a.pc.CreateOffer(nil)
			if err != nil {
				t.Fatal(err)
			}
			s.a.sess.Describe(wire.Description{Type: "offer", SDP: mine.SDP})
			s.a.sess.Describe(s.late)
			if !pending(s) {
				t.Fatal("the late answer was taken for that to the newer offer")
			}
			select {
			case <-s.a.answers:
				t.Error("an offer was answered while ours was out")
			default:
			}
			s.a.sess.Describe(s.a.answerTo(offer))
			s.a.publish(webrtc.MimeTypeOpus, "a") // and repeats its own
			s.c.hears(classVoice, "alpha")
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t)
			s := scene{a: join(t, srv, "call", "alpha", guestOptions{}), b: join(t, srv, "call", "beta", guestOptions{}), c: join(t, srv, "call", "gamma", guestOptions{})}
			s.a.mu.Lock()
			s.a.silent = true
			s.a.mu.Unlock()
			s.b.publish(webrtc.MimeTypeOpus, "b")
			var first wire.Description
			first, s.late = s.a.twice()
			s.a.sess.Describe(first)
			s.a.hears(classVoice, "beta")
			f(t, s)
			s.a.hears(classVoice, "gamma")
		})
	}
}

// TestForeignAnswer: what has not the sections of the offer is no answer to it,
// even if none is expected but this.
func TestForeignAnswer(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	a.mu.Lock()
	a.silent = true
	a.mu.Unlock()
	b.publish(webrtc.MimeTypeOpus, "b")
	answer := a.answerTo(a.nextOffer(0))
	for what, edit := range map[string]func(string) string{
		"a section less":        func(s string) string { return s[:strings.Index(s, "m=audio")] },
		"a section more":        func(s string) string { return s + section("audio", "111", "opus/48000/2", "9") },
		"another name":          func(s string) string { return strings.Replace(s, "a=mid:1", "a=mid:9", 1) },
		"another kind":          func(s string) string { return strings.Replace(s, "m=audio", "m=video", 1) },
		"no description at all": func(string) string { return "v=1" },
	} {
		a.sess.Describe(wire.Description{Type: "answer", SDP: edit(answer.SDP)})
		a.do(func() {
			if a.sess.offer == nil {
				t.Errorf("%s: taken for the answer", what)
			}
		})
	}
	a.sess.Describe(answer)
	a.hears(classVoice, "beta")
}

func TestLate(t *testing.T) {
	now := time.Unix(1000, 0)
	var l late
	l.expect(1, "v=0\r\no=x\r\ns=-\r\n", now)
	if l.possible(now) {
		t.Error("an offer sent once is answered twice")
	}
	l.expect(3, "v=0\r\no=x 1\r\ns=-\r\n", now)
	if !l.possible(now.Add(lateFor-time.Second)) || l.possible(now.Add(lateFor)) {
		t.Error("late answers are possible for the wrong time")
	}
	if l.left != 2 || l.last != withoutOrigin("v=0\r\no=x 2\r\ns=-\r\n") {
		t.Errorf("%d left, last %q", l.left, l.last)
	}
	if diff := cmp.Diff("v=0\r\n", withoutOrigin("v=0\r\n")); diff != "" {
		t.Errorf("without an origin (-want +got):\n%s", diff)
	}
}

func TestMayAnswer(t *testing.T) {
	all := []string{"sendrecv", "sendonly", "recvonly", "inactive"}
	want := map[string]string{"sendrecv": "sendrecv sendonly recvonly inactive", "sendonly": "recvonly inactive", "recvonly": "sendonly inactive", "inactive": "inactive"}
	for _, offer := range all {
		var got []string
		for _, answer := range all {
			if mayAnswer(offer, answer) {
				got = append(got, answer)
			}
		}
		if diff := cmp.Diff(want[offer], strings.Join(got, " ")); diff != "" {
			t.Errorf("answers to %s (-want +got):\n%s", offer, diff)
		}
	}
}
