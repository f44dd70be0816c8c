package peer

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

// Speaking and Silent are audio levels for SetLevels: n counts packets, 50 a
// second. Speaking moves as a voice does, which the server reports within a
// second; Silent is the extension's 127.
func Speaking(n uint64) uint8 { return []uint8{30, 95}[n/3%2] }

// Silent is the level of silence.
func Silent(uint64) uint8 { return 127 }

// Video says what is published as screen or camera.
type Video struct {
	// Bitrate in bit/s; 0 means 1,000,000.
	Bitrate int
	// FPS is the number of frames a second; 0 means 10.
	FPS int
	// Sound adds an audio track to a screen.
	Sound bool
}

func (v Video) complete() Video {
	if v.Bitrate <= 0 {
		v.Bitrate = 1_000_000
	}
	if v.FPS <= 0 {
		v.FPS = 10
	}
	return v
}

// Sent counts what a peer sent.
type Sent struct {
	Packets, Bytes uint64 // bytes of RTP payload
	Measured       uint64 // packets sent while the Window was open
	KeyFrames      uint64
	Asked          uint64 // requests for a key frame that came back
	// Acknowledged is how many packets the server's latest report covers, of which
	// Lost did not arrive; of a source that has never had more than 65,536 packets
	// lost on end.
	Acknowledged, Lost uint64
}

func (s *Sent) add(o Sent) {
	s.Packets += o.Packets
	s.Bytes += o.Bytes
	s.Measured += o.Measured
	s.KeyFrames += o.KeyFrames
	s.Asked += o.Asked
	s.Acknowledged += o.Acknowledged
	s.Lost += o.Lost
}

const (
	audioInterval = 20 * time.Millisecond
	videoPayload  = 1100 // bytes of a full packet
	videoMinimum  = 64   // bytes of the smallest: descriptor, key frame, stamp
	// maxBehind is how many frames a source sends at once after it was kept
	// from the processor; it skips those it is behind further.
	maxBehind = 10
)

// A source makes the packets of one published track. It is a
// webrtc.TrackLocal: the connection binds it when an answer has chosen its
// codec, and from then on a goroutine of the source sends.
type source struct {
	id, stream, mime string
	spawn            func(func()) // runs a goroutine that the peer waits for
	window           *Window
	video            Video     // not for audio
	key              uint32    // of the stamps
	layer            layer     // if it is one of several encodings
	flows            chan Flow // capacity 1, of a stream

	paused atomic.Bool
	wanted atomic.Bool // a key frame
	levels atomic.Pointer[func(uint64) uint8]

	mu   sync.Mutex // guards the following
	stop chan struct{}
	sent Sent
	// Of the connection that it is bound to:
	ssrc  uint32
	first uint16 // sequence number
}

func newSource(mime, id, stream string) *source {
	s := &source{id: id, stream: stream, mime: mime, key: rand.Uint32()}
	s.wanted.Store(true)
	s.setLevels(Speaking)
	return s
}

func (s *source) ID() string       { return s.id }
func (s *source) RID() string      { return s.layer.rid }
func (s *source) StreamID() string { return s.stream }

// Kind implements webrtc.TrackLocal.
func (s *source) Kind() webrtc.RTPCodecType {
	if s.mime == webrtc.MimeTypeOpus {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

func (s *source) setLevels(f func(uint64) uint8) { s.levels.Store(&f) }

// Bind implements webrtc.TrackLocal: it starts sending.
func (s *source) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, codec := range c.CodecParameters() {
		if !strings.EqualFold(codec.MimeType, s.mime) {
			continue
		}
		stop := make(chan struct{})
		w := writer{source: s, out: c.WriteStream(), header: rtp.Header{
			Version: 2, SSRC: uint32(c.SSRC()), PayloadType: uint8(codec.PayloadType),
			SequenceNumber: uint16(rand.Uint32()), Timestamp: rand.Uint32(),
		}}
		s.mu.Lock()
		s.stop, s.ssrc, s.first = stop, w.header.SSRC, w.header.SequenceNumber
		s.mu.Unlock()
		if s.Kind() == webrtc.RTPCodecTypeAudio {
			w.level = levelExtension(c.HeaderExtensions(), &w.header)
			s.spawn(func() {
				if s.flows != nil {
					w.run(stop, s.flows)
				} else {
					s.pace(stop, audioInterval, w.audio(960))
				}
			})
		} else {
			s.layer.mark(c.HeaderExtensions(), &w.header)
			fps := s.video.FPS
			s.spawn(func() { s.pace(stop, time.Second/time.Duration(fps), w.frame(90000/uint32(fps))) })
		}
		s.spawn(func() { s.listen(c.RTCPReader()) })
		return codec, nil
	}
	return webrtc.RTPCodecParameters{}, fmt.Errorf("publish %s: the server does not take it", s.mime)
}

// levelExtension adds the audio level to header and returns its one byte, or
// nil if the extension was not agreed on.
func levelExtension(agreed []webrtc.RTPHeaderExtensionParameter, header *rtp.Header) []byte {
	for _, x := range agreed {
		level := []byte{0}
		if x.URI == extAudioLevel && header.SetExtension(uint8(x.ID), level) == nil {
			return level // the header refers to it
		}
	}
	return nil
}

// Unbind implements webrtc.TrackLocal: it ends sending.
func (s *source) Unbind(webrtc.TrackLocalContext) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
	}
	return nil
}

