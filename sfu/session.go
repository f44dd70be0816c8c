package sfu

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

const (
	// firstOfferTime is how long a participant may take to send its first offer
	// (rtcd protocol §4.1).
	firstOfferTime = 10 * time.Second
	// maxOffers is how many offers wait for the data channel to open.
	maxOffers = 20
	// inboxLength is how many messages of a participant wait to be handled.
	inboxLength = 256
)

// A phase is where a session stands.
//
//	            join            offer               data channel opens
//	(nothing) ───────> waiting ──────> answered ─────────────────────> active
//	                      └── 10 s ──────┴── PeerConnection failed, leave ──┴──> ended
type phase int

const (
	waiting  phase = iota // for the participant's first offer
	answered              // the first offer is answered; ICE, DTLS and SCTP are under way
	active                // the data channel is open: tracks are offered
)

// A Session is one participant's connection. Its goroutine (run) owns the
// PeerConnection's negotiation; every method may be called from any goroutine
// and returns at once.
type Session struct {
	server *Server
	call   *call
	member Member
	log    *slog.Logger
	joined time.Time

	inbox chan func()   // what the participant sent; never closed
	woken chan struct{} // capacity 1: the tracks to receive may have changed
	done  chan struct{} // closed by end

	voiceMu sync.Mutex // held to tell of the participant's voice; taken before call.mu

	once   sync.Once
	reason string // why it ended; written before done is closed
	tracks sync.WaitGroup
	speak  atomic.Pointer[Signal]
	// selected is the path of the media, nil until ICE is done.
	selected atomic.Pointer[string]

	channels atomic.Int32 // data channels opened
	tracksMu sync.Mutex   // guards noTracks and the beginning of tracks
	noTracks bool         // close waits for tracks: none may begin

	// Guarded by call.mu.
	number       uint64 // orders the sessions of a call
	left         bool   // it is of the call no more
	ups          []*up
	screenStream string
	videoStream  string
	muted        bool

	// Owned by run. pc is set before any track exists and never changes.
	pc         *webrtc.PeerConnection
	media      *media // set with pc
	phase      phase
	ice        candidates
	channel    *webrtc.DataChannel
	answeredAt time.Time
	ufrag      string // ours, as the media sockets know it
	negotiation
}

func newSession(srv *Server, c *call, m Member, sig Signal) *Session {
	s := &Session{
		server: srv,
		call:   c,
		member: m,
		log:    srv.log.With("call", m.Call, "session", m.Session),
		joined: time.Now(),
		inbox:  make(chan func(), inboxLength),
		woken:  make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	s.ice = newCandidates()
	s.negotiation.downs = map[*up]*down{}
	s.negotiation.codecs = map[string]named{}
	s.negotiation.told, s.negotiation.sections = maxTold, maxSections
	s.negotiation.offers = rate.NewLimiter(offersPerSecond, offersAtOnce)
	s.Rebind(sig)
	return s
}

// Member returns who the participant is.
func (s *Session) Member() Member { return s.member }

// Rebind makes the session speak through sig from now on.
func (s *Session) Rebind(sig Signal) { s.speak.Store(&sig) }

// Signal returns what the session speaks through.
func (s *Session) Signal() Signal { return *s.speak.Load() }

// Describe takes an offer or an answer that came over the same road as Signal.
func (s *Session) Describe(d wire.Description) {
	s.post(func() { s.describe(d, overSignal) })
}

// Candidate takes an ICE candidate of the participant.
func (s *Session) Candidate(c wire.Candidate) { s.post(func() { s.remoteCandidate(c) }) }

// Mute stops the forwarding of the participant's voice, present or future, and
// ends its speaking.
func (s *Session) Mute() { s.setMuted(true) }

// Unmute resumes the forwarding of the participant's voice.
func (s *Session) Unmute() { s.setMuted(false) }

// setMuted changes what is forwarded without any negotiation (rtcd protocol
// §4.8).
func (s *Session) setMuted(muted bool) {
	s.voiceMu.Lock()
	defer s.voiceMu.Unlock()
	if heard := s.call.mute(s, muted); muted && heard {
		s.Signal().Voice(false)
	}
}

// ScreenOn announces the MediaStream of a screen share. It is refused while
// another participant of the call shares.
func (s *Session) ScreenOn(streamID string) {
	if !s.call.shareScreen(s, streamID) {
		s.log.Debug("refuse screen share: somebody else is sharing")
	}
}

// ScreenOff ends the participant's screen share.
func (s *Session) ScreenOff() { s.call.endScreen(s) }

// VideoOn announces the MediaStream of the participant's camera, before or
// after its track arrives.
func (s *Session) VideoOn(streamID string) { s.call.announceVideo(s, streamID) }

// VideoOff tells that the camera is off. The track stays: it goes quiet and may
// go on later without a negotiation (rtcd protocol §4.10).
func (s *Session) VideoOff() {}

// Leave ends the session.
func (s *Session) Leave() { s.end("left") }

// end begins the end of the session. When it returns, the session is no longer
// known to the server; run does the rest.
func (s *Session) end(reason string) {
	s.once.Do(func() {
		s.reason = reason
		s.server.forget(s)
		close(s.done)
	})
}

// over reports whether the session has ended. What was still to be done then
// must not be: it might open what is being closed.
func (s *Session) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// wake tells run that the tracks to receive may have changed.
func (s *Session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// post gives f to run. A participant that floods its own session loses what does
// not fit.
func (s *Session) post(f func()) {
	select {
	case s.inbox <- f:
	case <-s.done:
	default:
		s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
	}
}

// postWait is post for goroutines that may wait because they serve this session
// alone.
func (s *Session) postWait(f func()) {
	select {
	case s.inbox <- f:
	case <-s.done:
	}
}

// run handles everything of the session, one thing at a time, until it ends.
func (s *Session) run() {
	timer := time.NewTimer(firstOfferTime)
	defer timer.Stop()
	for {
		select {
		case <-s.done:
			s.close()
			return
		case f := <-s.inbox:
			if !s.over() {
				f()
			}
		case <-s.woken:
			s.stale = true
		case <-timer.C:
		}
		if !s.over() {
			timer.Reset(time.Until(s.step(time.Now())))
		}
	}
}

// step does what is due and returns when it wants to be called again.
func (s *Session) step(now time.Time) time.Time {
	if s.phase == waiting {
		if at := s.joined.Add(firstOfferTime); now.Before(at) {
			return at
		}
		s.fail("no offer", "signaling", nil)
	}
	return s.negotiate(now)
}

// fail ends the session because of an error and counts it by kind.
func (s *Session) fail(reason, kind string, err error) {
	s.server.metrics.errors.WithLabelValues(s.member.Group, kind).Inc()
	s.log.Info("session failed", "reason", reason, "err", err)
	s.end(reason)
}
