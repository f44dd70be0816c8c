package sfu

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// lateFor is how long an answer to an offer that was sent twice may be on its
// way.
const lateFor = 30 * time.Second

// errLate is what is wrong with an answer that has been given before.
var errLate = errors.New("it repeats the answer to an earlier offer")

// late is what is known of answers that may still come to an offer that has been
// answered. Each sending of an offer brings one, and nothing in an answer says
// which offer it is to.
type late struct {
	left  int       // how many
	until time.Time // when no more are expected
	last  string    // the answer that was applied, without its origin
}

// expect notes that an offer has been answered which was sent so many times.
func (l *late) expect(sends int, answer string, now time.Time) {
	if !now.Before(l.until) {
		l.left = 0
	}
	l.last = withoutOrigin(answer)
	if sends > 1 {
		l.left, l.until = l.left+sends-1, now.Add(lateFor)
	}
}

// possible reports whether the next answer may be a late one.
func (l *late) possible(now time.Time) bool { return l.left > 0 && now.Before(l.until) }

// withoutOrigin takes the o= line out of a description: its version changes with
// each one that a participant makes (RFC 8829 §5.2.2).
func withoutOrigin(text string) string {
	before, rest, ok := strings.Cut(text, "\no=")
	if !ok {
		return text
	}
	_, after, _ := strings.Cut(rest, "\n")
	return before + "\n" + after
}

// takeAnswer applies an answer to our offer. One that cannot be to this offer is
// the answer to an earlier one, or a second answer to an offer that was sent
// twice: it is dropped, and the offer sent again in time if no other comes.
func (s *Session) takeAnswer(d wire.Description) {
	now := time.Now()
	if s.offer == nil || s.sentAt.IsZero() {
		s.late.left = max(0, s.late.left-1)
		s.log.Debug("drop answer: nothing was offered")
		return
	}
	answer, err := s.bounded(webrtc.SDPTypeAnswer, d.SDP)
	if err == nil {
		err = s.match(answer, d.SDP, now)
	}
	if err != nil {
		s.late.left = max(0, s.late.left-1)
		s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
		s.log.Debug("drop answer", "err", err)
		return
	}
	s.hears(answer.codecs)
	if err := s.accept(answer); err != nil {
		s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
		s.log.Debug("accept answer", "err", err)
		if s.pc.SignalingState() != webrtc.SignalingStateStable {
			return // the next answer may be better; the offer is sent again
		}
	}
	s.late.expect(s.sends, d.SDP, now)
	s.offer = nil
	s.unlock(now)
}

// match returns what speaks against an answer being to our offer. That its
// directions do not fit or that it has been given before counts only while a late
// one may come: old clients answer oddly.
func (s *Session) match(answer intake, text string, now time.Time) error {
	var offer sdp.SessionDescription
	if err := offer.UnmarshalString(s.offer.SDP); err != nil {
		return fmt.Errorf("read own offer: %w", err)
	}
	if want, got := len(offer.MediaDescriptions), len(answer.sections); got != want {
		return fmt.Errorf("it has %d media sections, the offer %d", got, want)
	}
	possible := s.late.possible(now)
	for i, o := range offer.MediaDescriptions {
		a := answer.sections[i]
		if a.MediaName.Media != o.MediaName.Media {
			return fmt.Errorf("section %d is %s, in the offer %s", i, a.MediaName.Media, o.MediaName.Media)
		}
		if a.MediaName.Port.Value == 0 {
			continue // turned down; many leave everything else out
		}
		want, _ := o.Attribute("mid")
		if got, _ := a.Attribute("mid"); got != want {
			return fmt.Errorf("section %d has the name %q, in the offer %q", i, got, want)
		}
		if possible && !mayAnswer(direction(o), direction(a)) {
			return fmt.Errorf("section %s is %s, in the offer %s", want, direction(a), direction(o))
		}
	}
	if possible && withoutOrigin(text) == s.late.last {
		return errLate
	}
	return nil
}

// direction returns the direction of a section (RFC 8866 §6.7).
func direction(m *sdp.MediaDescription) string {
	for _, a := range m.Attributes {
		switch a.Key {
		case "sendrecv", "sendonly", "recvonly", "inactive":
			return a.Key
		}
	}
	return "sendrecv"
}

// mayAnswer reports whether a direction may answer another (RFC 3264 §6.1).
func mayAnswer(offer, answer string) bool {
	switch offer {
	case "sendonly":
		return answer == "recvonly" || answer == "inactive"
	case "recvonly":
		return answer == "sendonly" || answer == "inactive"
	case "inactive":
		return answer == "inactive"
	}
	return true
}
