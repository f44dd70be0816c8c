package conformance

import (
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// A layer is how one encoding of a source is sent.
type layer struct {
	rid   string // "" without simulcast
	every time.Duration
	burst int // packets of a frame
	size  int // bytes of a packet's payload
	tag   byte
}

// steady is 50 small packets a second, each a frame.
var steady = []layer{{every: 20 * time.Millisecond, burst: 1, size: 100, tag: 'x'}}

// simulcast is what web clients send of a screen: low 450 kbit/s, high 2.2 Mbit/s.
var simulcast = []layer{
	{rid: "l", every: 200 * time.Millisecond, burst: 10, size: 1100, tag: 'l'},
	{rid: "h", every: 50 * time.Millisecond, burst: 12, size: 1150, tag: 'h'},
}

// A source is a track that a guest publishes.
type source struct {
	g      *guest
	stream string
	mime   string
	sender *webrtc.RTPSender
	tracks []*webrtc.TrackLocalStaticRTP // one for each layer
	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the following
	paused bool
	levels func(index int) uint8 // audio level of each packet; nil = 127
	sentAt []time.Time           // of the packets of the first layer
	plis   []time.Time
	keys   []bool // a key frame is due, by layer
	mid    string // put into a header extension of video
}

// newSource makes a source that is in no negotiation yet.
func newSource(g *guest, mime, stream string, layers []layer) *source {
	g.t.Helper()
	s := &source{g: g, stream: stream, mime: mime, stop: make(chan struct{}), keys: make([]bool, len(layers))}
	id := newID()
	for i, l := range layers {
		var o []func(*webrtc.TrackLocalStaticRTP)
		if l.rid != "" {
			o = append(o, webrtc.WithRTPStreamID(l.rid))
		}
		tr, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, id, stream, o...)
		must(g.t, err)
		s.tracks = append(s.tracks, tr)
		s.keys[i] = true
	}
	return s
}

// attach adds the source to the guest's connection.
func (s *source) attach() {
	var err error
	if s.sender, err = s.g.pc.AddTrack(s.tracks[0]); err != nil {
		s.g.t.Fatal(err)
	}
	for _, tr := range s.tracks[1:] {
		must(s.g.t, s.sender.AddEncoding(tr))
	}
}

// run sends until the test ends.
func (s *source) run(layers []layer) *source {
	for i, l := range layers {
		s.wg.Go(func() { s.send(i, l) })
		s.wg.Go(func() { s.feedback(i, l) })
	}
	s.g.t.Cleanup(s.end)
	return s
}

// publish adds a track under the lock and begins to send.
func (g *guest) publish(mime, stream string) *source {
	g.t.Helper()
	s := newSource(g, mime, stream, steady)
	g.negotiate(s.attach, nil)
	return s.run(steady)
}

// publishSimulcast is publish with two layers. It returns the answer too.
func (g *guest) publishSimulcast(stream string) (*source, wire.Description) {
	g.t.Helper()
	s := newSource(g, webrtc.MimeTypeVP8, stream, simulcast)
	a := g.negotiate(s.attach, nil)
	return s.run(simulcast), a
}

// unpublish removes the track under the lock.
func (s *source) unpublish() {
	s.g.t.Helper()
	s.g.negotiate(func() { must(s.g.t, s.g.pc.RemoveTrack(s.sender)) }, nil)
	s.once.Do(func() { close(s.stop) })
}

// end ends the source with its guest: only then nobody looks at the sender. The
// readers of layers must be gone before, for the library does not guard what they
// read.
func (s *source) end() {
	s.once.Do(func() { close(s.stop) })
	for _, tr := range s.tracks {
		if tr.RID() != "" {
			_ = s.sender.SetReadDeadlineSimulcast(time.Now(), tr.RID())
		}
	}
	if s.tracks[0].RID() != "" {
		s.wg.Wait()
	}
	s.g.close()
	s.wg.Wait()
}

func (s *source) set(change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *source) pause(paused bool) { s.set(func(s *source) { s.paused = paused }) }

