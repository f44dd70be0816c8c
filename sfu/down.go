package sfu

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/srtp"
)

// A down is one published track on its way to one receiver. It is the
// webrtc.TrackLocal of the receiver's RTPSender, for the sake of negotiation: what
// it sends does not pass through pion. The reader of the publisher's packets calls
// forward, or forwardLayer.
type down struct {
	up      *up
	session *Session // the receiver
	id      string
	sender  *webrtc.RTPSender // set once, before the track is negotiated
	agreed  named             // what the receiver's answer names; set before Bind
	gauge   prometheus.Gauge
	lost    prometheus.Counter

	bound  atomic.Pointer[outgoing] // nil while the receiver has not agreed
	choice *choice                  // of the layer; nil if there are none
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
		s.media.path.begin()
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
		if err := d.open(ctx, c); err != nil {
			d.session.log.Debug("open stream to receiver", "err", err)
			d.lost.Inc()
			if errors.Is(err, srtp.ErrSpent) {
				d.session.end("too many streams")
			}
			return c, nil
		}
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

// open makes the stream that the receiver agreed to. An extension ID that does not
// fit into the short form is not used.
func (d *down) open(ctx webrtc.TrackLocalContext, c webrtc.RTPCodecParameters) error {
	m := d.session.media
	keys := m.out.Load()
	if keys == nil {
		return errors.New("no media keys")
	}
	o := &outgoing{to: m, ssrc: uint32(ctx.SSRC()), kind: uint8(c.PayloadType), overhead: keys.Profile().Overhead()}
	for _, e := range ctx.HeaderExtensions() {
		switch {
		case e.ID < 1 || e.ID > 14:
		case e.URI == extAudioLevel && d.up.audio():
			o.level = uint8(e.ID)
		case e.URI == sdp.TransportCCURI && !d.up.audio():
			o.number = uint8(e.ID)
		}
	}
	memory := 0
	if o.nack = !d.up.audio() && slices.Contains(c.RTCPFeedback, webrtc.RTCPFeedback{Type: "nack"}); o.nack {
		memory = packetcache.Memory
	}
	var err error
	if o.seal, err = keys.Sealer(o.ssrc, memory); err != nil {
		return err
	}
	d.bound.Store(o)
	m.send(d)
	return nil
}

// Unbind ends the forwarding. It implements webrtc.TrackLocal.
func (d *down) Unbind(webrtc.TrackLocalContext) error {
	if d.bound.Swap(nil) != nil {
		d.fan().remove(d)
		d.session.media.sendNoMore(d)
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

// sending is the up whose packets are sent; nil if there is none yet.
func (d *down) sending() *up {
	if d.choice == nil {
		return d.up
	}
	return d.choice.sending()
}

// cache has the packets of a layer; 0 is the only one where there are none.
func (d *down) cache(layer uint8) *packetcache.Cache {
	if d.choice == nil {
		return d.up.cache
	}
	return d.choice.of.cache(int(layer))
}

// forward sends packets: the publisher's sequence number, timestamp, marker and
// payload under the receiver's SSRC, payload type and extensions.
func (d *down) forward(out *outbox, run []received) {
	o := d.bound.Load()
	if o == nil {
		return
	}
	w := o.to.way.Load()
	if w == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range run {
		p := &run[i]
		x := sending{marker: p.Marker, seq: p.Seq, time: p.Time, level: p.level, leveled: p.leveled, payload: p.Payload, ref: p.ref}
		if !o.write(out, w, &x) {
			d.lost.Inc() // one receiver's trouble must not hold up the others
		}
	}
}

// readFeedback reads the receiver's RTCP until the sender stops: what is lost is
// sent again, a lost picture is asked for again, and reports tell of the way.
func (d *down) readFeedback() {
	buf := make([]byte, maxDatagram)
	for {
		n, _, err := d.sender.Read(buf)
		if err != nil {
			return
		}
		all, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, p := range all {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				d.requestKeyframe()
			case *rtcp.TransportLayerNack:
				if d.answer(p) > 0 {
					d.session.server.drops("nack_budget")
					d.requestKeyframe() // nothing else will repair the picture
				}
			case *rtcp.ReceiverReport:
				d.tripped(p.Reports)
			case *rtcp.SenderReport:
				d.tripped(p.Reports)
			case *rtcp.TransportLayerCC:
				d.session.media.path.report(p)
			}
		}
	}
}

// tripped reads from reports how long the way to the receiver is.
func (d *down) tripped(all []rtcp.ReceptionReport) {
	o, now := d.bound.Load(), time.Now()
	for i := range all {
		if o != nil {
			o.tripped(&all[i], now)
		}
	}
}