func (s *source) counts() Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// pace calls frame once per interval until stop.
func (s *source) pace(stop <-chan struct{}, interval time.Duration, frame func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	start, done := time.Now(), 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		due := int(time.Since(start) / interval)
		if due-done > maxBehind {
			done = due - 1
		}
		for ; done < due; done++ {
			frame()
		}
	}
}

// listen reads the feedback to this source until the connection ends.
func (s *source) listen(in interceptor.RTCPReader) {
	buf := make([]byte, 1500)
	for {
		n, _, err := in.Read(buf, nil)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.ReceiverReport:
				s.mu.Lock()
				s.acknowledge(p)
				s.mu.Unlock()
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				s.wanted.Store(true)
				s.mu.Lock()
				s.sent.Asked++
				s.mu.Unlock()
			}
		}
	}
}

// A writer is a source bound to a connection; its goroutine alone uses it.
type writer struct {
	source *source
	out    webrtc.TrackLocalWriter
	header rtp.Header
	level  []byte // in header; nil = not agreed on
	spoken uint64 // packets of audio

	sequence uint32 // of the next stamp
}

// write sends one packet, stamped, and counts it.
func (w *writer) write(payload []byte, keyFrame bool) {
	s := w.source
	measured := s.window.marks()
	stamp{source: s.key, sequence: w.sequence, sent: now(), measured: measured}.put(payload)
	_, err := w.out.WriteRTP(&w.header, payload)
	w.header.SequenceNumber++
	if err != nil {
		return // the connection is ending
	}
	w.sequence++
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent.Packets++
	s.sent.Bytes += uint64(len(payload))
	if measured {
		s.sent.Measured++
	}
	if keyFrame {
		s.sent.KeyFrames++
	}
}

// audio returns a function that sends the next 20 ms, step units of the clock.
func (w *writer) audio(step uint32) func() {
	frame := audioFrame()
	return func() { w.say(frame, step) }
}

// say sends a packet of audio, unless the source is paused.
func (w *writer) say(frame []byte, step uint32) {
	w.header.Timestamp += step
	if w.source.paused.Load() {
		return
	}
	if w.level != nil {
		w.level[0] = (*w.source.levels.Load())(w.spoken) & 0x7f
	}
	w.spoken++
	w.write(frame, false)
}

// frame returns a function that sends the next picture.
func (w *writer) frame(step uint32) func() {
	v := w.source.video
	payload := make([]byte, videoPayload)
	left, part := 0, videoPart{}
	return func() {
		w.header.Timestamp += step
		left += v.Bitrate / 8 / v.FPS // what one frame did not use, the next may
		if w.source.paused.Load() {
			left = 0
			return
		}
		part.first, part.key = true, w.source.wanted.Swap(false)
		for part.first || left > videoPayload/2 {
			size := max(min(left, videoPayload), videoMinimum)
			left -= size
			w.header.Marker = left <= videoPayload/2
			putVideo(w.source.mime, payload[:size], part)
			w.source.layer.name(payload[:size])
			w.write(payload[:size], part.key && part.first)
			part.first = false
		}
		part.picture = (part.picture + 1) & 0x7fff
	}
}
