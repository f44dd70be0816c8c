package sfu

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// A down is one published track on its way to one receiver. It is the
// webrtc.TrackLocal of the receiver's RTPSender. Only the publisher's goroutine
// calls forward; with layers there are several, which call forwardLayer.
type down struct {
	up      *up
	session *Session // the receiver
	id      string
	sender  *webrtc.RTPSender // set once, before the track is negotiated
	agreed  named             // what the receiver's answer names; set before Bind
	gauge   prometheus.Gauge
	lost    prometheus.Counter

	bound  atomic.Pointer[binding] // nil while the receiver has not agreed
	choice *choice                 // of the layer; nil if there are none
}

// A binding is what the receiver agreed to: where to write, and the header of
// every packet. The header is written by forward alone.
type binding struct {
	to     webrtc.TrackLocalWriter
	header rtp.Header
	level  []byte // value of the audio level extension in header; nil = not negotiated
}

func newDown(u *up, s *Session) *down {
	m := s.server.metrics
	d := &down{
		up:      u,
		session: s,
		id:      u.class.Load().id,
		gauge:   m.tracks.WithLabelValues(s.member.Group, "out", u.mime()),
		lost:    m.errors.WithLabelValues(s.member.Group, "rtp"),
	}
	if e := u.layer.Load(); e != nil {
		d.choice = newChoice(e.of, s)
	}
	return d
}

// fan is what the track is received from.
func (d *down) fan() *fanout {
	if d.choice != nil {
		return &d.choice.of.fan
	}
	return &d.up.fan
}

// requestKeyframe asks for a key frame of what is sent, and of what is to be.
func (d *down) requestKeyframe() {
	if d.choice == nil {
		d.up.requestKeyframe()
		return
	}
	for _, u := range d.choice.want() {
		u.requestKeyframe()
	}
}

// Bind is called by pion when the receiver has answered, by the goroutine that
// owns the receiver's negotiation. A receiver that has not agreed to the codec
// gets nothing: an error would keep pion from starting every other track too.
// It implements webrtc.TrackLocal.
func (d *down) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	answer, ok := d.agreed.find(d.up.mime())
	for _, c := range ctx.CodecParameters() {
		if !ok || !strings.EqualFold(c.MimeType, d.up.mime()) {
			continue
		}
		c.PayloadType = answer.PayloadType // pion knows those of the first section only
		c.RTCPFeedback = slices.DeleteFunc(slices.Clone(c.RTCPFeedback), func(f webrtc.RTCPFeedback) bool { return !slices.Contains(answer.RTCPFeedback, f) })
		b := &binding{to: ctx.WriteStream(), header: rtp.Header{Version: 2, SSRC: uint32(ctx.SSRC()), PayloadType: uint8(c.PayloadType)}}
		for _, e := range ctx.HeaderExtensions() {
			if e.URI == extAudioLevel && d.up.audio() {
				b.level = []byte{0}
				if err := b.header.SetExtension(uint8(e.ID), b.level); err != nil {
					return c, fmt.Errorf("set audio level extension: %w", err)
				}
			}
		}
		d.bound.Store(b)
		d.fan().add(d)
		d.gauge.Inc()
		d.requestKeyframe()
		return c, nil
	}
	if strings.EqualFold(d.up.mime(), webrtc.MimeTypeAV1) {
		d.session.noAV1, d.session.stale = true, true // there may be a VP8 track too
	}
	d.session.log.Debug("receiver has not agreed to the codec", "codec", d.up.mime())
	return webrtc.RTPCodecParameters{}, nil
}

// Unbind ends the forwarding. It implements webrtc.TrackLocal.
func (d *down) Unbind(webrtc.TrackLocalContext) error {
	if d.bound.Swap(nil) != nil {
		d.fan().remove(d)
		d.gauge.Dec()
	}
	return nil
}

// ID implements webrtc.TrackLocal.
func (d *down) ID() string { return d.id }

// RID implements webrtc.TrackLocal: receivers get a single encoding.
func (d *down) RID() string { return "" }

// StreamID is the publisher's session, so that a receiver can keep audio and
// video of one participant in step. It implements webrtc.TrackLocal.
func (d *down) StreamID() string { return d.up.session.member.Session }

// Kind implements webrtc.TrackLocal.
func (d *down) Kind() webrtc.RTPCodecType { return d.up.track.Kind() }

// forward sends one packet: the publisher's sequence number, timestamp, marker
// and payload under the receiver's SSRC, payload type and extensions.
func (d *down) forward(p *rtp.Packet, level uint8) {
	b := d.bound.Load()
	if b == nil {
		return
	}
	h := &b.header
	h.Marker, h.SequenceNumber, h.Timestamp = p.Marker, p.SequenceNumber, p.Timestamp
	if b.level != nil {
		b.level[0] = level
	}
	if _, err := b.to.WriteRTP(h, p.Payload); err != nil && !ended(err) {
		d.lost.Inc() // one receiver's trouble must not hold up the others
	}
}

// readFeedback reads the receiver's RTCP until the sender stops: the
// interceptors need to see it, and a lost picture is asked for again.
func (d *down) readFeedback() {
	for {
		packets, _, err := d.sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				d.requestKeyframe()
			}
		}
	}
}
