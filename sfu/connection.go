package sfu

import (
	"net/netip"
	"time"

	"github.com/pion/webrtc/v3"
)

// This file is the part of a Session that deals with its PeerConnection: how it
// is made, what becomes of it, and how it ends.

// trackEnd is how long the tracks of a session may take to end after it.
const trackEnd = 5 * time.Second

// relayGrace is how long a participant whose relay is gone may take to come back
// on another way, after ICE has missed it for 5 s.
const relayGrace = 5 * time.Second

// connect makes the PeerConnection, with the first offer.
func (s *Session) connect() error {
	m := newMedia(s)
	pc, err := s.server.engine.connection(&streams{over: func() { s.end("too many streams") }, silent: m.silent}, &m.secrets)
	if err != nil {
		return err
	}
	s.pc, s.media, s.create = pc, m, pc.CreateOffer
	m.watch(pc)
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			s.postWait(func() { s.localCandidate(c.ToJSON()) })
		}
	})
	pc.OnConnectionStateChange(func(st webrtc.PeerConnectionState) { s.connectionState(st) })
	pc.OnDataChannel(func(d *webrtc.DataChannel) { s.open(d) })
	pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		if s.beginTrack() {
			defer s.tracks.Done()
			newUp(s, t, r).live()
		}
	})
	return nil
}

func (s *Session) connectionState(st webrtc.PeerConnectionState) {
	switch st {
	case webrtc.PeerConnectionStateConnected:
		s.server.metrics.connection.WithLabelValues(s.member.Group).Observe(time.Since(s.joined).Seconds())
		path := s.path()
		s.selected.Store(&path)
		s.log.Debug("session connected", "path", path)
	case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		s.end("connection " + st.String())
	case webrtc.PeerConnectionStateDisconnected:
		time.AfterFunc(relayGrace, func() { s.post(s.checkRelay) })
	default:
		return
	}
	s.server.metrics.states.WithLabelValues(st.String()).Inc()
}

// checkRelay ends the session of a participant who has been silent for a while
// and whose relay or TCP connection is gone: nothing can come from there any more. One who has moved
// to another network has had the time to say so.
func (s *Session) checkRelay() {
	if s.pc == nil || s.pc.ConnectionState() != webrtc.PeerConnectionStateDisconnected {
		return
	}
	pair, err := s.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return
	}
	ip, err := netip.ParseAddr(pair.Remote.Address)
	if err != nil {
		return
	}
	tcp := pair.Remote.Protocol == webrtc.ICEProtocolTCP
	if s.server.mux.leads(netip.AddrPortFrom(ip.Unmap(), pair.Remote.Port), tcp) {
		return
	}
	s.end("relay or connection is gone")
}

// close frees what the session holds and tells the participant.
func (s *Session) close() {
	if s.pc != nil {
		if err := s.pc.GracefulClose(); err != nil {
			s.log.Debug("close peer connection", "err", err)
		}
		s.media.close()
	}
	s.forgetKeys()
	s.tracksMu.Lock()
	s.noTracks = true
	s.tracksMu.Unlock()
	s.waitForTracks()
	s.log.Debug("session ended", "reason", s.reason)
	s.Signal().Closed()
}

// waitForTracks waits for the goroutines of the tracks, but not for ever: pion
// has a reader that may miss the end of a receiver that never started, and one
// participant must not hold up the end of the server.
func (s *Session) waitForTracks() {
	done := make(chan struct{})
	go func() {
		s.tracks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(trackEnd):
		s.log.Warn("tracks do not end")
	}
}

// beginTrack counts one more goroutine in tracks, unless the session is being
// closed: pion may report a track even after that.
func (s *Session) beginTrack() bool {
	s.tracksMu.Lock()
	defer s.tracksMu.Unlock()
	if s.noTracks {
		return false
	}
	s.tracks.Add(1)
	return true
}
