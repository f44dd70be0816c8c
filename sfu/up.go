package sfu

import (
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu/internal/loudest"
	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/vad"
)

// keyframeEvery is the shortest time between two requests for a key frame of the
// same source (rtcd protocol §4.13).
const keyframeEvery = time.Second

// An up is one track that a participant publishes. Its packets come from a reader of
// the media sockets, which forwards what one batch has brought to all who watch.
type up struct {
	session  *Session
	track    *webrtc.TrackRemote
	receiver *webrtc.RTPReceiver
	level    uint8 // ID of the audio level header extension; 0 = not negotiated
	began    time.Time
	fan      fanout

	class atomic.Pointer[upClass]  // nil until announced
	layer atomic.Pointer[encoding] // nil if it is the whole source
	on    atomic.Bool              // false while the participant is muted
	deaf  atomic.Bool              // forget the voice levels heard so far

	mu       sync.Mutex // guards the following: packets on their way through
	by       *reader    // whose batch run is of; nil between batches
	run      []received
	voice    vad.Monitor
	speaking bool               // as told
	skipped  uint16             // packets left out because others are louder
	cache    *packetcache.Cache // of video

	retired bool // guarded by call.mu: no longer offered to anybody

	keyMu   sync.Mutex // guards the following
	keyLast time.Time
	keyNext *time.Timer // a request that waits for its turn
	keyEnd  bool        // nothing more will be sent
}

// An upClass is what is known of a track once it has been announced.
type upClass struct {
	class string
	id    string              // track ID shown to receivers
	took  prometheus.Observer // seconds to forward one packet
	voice *loudest.Voice      // among the speakers of the call; nil if it is none
}

func newUp(s *Session, t *webrtc.TrackRemote, r *webrtc.RTPReceiver) *up {
	u := &up{session: s, track: t, receiver: r, began: time.Now()}
	u.on.Store(true)
	for _, e := range r.GetParameters().HeaderExtensions {
		switch e.URI {
		case extAudioLevel:
			u.level = uint8(e.ID)
		case sdp.TransportCCURI:
			s.media.number.Store(uint32(e.ID))
		}
	}
	if !u.audio() {
		u.cache = packetcache.New(cacheBytes, packetcache.Memory)
	}
	return u
}

func (u *up) audio() bool  { return u.track.Kind() == webrtc.RTPCodecTypeAudio }
func (u *up) mime() string { return u.track.Codec().MimeType }

// kind is the class of the track, "" while it has none.
func (u *up) kind() string {
	if c := u.class.Load(); c != nil {
		return c.class
	}
	return ""
}

// forwardable reports whether the track may be offered at all: of simulcast
// layers only the low one is, and stands for all.
func (u *up) forwardable() bool { return u.track.RID() == "" || u.track.RID() == "l" }

// classify fixes the class. Receivers parse the track ID: exactly three fields,
// the class, the publisher's session and 8 random characters.
func (u *up) classify(class string) {
	id := strings.Join([]string{class, u.session.member.Session, strings.ToLower(rand.Text()[:8])}, "_")
	m := u.session.server.metrics
	c := &upClass{class: class, id: id, took: m.writes.WithLabelValues(u.session.member.Group, class)}
	if class == classVoice {
		u.on.Store(!u.session.muted)
		c.voice = u.session.call.loudest.Join()
	}
	u.class.Store(c)
}

// live publishes the track until it ends.
func (u *up) live() {
	s := u.session
	group := s.member.Group
	gauge := s.server.metrics.tracks.WithLabelValues(group, "in", u.mime())
	gauge.Inc()
	defer gauge.Dec()
	defer u.fallSilent()
	s.media.attach(u)
	defer s.media.detach(u)
	s.call.publish(u)
	defer s.call.unpublish(u)
	defer u.stop()

	var reports sync.WaitGroup
	over := make(chan struct{})
	reports.Go(func() { u.readReports(over) })
	defer reports.Wait()
	defer close(over)
	if err := u.await(); !ended(err) {
		s.server.metrics.errors.WithLabelValues(group, "rtp").Inc()
		s.log.Debug("read published track", "err", err)
	}
}

