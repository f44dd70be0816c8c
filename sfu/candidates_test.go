package sfu

import (
	"fmt"
	"sync"
	"testing"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

func hostCandidate(port int, ufrag string) wire.Candidate {
	c := wire.Candidate{Candidate: fmt.Sprintf("candidate:1 1 udp 2130706431 127.0.0.1 %d typ host", port)}
	if ufrag != "" {
		c.Candidate += " ufrag " + ufrag
	}
	return c
}

func TestCandidateBudgetBeginsAnewWithICE(t *testing.T) {
	c := newCandidates()
	fill := func() (n int) {
		for port := range 3 * maxCandidates {
			if c.admit(hostCandidate(1+port, "").Candidate) {
				n++
			}
		}
		return n
	}
	c.generation("one")
	c.release("one")
	if n := fill(); n != maxCandidates {
		t.Fatalf("%d candidates of the first generation, want %d", n, maxCandidates)
	}
	c.generation("one") // an ordinary offer
	if c.admit(hostCandidate(9999, "").Candidate) {
		t.Error("an offer without a restart brings a new budget")
	}
	for i := range restartsAtOnce {
		ufrag := fmt.Sprint("restart", i)
		c.generation(ufrag)
		c.release(ufrag)
		if n := fill(); n != maxCandidates {
			t.Fatalf("%d candidates after restart %d, want %d", n, i, maxCandidates)
		}
	}
	c.generation("one too many")
	if c.admit(hostCandidate(9999, "").Candidate) {
		t.Error("restarts without end bring budgets without end")
	}
}

func TestCandidatesWaitForTheirOffer(t *testing.T) {
	c := newCandidates()
	for port := range 3 * maxCandidates {
		c.keep(hostCandidate(1+port, "any"))
	}
	if n := len(c.release("first")); n != maxCandidates {
		t.Errorf("%d candidates kept for the first offer, want %d", n, maxCandidates)
	}
	c.keep(hostCandidate(1, "second"))
	c.keep(hostCandidate(2, "stranger"))
	second := "second"
	c.keep(wire.Candidate{Candidate: hostCandidate(3, "").Candidate, UsernameFragment: &second})
	if got := c.release("second"); len(got) != 2 || candidateUfrag(got[0]) != "second" || candidateUfrag(got[1]) != "second" {
		t.Errorf("kept for the second generation: %v", got)
	}
	if got := c.release("stranger"); len(got) != 0 {
		t.Errorf("kept beyond the next offer: %v", got)
	}
}

// TestACandidateOvertakesItsRestart: those of the old network have used up what it
// may have, and the offer with the new credentials comes later.
func TestACandidateOvertakesItsRestart(t *testing.T) {
	s := &Session{phase: active, ice: newCandidates()}
	s.ice.ufrag = "old"
	for port := range maxCandidates {
		s.ice.admit(hostCandidate(1+port, "").Candidate)
	}
	next := hostCandidate(9999, "new")
	s.remoteCandidate(next)
	s.ice.generation("new")
	if got := s.ice.release("new"); len(got) != 1 || got[0] != next {
		t.Errorf("kept for the restart: %v", got)
	}
}

// TestRestartWithAFullBudget: whoever has used up its candidates gets new ones
// with new ICE credentials.
func TestRestartWithAFullBudget(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{}), join(t, srv, "call", "beta", guestOptions{})
	b.publish(webrtc.MimeTypeOpus, "b")
	h := a.hears(classVoice, "beta")
	for port := range 2 * maxCandidates {
		a.sess.Candidate(hostCandidate(20000+port, ""))
	}
	a.restartICE() // its candidates are in the offer
	until(t, "ICE to connect again", func() bool { return a.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected })
	n := a.count(h)
	until(t, "media", func() bool { return a.count(h) > n+20 })
	admitted := make(chan bool)
	a.sess.post(func() { admitted <- a.sess.ice.admit(hostCandidate(30000, "").Candidate) })
	if !<-admitted {
		t.Error("no candidate is admitted after the restart")
	}
}

// A voiceLog is a Signal that writes down the speaking states.
type voiceLog struct {
	*guest
	mu     sync.Mutex
	states []bool
}

// Voice implements Signal.
func (v *voiceLog) Voice(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.states = append(v.states, on)
}

func TestNothingIsSaidOfAVoiceAfterItsMute(t *testing.T) {
	for range 200 {
		v := &voiceLog{}
		s := newSession(&Server{log: discard}, &call{}, Member{}, v)
		u := &up{session: s, level: 1}
		u.class.Store(&upClass{class: classVoice})
		u.on.Store(true)
		s.ups = []*up{u}
		var speaks sync.WaitGroup
		speaks.Go(func() { u.tellVoice(true) }) // of a packet that came before the mute
		s.setMuted(true)
		speaks.Wait()
		if n := len(v.states); n == 0 || v.states[n-1] {
			t.Fatalf("speaking states %v: muted people do not speak", v.states)
		}
		u.tellVoice(true)
		s.setMuted(false)
		u.tellVoice(true) // still of the time before the mute: no packet has come since
		if n := len(v.states); v.states[n-1] {
			t.Fatalf("speaking states %v", v.states)
		}
	}
}
