package peer

import (
	"context"
	"errors"
	"fmt"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// The encodings of a layered screen, lowest first (rtcd protocol section 4.12).
const (
	LowLayer  = "l"
	HighLayer = "h"
)

var errNoLayer = errors.New("no such layer is published")

// A layer says that a source is one encoding of several. The zero layer says that
// it is the only one.
type layer struct {
	rid string
	of  *webrtc.RTPTransceiver // set before the first offer
}

// mark adds to header what tells the layers of one m-line apart (RFC 8852).
func (l *layer) mark(agreed []webrtc.RTPHeaderExtensionParameter, header *rtp.Header) {
	if l.rid == "" {
		return
	}
	for _, x := range agreed {
		switch x.URI { // an error would mean an ID that cannot have been agreed on
		case extMID:
			_ = header.SetExtension(uint8(x.ID), []byte(l.of.Mid()))
		case extRID:
			_ = header.SetExtension(uint8(x.ID), []byte(l.rid))
		}
	}
}

// name puts the first letter of the layer before the stamp, so that a receiver
// knows which one it got.
func (l *layer) name(payload []byte) {
	if l.rid != "" {
		payload[len(payload)-stampSize-1] = l.rid[0]
	}
}

// LayerOf returns which layer an RTP packet of a layered screen is of: the first
// letter of its name, 0 for anything else.
func LayerOf(packet []byte) byte {
	if _, ok := readStamp(packet); !ok || len(packet) <= stampSize {
		return 0
	}
	switch b := packet[len(packet)-stampSize-1]; b {
	case LowLayer[0], HighLayer[0]:
		return b
	default:
		return 0
	}
}

// ShareLayers announces a screen and publishes it in VP8 twice under one m-line,
// as Chromium does. StopScreen ends it.
func (p *Peer) ShareLayers(ctx context.Context, low, high Video) error {
	return p.exclusively(ctx, func() error {
		if p.published(screen) != nil {
			return errSharing
		}
		stream, id := NewID(), NewID()
		if err := p.rtc(wire.KindScreenOn, wire.EncodeStream(wire.KindScreenOn, stream)); err != nil {
			return err
		}
		var all [2]*source
		for i, v := range []Video{low, high} {
			s := newSource(webrtc.MimeTypeVP8, id, stream)
			s.spawn, s.window, s.video = p.spawn, p.config.Window, v.complete()
			s.layer.rid = []string{LowLayer, HighLayer}[i]
			all[i] = s
		}
		if err := p.negotiate(ctx, func() error { return p.addLayers(all) }); err != nil {
			return fmt.Errorf("share screen: %w", err)
		}
		return nil
	})
}

func (p *Peer) addLayers(all [2]*source) error {
	sender, err := p.pc.AddTrack(all[0])
	if err != nil {
		return fmt.Errorf("add screen track: %w", err)
	}
	for _, t := range p.pc.GetTransceivers() {
		if t.Sender() == sender {
			all[0].layer.of, all[1].layer.of = t, t
		}
	}
	if err := sender.AddEncoding(all[1]); err != nil {
		return fmt.Errorf("add screen layer: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sources[screen] = all[:]
	return nil
}

// PauseLayer stops or resumes one layer of a screen without a word, as Chromium
// does when its uplink is poor.
func (p *Peer) PauseLayer(rid string, on bool) error {
	s, err := p.layer(rid)
	if err == nil {
		s.paused.Store(on)
	}
	return err
}

// SentLayer returns what the peer sent of one layer of its screen.
func (p *Peer) SentLayer(rid string) (Sent, error) {
	s, err := p.layer(rid)
	if err != nil {
		return Sent{}, err
	}
	return s.counts(), nil
}

func (p *Peer) layer(rid string) (*source, error) {
	for _, s := range p.published(screen) {
		if s.layer.rid == rid {
			return s, nil
		}
	}
	return nil, fmt.Errorf("find layer %q: %w", rid, errNoLayer)
}
