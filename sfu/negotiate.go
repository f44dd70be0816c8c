package sfu

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

const (
	// answerTime is how long a participant may take to answer an offer before
	// it is sent again.
	answerTime = 10 * time.Second
	// lockLease is how long a participant may hold the signaling lock.
	lockLease = 10 * time.Second
	// headStart is the time between the media map on the data channel and an
	// offer on another road, so that the map is there first (rtcd protocol
	// §4.6). maxHeadStart is when the offer goes out although the data channel
	// has not sent the map yet.
	headStart    = 60 * time.Millisecond
	maxHeadStart = time.Second
	// gatherTime bounds the wait for our own candidates, which are sockets that
	// are open already. They go out in the answer: one that came after our
	// first connectivity check would make us a peer-reflexive candidate, which
	// many agents nominate only after a second (RFC 8445 §7.3.1.3).
	gatherTime = 250 * time.Millisecond
	// impatient is the age of our unanswered offer at which an offer of the
	// participant, or its wish for the lock, means that it never got ours.
	impatient = 3 * time.Second
)

const (
	// offerEvery is the shortest time between two of our offers to one
	// participant: whoever turns a track on and off all the time costs the
	// others no more than this.
	offerEvery = 200 * time.Millisecond
	// offersPerSecond and offersAtOnce limit the offers of a participant that
	// are looked at. A click makes one; each costs a parser and a lock.
	offersPerSecond = 5
	offersAtOnce    = 50
)

// far is a time at which nothing is due.
const far = time.Hour

// A road is how a description came or goes.
type road bool

const (
	overSignal  road = false // through the front door, as Signal does
	overChannel road = true  // on the data channel
)

// A holder is who has the signaling lock: nobody negotiates without it.
type holder int

const (
	nobody holder = iota
	us
	participant
)

// A negotiation is the part of a Session that deals with offers and answers.
// The session's goroutine owns it. There is one rule: the tracks the session
// sends (downs) are made equal to the tracks it should send (call.wanted),
// everything that has changed in one offer, whenever the lock is free. Nothing
// that was to be offered is ever forgotten, because nothing is queued.
type negotiation struct {
	downs map[*up]*down // what is being sent or offered
	stale bool          // downs may differ from what is wanted
	noAV1 bool          // the participant has not agreed to AV1, whatever its member says

	told     int         // most tracks that the participant can answer to
	sections int         // most media sections of a description
	crowded  atomic.Bool // not everything can be offered: who is muted matters

	codecs  map[string]named // by mid: what the participant has last named
	widened bool             // pion has seen a video section

	lock      holder
	lockSince time.Time
	wantLock  time.Time // since when we wait for the lock; zero = we do not

	offer   *wire.Description                                             // ours, not answered yet
	sentAt  time.Time                                                     // zero = not sent yet
	sendAt  time.Time                                                     // when to send it, or to send it again
	mapSent time.Time                                                     // when the map for that was sent; zero = not yet
	sends   int                                                           // how often it has been sent
	late    late                                                          // answers to earlier ones may still come
	madeAt  time.Time                                                     // when our last offer was made, or failed
	failed  int                                                           // how many have failed since one was made
	untold  bool                                                          // tracks have been removed that no offer has told of
	create  func(*webrtc.OfferOptions) (webrtc.SessionDescription, error) // pc.CreateOffer

	early  []wire.Description // offers that came before the data channel opened
	offers *rate.Limiter      // of the participant's
}

// negotiate does what is due and returns when something will be.
func (s *Session) negotiate(now time.Time) time.Time {
	if s.lock == participant && now.Sub(s.lockSince) >= lockLease {
		s.log.Debug("signaling lock lease expired")
		s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling_lock_timeout").Inc()
		s.unlock(now)
	}
	if s.offer != nil && !now.Before(s.sendAt) {
		s.send(now)
	}
	if s.stale && s.phase == active && s.offer == nil && !now.Before(s.nextOffer()) {
		s.refresh(now)
	}
	switch {
	case s.offer != nil:
		return s.sendAt
	case s.lock == participant:
		return s.lockSince.Add(lockLease)
	case s.stale && s.nextOffer().After(now):
		return s.nextOffer()
	}
	return now.Add(far)
}