// sent counts the packets of the first layer.
func (s *source) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sentAt)
}

// when returns the time at which a packet of the first layer was sent.
func (s *source) when(index int) time.Time {
	s.g.t.Helper()
	until(s.g.t, "packet to be sent", func() bool { return s.sent() > index })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sentAt[index]
}

func (s *source) extensions() (level, mid, rid uint8) {
	for _, e := range s.sender.GetParameters().HeaderExtensions {
		switch e.URI {
		case extAudioLevel:
			level = uint8(e.ID)
		case extMid:
			mid = uint8(e.ID)
		case extRID:
			rid = uint8(e.ID)
		}
	}
	return level, mid, rid
}

func (s *source) send(i int, l layer) {
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	audio := strings.HasPrefix(s.mime, "audio/")
	seq, stamp, picture := uint16(65500), uint32(1<<32-50000), uint16(100+i*1000)
	index := 0
	levelID, midID, ridID := s.extensions()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		clock := uint32(90000)
		if audio {
			clock = 48000
		}
		stamp += uint32(l.every.Seconds() * float64(clock))
		s.mu.Lock()
		paused, key, mid, level := s.paused, s.keys[i], s.mid, uint8(127)
		if s.levels != nil {
			level = s.levels(index)
		}
		if !paused {
			s.keys[i] = false
		}
		s.mu.Unlock()
		if paused {
			continue
		}
		if l.rid != "" {
			for _, tr := range s.g.pc.GetTransceivers() {
				if tr.Sender() == s.sender {
					mid = tr.Mid()
				}
			}
		}
		for n := range l.burst {
			p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: stamp, Marker: !audio && n == l.burst-1}}
			if audio && levelID != 0 {
				_ = p.Header.SetExtension(levelID, []byte{level})
			}
			if !audio && midID != 0 && mid != "" {
				_ = p.Header.SetExtension(midID, []byte(mid))
			}
			if l.rid != "" && ridID != 0 {
				_ = p.Header.SetExtension(ridID, []byte(l.rid))
			}
			p.Payload = payload(s.mime, l, picture, n == 0, key)
			if err := s.tracks[i].WriteRTP(p); err != nil {
				continue
			}
			seq++
		}
		picture = (picture + 1) & 0x7FFF
		index++
		if i == 0 {
			s.mu.Lock()
			s.sentAt = append(s.sentAt, time.Now())
			s.mu.Unlock()
		}
	}
}

// payload makes the payload of a packet. That of VP8 has a descriptor with a
// picture ID of 15 bits and the header of a frame (RFC 7741 §4.2, RFC 6386 §9.1).
func payload(mime string, l layer, picture uint16, first, key bool) []byte {
	b := make([]byte, l.size)
	for i := range b {
		b[i] = l.tag
	}
	if mime != webrtc.MimeTypeVP8 {
		return b
	}
	b[0], b[1], b[2], b[3] = 0x80, 0x80, 0x80|byte(picture>>8), byte(picture)
	if !first {
		return b
	}
	b[0] |= 0x10
	b[4] = 0x11 // an interframe that is shown
	if key {
		copy(b[4:], []byte{0x10, 0x00, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}) // 640 × 360
	}
	return b
}

// startsKeyframe recognises the beginning of a VP8 key frame.
func startsKeyframe(b []byte) bool {
	return len(b) > 10 && b[0]&0x10 != 0 && b[7] == 0x9d && b[8] == 0x01 && b[9] == 0x2a
}

// feedback counts the server's requests for a key frame and fulfils them.
func (s *source) feedback(i int, l layer) {
	for {
		var packets []rtcp.Packet
		var err error
		if l.rid != "" {
			packets, _, err = s.sender.ReadSimulcastRTCP(l.rid)
		} else {
			packets, _, err = s.sender.ReadRTCP()
		}
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				s.mu.Lock()
				s.plis = append(s.plis, time.Now())
				s.keys[i] = true
				s.mu.Unlock()
			}
		}
	}
}
