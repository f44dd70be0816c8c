package sfu

import (
	"slices"
	"strings"
	"time"

	"github.com/pion/webrtc/v3"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

const (
	// maxCandidates is how many ICE candidates of a participant are used between
	// two restarts of ICE.
	maxCandidates = 40
	// A participant may begin anew with its candidates as often as networks
	// change, not as often as it likes: each one sends checks somewhere.
	restartEvery   = 10 * time.Second
	restartsAtOnce = 5
)

// candidates is what a session knows of its participant's ICE candidates. The
// session's goroutine owns it.
type candidates struct {
	used     map[string]struct{} // their transport addresses, at most maxCandidates
	kept     []wire.Candidate    // came before the offer they belong to; at most maxCandidates
	ufrag    string              // the participant's in its last offer; "" before the first
	restarts *rate.Limiter       // of ICE, each with a new budget
}

func newCandidates() candidates {
	return candidates{used: map[string]struct{}{}, restarts: rate.NewLimiter(rate.Every(restartEvery), restartsAtOnce)}
}

// generation tells of the ICE credentials of an offer, before its candidates are
// read: with new ones everything known of the old network is worth nothing.
func (c *candidates) generation(ufrag string) {
	if c.ufrag != "" && ufrag != "" && ufrag != c.ufrag && c.restarts.Allow() {
		clear(c.used)
	}
}

// admit reports whether a candidate may be used: it is known already or there is
// room for it.
func (c *candidates) admit(candidate string) bool {
	f := strings.Fields(strings.TrimPrefix(candidate, "candidate:"))
	if len(f) < 6 {
		return false
	}
	transport := strings.ToLower(f[2]) + " " + f[4] + " " + f[5]
	if _, known := c.used[transport]; known {
		return true
	}
	if len(c.used) >= maxCandidates {
		return false
	}
	c.used[transport] = struct{}{}
	return true
}

// keep holds a candidate back for the offer it belongs to.
func (c *candidates) keep(w wire.Candidate) {
	if len(c.kept) < maxCandidates {
		c.kept = append(c.kept, w)
	}
}

// release returns the candidates that were kept for an offer with these
// credentials and begins to count as its generation.
func (c *candidates) release(ufrag string) []wire.Candidate {
	kept := c.kept
	if c.ufrag != "" { // before the first offer there is nothing they could be confused with
		kept = slices.DeleteFunc(kept, func(w wire.Candidate) bool { return candidateUfrag(w) != ufrag })
	}
	c.kept = nil
	if ufrag != "" {
		c.ufrag = ufrag
	}
	return kept
}

// candidateUfrag is the ICE generation that a candidate says it belongs to, "" if
// it does not say.
func candidateUfrag(w wire.Candidate) string {
	if w.UsernameFragment != nil {
		return *w.UsernameFragment
	}
	f := strings.Fields(w.Candidate)
	if i := slices.Index(f, "ufrag"); i >= 0 && i+1 < len(f) {
		return f[i+1]
	}
	return ""
}

// localCandidate sends one of our candidates, after the answer.
func (s *Session) localCandidate(c webrtc.ICECandidateInit) {
	mid, line := "0", uint16(0) // everything is bundled on the first section
	s.Signal().Candidate(wire.Candidate{Candidate: c.Candidate, SDPMid: &mid, SDPMLineIndex: &line})
}

// remoteCandidate uses one of the participant's candidates, or keeps it until
// its first offer is there. One of a generation still to come is kept too: the
// offer that restarts ICE may be on a slower road.
func (s *Session) remoteCandidate(w wire.Candidate) {
	if w.Candidate == "" {
		return
	}
	if s.phase == waiting {
		s.ice.keep(w)
		return
	}
	if ufrag := candidateUfrag(w); ufrag != "" && ufrag != s.ice.ufrag {
		s.ice.keep(w)
	}
	s.addCandidate(w)
}

// addCandidate gives a candidate to pion, if there is room for it.
func (s *Session) addCandidate(w wire.Candidate) {
	if !s.ice.admit(w.Candidate) {
		return
	}
	err := s.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: w.Candidate, SDPMid: w.SDPMid, SDPMLineIndex: w.SDPMLineIndex, UsernameFragment: w.UsernameFragment})
	if err != nil {
		s.server.metrics.errors.WithLabelValues(s.member.Group, "ice").Inc()
		s.log.Debug("add remote candidate", "err", err)
	}
}
