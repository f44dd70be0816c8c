package peer

import (
	"context"
	"fmt"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// hear queues a message of the data channel.
func (p *Peer) hear(m webrtc.DataChannelMessage) {
	if m.IsString {
		return // the legacy text protocol, which this client does not speak
	}
	c, err := wire.DecodeChannel(m.Data)
	if err != nil {
		p.config.Logger.Warn("channel message ignored", "err", err)
		return
	}
	p.deliver(event{channel: &c})
}

// obey does what the server says.
func (p *Peer) obey(e event) {
	var err error
	if e.envelope != nil {
		err = p.obeyEnvelope(e.envelope)
	} else {
		err = p.obeyChannel(e.channel)
	}
	if err != nil {
		p.config.Logger.Warn("server message failed", "err", err)
	}
}

func (p *Peer) obeyEnvelope(e *wire.Envelope) error {
	if e.Type == wire.TypeClose {
		p.end(ErrEnded)
		return nil
	}
	if e.Type != wire.TypeRTC && e.Type != wire.TypeVAD {
		return nil
	}
	switch e.Message.Kind {
	case wire.KindICE:
		c, err := wire.DecodeCandidate(e.Message.Data)
		if err != nil {
			return err
		}
		return p.addCandidate(c)
	case wire.KindSDP:
		d, err := wire.DecodeDescription(e.Message.Data)
		if err != nil {
			return err
		}
		return p.describe(d)
	case wire.KindVoiceOn, wire.KindVoiceOff:
		on := e.Message.Kind == wire.KindVoiceOn
		p.update(func() { p.voice = on })
		p.config.OnVoice(on)
	}
	return nil
}

func (p *Peer) obeyChannel(m *wire.ChannelMessage) error {
	switch m.Type {
	case wire.ChannelPong:
		p.mu.Lock()
		if !p.pinged.IsZero() {
			p.rtt.Store(int64(time.Since(p.pinged)))
			p.pinged = time.Time{}
		}
		p.mu.Unlock()
	case wire.ChannelSDP:
		return p.describe(m.SDP)
	case wire.ChannelLock:
		if m.Granted != nil {
			return p.lockAnswered(*m.Granted)
		}
	case wire.ChannelMap:
		p.update(func() { p.media = m.Media })
	}
	return nil
}

// describe applies an offer or answer of the server.
func (p *Peer) describe(d wire.Description) error {
	d.SDP = p.filter().sdp(d.SDP)
	p.sdp.Lock()
	defer p.sdp.Unlock()
	if d.Type == "answer" {
		return p.answered(d)
	}
	if p.pc.SignalingState() == webrtc.SignalingStateHaveLocalOffer {
		p.held = &d // we hold the lock, so ours is the one to be answered
		return nil
	}
	return p.reply(d)
}

// answered applies the answer to our offer and wakes whoever waits for it.
func (p *Peer) answered(d wire.Description) error {
	p.mu.Lock()
	waiting := p.answer
	p.answer = nil
	p.mu.Unlock()
	if waiting == nil {
		return fmt.Errorf("apply answer: no offer was made")
	}
	err := p.apply(webrtc.SDPTypeAnswer, d.SDP)
	waiting <- err // has room for one
	if held := p.held; held != nil && err == nil {
		p.held = nil
		return p.reply(*held)
	}
	return nil
}

// reply answers an offer of the server.
func (p *Peer) reply(offer wire.Description) error {
	if err := p.apply(webrtc.SDPTypeOffer, offer.SDP); err != nil {
		return err
	}
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("answer offer: %w", err)
	}
	if err := p.pc.SetLocalDescription(answer); err != nil {
		return fmt.Errorf("answer offer: %w", err)
	}
	return p.describeUs(answer)
}

// apply sets the remote description and the candidates that came before the
// first.
func (p *Peer) apply(t webrtc.SDPType, sdp string) error {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: t, SDP: sdp}); err != nil {
		return fmt.Errorf("apply %s: %w", t, err)
	}
	p.mu.Lock()
	early := p.remote
	p.remote = nil
	p.mu.Unlock()
	for _, c := range early {
		if err := p.pc.AddICECandidate(c); err != nil {
			return fmt.Errorf("add candidate: %w", err)
		}
	}
	return nil
}

// describeUs sends a description of ours the way the session has chosen. The
// first one always travels over the link, as there is no channel yet.
func (p *Peer) describeUs(d webrtc.SessionDescription) error {
	ours := wire.Description{Type: d.Type.String(), SDP: p.filter().ours().sdp(d.SDP)}
	if p.config.DCSignaling && p.dc.ReadyState() == webrtc.DataChannelStateOpen {
		return p.say(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: ours})
	}
	return p.rtc(wire.KindSDP, wire.EncodeDescription(ours))
}

// say sends a message on the data channel.
func (p *Peer) say(m wire.ChannelMessage) error {
	b, err := m.Append(nil)
	if err != nil {
		return err
	}
	if err := p.dc.Send(b); err != nil {
		return fmt.Errorf("send channel message type %d: %w", m.Type, err)
	}
	return nil
}

// rtc sends a message of the session over the link, while the session lives.
func (p *Peer) rtc(k wire.Kind, data []byte) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	return p.mux.link.Send(wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{Session: p.config.Session, Kind: k, Data: data}})
}

func (p *Peer) filter() filter {
	return filter{path: p.config.Path, port: p.config.Port, ipv6: p.config.IPv6}
}

// addCandidate tells ICE a candidate of the server, if it is on the path.
func (p *Peer) addCandidate(c wire.Candidate) error {
	if c.Candidate == "" || !p.filter().allows(c.Candidate) {
		return nil
	}
	p.sdp.Lock()
	defer p.sdp.Unlock()
	if p.pc.RemoteDescription() == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.remote) < inboxSize {
			p.remote = append(p.remote, webrtc.ICECandidateInit(c))
		}
		return nil
	}
	if err := p.pc.AddICECandidate(webrtc.ICECandidateInit(c)); err != nil {
		return fmt.Errorf("add candidate: %w", err)
	}
	return nil
}

// trickle sends a candidate of ours, but not before the first offer.
func (p *Peer) trickle(c wire.Candidate) {
	p.mu.Lock()
	p.local++
	if !p.filter().ours().allows(c.Candidate) {
		p.mu.Unlock()
		return
	}
	wait := !p.offered
	if wait {
		p.gathered = append(p.gathered, c)
	}
	p.mu.Unlock()
	if wait {
		return
	}
	if err := p.rtc(wire.KindICE, wire.EncodeBareCandidate(c)); err != nil {
		p.config.Logger.Warn("candidate not sent", "err", err)
	}
}

func (p *Peer) candidates() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.local
}

// ping measures the way to the server and back, as clients do every second.
func (p *Peer) ping() {
	if p.opened.Load() == 0 {
		return
	}
	p.mu.Lock()
	p.pinged = time.Now()
	p.mu.Unlock()
	if err := p.say(wire.ChannelMessage{Type: wire.ChannelPing}); err != nil {
		p.config.Logger.Debug("ping not sent", "err", err)
	}
}