// nextOffer is when the next offer may be made. What cannot be made is tried again,
// but less and less often.
func (s *Session) nextOffer() time.Time {
	return s.madeAt.Add(min(offerEvery<<min(s.failed, 10), answerTime))
}

// refresh offers the participant what has changed, if the lock is free.
func (s *Session) refresh(now time.Time) {
	want := s.fitting(s.call.wanted(s))
	if s.current(want) && !s.untold {
		s.stale, s.wantLock = false, time.Time{}
		return
	}
	if s.wantLock.IsZero() {
		s.wantLock = now
	}
	if s.lock != nobody || s.pc.SignalingState() != webrtc.SignalingStateStable {
		return // unlock or the lease leads here again
	}
	s.server.metrics.lockGrab.WithLabelValues(s.member.Group).Observe(now.Sub(s.wantLock).Seconds())
	s.lock, s.lockSince, s.wantLock, s.stale, s.madeAt = us, now, time.Time{}, false, now
	if err := s.makeOffer(want, now); err != nil {
		s.server.metrics.errors.WithLabelValues(s.member.Group, "track").Inc()
		if s.failed++; s.failed == 1 {
			s.log.Warn("offer tracks", "err", err)
		}
		s.unlock(now)
		return
	}
	s.failed, s.untold = 0, false
}

// current reports whether exactly the wanted tracks are being sent.
func (s *Session) current(want []*up) bool {
	for _, u := range want {
		if s.downs[u] == nil {
			return false
		}
	}
	return len(want) == len(s.downs)
}

// makeOffer changes the tracks being sent to those wanted and prepares the
// offer that says so. After an error the tracks it added are gone again, so
// that they count as missing.
func (s *Session) makeOffer(want []*up, now time.Time) error {
	keep := make(map[*up]bool, len(want))
	for _, u := range want {
		keep[u] = true
	}
	for u, d := range s.downs {
		if !keep[u] {
			s.dropDown(u, d)
			s.untold = true
		}
	}
	var added []*up
	err := func() error {
		for _, u := range want {
			if s.downs[u] != nil {
				continue
			}
			if err := s.addDown(u); err != nil {
				return err
			}
			added = append(added, u)
		}
		o, err := s.create(nil)
		if err != nil {
			return fmt.Errorf("create offer: %w", err)
		}
		if err := s.pc.SetLocalDescription(o); err != nil {
			return fmt.Errorf("set local description: %w", err)
		}
		s.offer = &wire.Description{Type: "offer", SDP: o.SDP}
		return nil
	}()
	if err != nil {
		for _, u := range added {
			s.dropDown(u, s.downs[u])
		}
		return err
	}
	s.sentAt, s.mapSent, s.sendAt, s.sends = time.Time{}, time.Time{}, now, 0
	s.send(now)
	return nil
}

// dropDown stops sending a track.
func (s *Session) dropDown(u *up, d *down) {
	s.forgetDown(u, d)
	if err := s.pc.RemoveTrack(d.sender); err != nil {
		s.log.Debug("remove track", "track", d.id, "err", err)
	}
}

// forgetDown is the part of dropDown that does not concern pion.
func (s *Session) forgetDown(u *up, d *down) {
	delete(s.downs, u)
	for _, e := range d.sender.GetParameters().Encodings {
		s.media.noLongerSent(uint32(e.SSRC))
	}
}

// addDown begins to send a track, on a section that is free or a new one.
func (s *Session) addDown(u *up) error {
	d := newDown(u, s)
	sender, err := s.place(d)
	if err != nil {
		return fmt.Errorf("add track %s: %w", d.id, err)
	}
	d.sender = sender
	if u.audio() {
		for _, e := range sender.GetParameters().Encodings {
			s.media.leaveUnread(uint32(e.SSRC))
		}
	}
	s.downs[u] = d
	s.tracks.Go(d.readFeedback)
	return nil
}

