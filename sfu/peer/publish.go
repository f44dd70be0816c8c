package peer

import (
	"context"
	"errors"
	"fmt"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// The types of tracks, as the protocol names them.
const (
	voice       = "voice"
	screen      = "screen"
	screenAudio = "screen-audio"
	camera      = "video"
)

var (
	errSharing    = errors.New("screen is already shared")
	errNotSharing = errors.New("screen is not shared")
)

// Unmute starts to send audio. The first time it publishes the track, which
// needs an offer and answer; later it only goes on.
func (p *Peer) Unmute(ctx context.Context) error {
	return p.exclusively(ctx, func() error {
		if p.published(voice) == nil {
			if err := p.publish(ctx, voice, newSource(webrtc.MimeTypeOpus, NewID(), NewID())); err != nil {
				return fmt.Errorf("unmute: %w", err)
			}
		}
		err := p.rtc(wire.KindUnmute, nil)
		p.pause(voice, false)
		return err
	})
}

// Mute stops sending audio, without renegotiation.
func (p *Peer) Mute() error {
	p.pause(voice, true)
	return p.rtc(wire.KindMute, nil)
}

// ShareScreen announces a screen and publishes its tracks: VP8, AV1 if the peer
// declared that, and audio if v.Sound.
func (p *Peer) ShareScreen(ctx context.Context, v Video) error {
	return p.exclusively(ctx, func() error {
		if p.published(screen) != nil {
			return errSharing
		}
		stream := NewID()
		if err := p.rtc(wire.KindScreenOn, wire.EncodeStream(wire.KindScreenOn, stream)); err != nil {
			return err
		}
		if err := p.publishVideo(ctx, screen, stream, v); err != nil {
			return fmt.Errorf("share screen: %w", err)
		}
		if !v.Sound {
			return nil
		}
		if err := p.publish(ctx, screenAudio, newSource(webrtc.MimeTypeOpus, NewID(), stream)); err != nil {
			return fmt.Errorf("share screen: %w", err)
		}
		return nil
	})
}

// StopScreen takes the screen's tracks away and then says so.
func (p *Peer) StopScreen(ctx context.Context) error {
	return p.exclusively(ctx, func() error {
		if p.published(screen) == nil {
			return errNotSharing
		}
		for _, t := range []string{screen, screenAudio} {
			if err := p.withdraw(ctx, t); err != nil {
				return fmt.Errorf("stop screen: %w", err)
			}
		}
		return p.rtc(wire.KindScreenOff, nil)
	})
}

// CameraOn publishes a camera and then announces it, in this order, as the web
// client does. After CameraOff it goes on with the same tracks, under a new
// stream ID; v is then ignored.
func (p *Peer) CameraOn(ctx context.Context, v Video) error {
	return p.exclusively(ctx, func() error {
		stream := NewID()
		if p.published(camera) == nil {
			if err := p.publishVideo(ctx, camera, stream, v); err != nil {
				return fmt.Errorf("camera on: %w", err)
			}
		}
		p.pause(camera, false)
		return p.rtc(wire.KindVideoOn, wire.EncodeStream(wire.KindVideoOn, stream))
	})
}

// CameraOff stops sending video, without renegotiation.
func (p *Peer) CameraOff() error {
	p.pause(camera, true)
	return p.rtc(wire.KindVideoOff, nil)
}

// SetLevels makes the audio levels of what the peer says: Speaking, which they
// are at first, Silent, or others. It takes effect once the peer was unmuted.
func (p *Peer) SetLevels(f func(n uint64) uint8) {
	for _, s := range p.published(voice) {
		s.setLevels(f)
	}
}

// Sent returns what the peer sent of a type of track: voice, screen,
// screen-audio or video.
func (p *Peer) Sent(kind string) Sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := p.retired[kind]
	for _, s := range p.sources[kind] {
		sum.add(s.counts())
	}
	return sum
}

// published returns the sources of a type of track, nil if there are none.
func (p *Peer) published(kind string) []*source {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sources[kind]
}

func (p *Peer) pause(kind string, on bool) {
	for _, s := range p.published(kind) {
		s.paused.Store(on)
	}
}

// publishVideo adds the tracks of a picture, each by an offer of its own.
func (p *Peer) publishVideo(ctx context.Context, kind, stream string, v Video) error {
	v = v.complete()
	mimes := []string{webrtc.MimeTypeVP8}
	if p.config.AV1 {
		mimes = append(mimes, webrtc.MimeTypeAV1)
	}
	for _, mime := range mimes {
		s := newSource(mime, NewID(), stream)
		s.video = v
		if err := p.publish(ctx, kind, s); err != nil {
			return err
		}
	}
	return nil
}

// publish adds one track.
func (p *Peer) publish(ctx context.Context, kind string, s *source) error {
	s.spawn, s.window = p.spawn, p.config.Window
	return p.negotiate(ctx, func() error {
		if _, err := p.pc.AddTrack(s); err != nil {
			return fmt.Errorf("add %s track: %w", kind, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sources[kind] = append(p.sources[kind], s)
		return nil
	})
}

// withdraw removes the tracks of a type, each by an offer of its own.
func (p *Peer) withdraw(ctx context.Context, kind string) error {
	for _, s := range p.published(kind) {
		if err := p.negotiate(ctx, func() error { return p.removeTrack(s) }); err != nil {
			return fmt.Errorf("remove %s track: %w", kind, err)
		}
		p.mu.Lock()
		sum := p.retired[kind]
		sum.add(s.counts())
		p.retired[kind] = sum
		p.sources[kind] = without(p.sources[kind], s)
		p.mu.Unlock()
	}
	return nil
}

func (p *Peer) removeTrack(s *source) error {
	for _, sender := range p.pc.GetSenders() {
		if sender.Track() == webrtc.TrackLocal(s) {
			return p.pc.RemoveTrack(sender)
		}
	}
	return nil
}

// without returns the sources but s, and nil for none.
func without(all []*source, s *source) []*source {
	var rest []*source
	for _, x := range all {
		if x != s {
			rest = append(rest, x)
		}
	}
	return rest
}
