package main

import (
	"fmt"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// describe applies an offer or an answer of the participant.
func (x *session) describe(d wire.Description) error {
	offer := d.Type == "offer"
	remote := webrtc.SessionDescription{Type: webrtc.NewSDPType(d.Type), SDP: d.SDP}
	if err := x.pc.SetRemoteDescription(remote); err != nil {
		return fmt.Errorf("apply %s: %w", d.Type, err)
	}
	for _, c := range x.early {
		if err := x.pc.AddICECandidate(c); err != nil {
			return fmt.Errorf("add candidate: %w", err)
		}
	}
	x.early = nil
	if !offer {
		return x.offer()
	}
	answer, err := x.pc.CreateAnswer(nil)
	if err == nil {
		err = x.pc.SetLocalDescription(answer)
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	x.signal(wire.KindSDP, wire.EncodeDescription(wire.Description{Type: "answer", SDP: answer.SDP}))
	return nil
}

func (x *session) candidate(c webrtc.ICECandidateInit) error {
	if x.pc.RemoteDescription() == nil {
		x.early = append(x.early, c)
		return nil
	}
	return x.pc.AddICECandidate(c)
}

// offer adds the tracks that the session does not receive yet and offers them,
// unless an offer is under way: what ends that calls it again.
func (x *session) offer() error {
	if err := x.subscribe(); err != nil {
		return err
	}
	if !x.changed || x.locked || x.pc.SignalingState() != webrtc.SignalingStateStable {
		return nil
	}
	x.changed = false
	offer, err := x.pc.CreateOffer(nil)
	if err == nil {
		err = x.pc.SetLocalDescription(offer)
	}
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	x.signal(wire.KindSDP, wire.EncodeDescription(wire.Description{Type: "offer", SDP: offer.SDP}))
	return nil
}

func (x *session) subscribe() error {
	s := x.sfu
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[x.member.Call]
	if c == nil || !c.members[x] {
		return nil
	}
	for track, p := range c.tracks {
		if p.from == x || p.subscribed[x] != nil {
			continue
		}
		sender, err := x.pc.AddTrack(track)
		if err != nil {
			return fmt.Errorf("add track: %w", err)
		}
		p.subscribed[x] = sender
		x.changed = true
		go listen(sender, p.keyFrame)
	}
	return nil
}

// listen lets the interceptors see the subscriber's reports and passes its
// wishes for key frames on.
func listen(sender *webrtc.RTPSender, keyFrame func()) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				keyFrame()
			}
		}
	}
}