// maxBroken is how many packets in a row may be unreadable before a track is
// given up. pion reports a packet of an unknown payload type as an error of
// reading.
const maxBroken = 100

// ended reports whether err is how a track ends in the ordinary way.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

// await waits for the end of the track. What pion has of it came before the track
// was known, and goes nowhere.
func (u *up) await() error {
	buf := make([]byte, maxDatagram)
	for broken := 0; ; {
		if _, _, err := u.track.Read(buf); err == nil {
			broken = 0
		} else if broken++; ended(err) || broken > maxBroken {
			return err
		}
	}
}

// tellVoice says that the participant began or ended speaking, unless it has been
// muted since the packet that showed it: a mute has the last word.
func (u *up) tellVoice(speaking bool) {
	u.session.voiceMu.Lock()
	defer u.session.voiceMu.Unlock()
	if u.on.Load() && !u.deaf.Load() {
		u.session.Signal().Voice(speaking)
	}
}

// fallSilent ends the speaking of a voice whose track has ended.
func (u *up) fallSilent() {
	u.mu.Lock()
	speaking := u.speaking
	u.speaking = false
	u.mu.Unlock()
	if speaking {
		u.tellVoice(false)
	}
}

// readReports reads the publisher's RTCP for its sender reports. over is closed when
// the track has ended.
func (u *up) readReports(over <-chan struct{}) {
	if !u.awaitLower(over) {
		return
	}
	buf := make([]byte, maxDatagram)
	for {
		var n int
		var err error
		if rid := u.track.RID(); rid != "" {
			n, _, err = u.receiver.ReadSimulcast(buf, rid)
		} else {
			n, _, err = u.receiver.Read(buf)
		}
		if err != nil {
			return
		}
		all, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, p := range all {
			if r, ok := p.(*rtcp.SenderReport); ok && r.SSRC == uint32(u.track.SSRC()) {
				u.session.media.heard(r.SSRC, r.NTPTime, r.RTPTime)
			}
		}
	}
}

// requestKeyframe asks the publisher for a key frame, now or as soon as the
// last request is a second old.
func (u *up) requestKeyframe() {
	if u.audio() {
		return
	}
	u.keyMu.Lock()
	defer u.keyMu.Unlock()
	if u.keyNext != nil || u.keyEnd {
		return
	}
	wait := keyframeEvery - time.Since(u.keyLast)
	if wait <= 0 {
		u.sendPLI()
		return
	}
	var mine *time.Timer
	mine = time.AfterFunc(wait, func() {
		u.keyMu.Lock()
		defer u.keyMu.Unlock()
		if u.keyNext == mine && !u.keyEnd {
			u.keyNext = nil
			u.sendPLI()
		}
	})
	u.keyNext = mine
}

// gotKeyframe drops a request that waits: everybody who waits for a key frame has
// been given this one.
func (u *up) gotKeyframe() {
	u.keyMu.Lock()
	defer u.keyMu.Unlock()
	if u.keyNext != nil && !u.keyEnd {
		u.keyNext.Stop()
		u.keyNext = nil
	}
}

// sendPLI needs keyMu.
func (u *up) sendPLI() {
	u.keyLast = time.Now()
	pli := &rtcp.PictureLossIndication{MediaSSRC: uint32(u.track.SSRC())}
	if err := u.session.pc.WriteRTCP([]rtcp.Packet{pli}); err != nil {
		u.session.log.Debug("request key frame", "err", err)
	}
}

// stop drops a key frame request that waits.
func (u *up) stop() {
	u.keyMu.Lock()
	defer u.keyMu.Unlock()
	if u.keyNext != nil {
		u.keyNext.Stop()
	}
	u.keyEnd = true
}