// send sends the media map and our offer, for the first time or again. With
// signaling on another road the map gets a head start.
func (s *Session) send(now time.Time) {
	if s.mapSent.IsZero() {
		s.sendMap()
		s.mapSent = now
		if !s.member.DCSignaling {
			s.sendAt = now.Add(headStart)
			return
		}
	}
	if !s.member.DCSignaling && s.channel.BufferedAmount() > 0 && now.Sub(s.mapSent) < maxHeadStart {
		s.sendAt = now.Add(headStart)
		return
	}
	if !s.sentAt.IsZero() {
		s.server.metrics.errors.WithLabelValues(s.member.Group, "track").Inc()
		s.log.Debug("send offer again")
	}
	s.sentAt, s.sendAt, s.mapSent = now, now.Add(answerTime), time.Time{}
	s.sends++
	if s.member.DCSignaling {
		s.sendChannel(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: *s.offer})
	} else {
		s.Signal().Offer(*s.offer)
	}
}

// sendMap tells the participant what the server sends on each m-line.
func (s *Session) sendMap() {
	media := map[string]wire.Media{}
	for _, t := range s.pc.GetTransceivers() {
		if t.Sender() == nil {
			continue
		}
		if d, ok := t.Sender().Track().(*down); ok && t.Mid() != "" {
			media[t.Mid()] = wire.Media{Type: d.up.kind(), Sender: d.StreamID()}
		}
	}
	s.sendChannel(wire.ChannelMessage{Type: wire.ChannelMap, Media: media})
}

// describe handles an offer or answer of the participant.
func (s *Session) describe(d wire.Description, by road) {
	switch {
	case d.Type == "answer":
		s.takeAnswer(d)
	case !s.offers.Allow():
		s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
		s.log.Debug("drop offer: too many")
	case s.phase == waiting:
		s.takeFirstOffer(d, by)
	case s.phase == answered && len(s.early) < maxOffers:
		s.early = append(s.early, d)
	case s.phase == answered:
		s.log.Debug("drop offer: too many before the data channel opened")
	case s.offer != nil:
		// Glare. The participant is the polite side: it takes our offer and
		// repeats its own.
		s.hurry(time.Now())
	default:
		if err := s.takeOffer(d, by); err != nil {
			s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
			s.log.Debug("accept offer", "err", err)
			if s.pc.SignalingState() != webrtc.SignalingStateStable {
				// Half applied, and pion cannot roll it back: nothing could be
				// negotiated ever again. The participant may rejoin.
				s.fail("unusable offer", "signaling", err)
			}
		}
	}
}

// hurry sends our offer again soon if it is so old that the participant, who
// wants to negotiate, can hardly have got it.
func (s *Session) hurry(now time.Time) {
	if s.offer != nil && !s.sentAt.IsZero() && now.Sub(s.sentAt) > impatient {
		s.sendAt = now
	}
}

// takeFirstOffer answers the offer that begins the session.
func (s *Session) takeFirstOffer(d wire.Description, by road) {
	err := s.connect()
	if err == nil {
		err = s.takeOffer(d, by)
	}
	if err != nil {
		s.fail("unusable offer", "signaling", err)
		return
	}
	s.phase, s.answeredAt = answered, time.Now()
}

// takeOffer answers an offer on the road it came by.
func (s *Session) takeOffer(d wire.Description, by road) error {
	remote, _ := sdpCredentials(d.SDP)
	s.ice.generation(remote.ufrag)
	offer, err := s.bounded(webrtc.SDPTypeOffer, d.SDP)
	if err != nil {
		return fmt.Errorf("read offer: %w", err)
	}
	if err := s.accept(offer); err != nil {
		return err
	}
	s.hears(offer.codecs)
	a, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("create answer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(a); err != nil {
		return fmt.Errorf("set local description: %w", err)
	}
	s.learnKeys(a.SDP, d.SDP)
	select {
	case <-gathered:
	case <-time.After(gatherTime):
	}
	text, err := narrowAnswer(s.pc.LocalDescription().SDP, offer.codecs)
	if err != nil {
		return fmt.Errorf("narrow answer: %w", err)
	}
	answer := wire.Description{Type: "answer", SDP: text}
	if by == overChannel {
		s.sendChannel(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: answer})
	} else {
		s.Signal().Answer(answer)
	}
	for _, c := range s.ice.release(remote.ufrag) {
		s.addCandidate(c)
	}
	return nil
}

// unlock frees the lock and looks what has been waiting for it.
func (s *Session) unlock(now time.Time) {
	s.server.metrics.lockHeld.WithLabelValues(s.member.Group).Observe(now.Sub(s.lockSince).Seconds())
	s.lock = nobody
	s.stale = true
}
