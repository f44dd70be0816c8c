package peer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// Selected is the pair of candidates that carries the media.
type Selected struct {
	// Path is what the pair amounts to; Auto if it is not known.
	Path Path
	// LocalType is host, srflx, prflx or relay; Protocol is udp or tcp, for a
	// relay the one between relay and server.
	LocalType, Protocol string
	// Local and Remote are the addresses of the pair.
	Local, Remote netip.AddrPort
}

// String returns the pair in one line, such as
// "turn-tls relay/udp 192.0.2.1:50000 -> 192.0.2.1:8443".
func (s Selected) String() string {
	return fmt.Sprintf("%s %s/%s %s -> %s", s.Path, s.LocalType, s.Protocol, s.Local, s.Remote)
}

// Selected returns the pair in use. The error says that there is none.
func (p *Peer) Selected() (Selected, error) {
	pair, err := p.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return Selected{}, fmt.Errorf("get selected candidate pair: %w", cmp.Or(err, ErrFailed))
	}
	s := Selected{
		LocalType: pair.Local.Typ.String(), Protocol: pair.Local.Protocol.String(),
		Local: address(pair.Local), Remote: address(pair.Remote),
	}
	switch {
	case pair.Local.Typ == webrtc.ICECandidateTypeRelay:
		s.Path = p.relayPath(pair.Local)
	case pair.Local.Protocol == webrtc.ICEProtocolTCP:
		s.Path = TCP
	default:
		s.Path = UDP
	}
	return s, nil
}

func address(c *webrtc.ICECandidate) netip.AddrPort {
	ip, _ := netip.ParseAddr(c.Address)
	return netip.AddrPortFrom(ip, c.Port)
}

// relayPath finds out how the relay of a local candidate was reached, which
// only the statistics tell.
func (p *Peer) relayPath(c *webrtc.ICECandidate) Path {
	for _, stat := range p.pc.GetStats() {
		s, is := stat.(webrtc.ICECandidateStats)
		if !is || s.Type != webrtc.StatsTypeLocalCandidate || s.CandidateType != c.Typ ||
			s.IP != c.Address || s.Port != int32(c.Port) {
			continue
		}
		switch s.RelayProtocol {
		case "udp":
			return TURNUDP
		case "tcp":
			return TURNTCP
		case "tls":
			return TURNTLS
		}
	}
	return Auto
}

// Tracks returns the tracks received so far, ended ones included, oldest first.
func (p *Peer) Tracks() []*Track {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tracks)
}

// Track returns the newest live track of a type from a publisher, or nil.
func (p *Peer) Track(kind, sender string) *Track {
	for _, t := range slices.Backward(p.Tracks()) {
		if t.Type == kind && t.Sender == sender && !t.Ended() {
			return t
		}
	}
	return nil
}

// WaitTrack waits for a live track of a type from a publisher. The error is
// ctx's, or why the peer ended.
func (p *Peer) WaitTrack(ctx context.Context, kind, sender string) (*Track, error) {
	var t *Track
	err := p.Wait(ctx, func() bool {
		t = p.Track(kind, sender)
		return t != nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for %s of session %s: %w", kind, sender, err)
	}
	return t, nil
}

// Media returns the server's latest media map: what it sends on which m-line.
func (p *Peer) Media() map[string]wire.Media {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.media)
}

// Voice reports whether the server last said that this peer speaks.
func (p *Peer) Voice() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.voice
}

// Wait returns when met holds, which it asks after every change of tracks, media
// map and voice. The error is ctx's, or why the peer ended.
func (p *Peer) Wait(ctx context.Context, met func() bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if met() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// update changes what Wait looks at.
func (p *Peer) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

// JoinTime returns the time from joining until the connection was up.
func (p *Peer) JoinTime() time.Duration { return time.Duration(p.connected.Load()) }

// OpenTime returns the time from joining until the data channel was open.
func (p *Peer) OpenTime() time.Duration { return time.Duration(p.opened.Load()) }

// RTT returns the round trip of the last ping, 0 before the first.
func (p *Peer) RTT() time.Duration { return time.Duration(p.rtt.Load()) }

// receive takes a new track in and counts its packets until it ends.
func (p *Peer) receive(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	t := newTrack(p.pc, remote, receiver)
	if tally := p.config.tally; tally != nil {
		ssrc := uint32(remote.SSRC())
		t.counter = tally.take(ssrc)
		defer tally.drop(ssrc, t.counter)
	}
	t.tap = p.config.OnPacket
	p.update(func() {
		t.Announced = p.media[t.Mid]
		if t.Type == "" { // not named by the protocol's rule
			t.Type, t.Sender = t.Announced.Type, t.Announced.Sender
		}
		p.tracks = append(p.tracks, t)
	})
	p.config.OnTrack(t)
	if remote.Kind() == webrtc.RTPCodecTypeVideo {
		if err := t.RequestKeyFrame(); err != nil {
			p.config.Logger.Debug("key frame not requested", "err", err)
		}
	}
	if p.config.Feedback {
		p.spawn(func() { listenReports(receiver) })
	}
	t.receive()
	p.update(func() {})
}

// listenReports lets the interceptors see the sender reports of a track.
func listenReports(receiver *webrtc.RTPReceiver) {
	buf := make([]byte, 1500)
	for {
		if _, _, err := receiver.Read(buf); err != nil {
			return
		}
	}
}
