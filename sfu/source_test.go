package sfu

import (
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

// A source is a track that a guest publishes.
type source struct {
	g      *guest
	track  *webrtc.TrackLocalStaticRTP
	sender *webrtc.RTPSender
	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the following
	paused bool
	level  uint8
	plis   int
}

// publish adds a track and sends 50 packets a second on it.
func (g *guest) publish(mime, stream string) *source {
	g.t.Helper()
	s := &source{g: g, stop: make(chan struct{}), level: 127}
	var err error
	if s.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, "track-"+stream, stream); err != nil {
		g.t.Fatal(err)
	}
	g.negotiate(func() {
		if s.sender, err = g.pc.AddTrack(s.track); err != nil {
			g.t.Fatal(err)
		}
	})
	s.wg.Go(s.send)
	s.wg.Go(s.feedback)
	g.t.Cleanup(s.end)
	return s
}

func (s *source) end() {
	s.once.Do(func() { close(s.stop) })
	_ = s.g.pc.RemoveTrack(s.sender) // Stop alone would leave a sender without a track, which pion trips over
	_ = s.sender.Stop()
	s.wg.Wait()
}

func (s *source) send() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	audio := strings.HasPrefix(s.track.Codec().MimeType, "audio/")
	ext := uint8(0)
	for _, e := range s.sender.GetParameters().HeaderExtensions {
		if e.URI == extAudioLevel {
			ext = uint8(e.ID)
		}
	}
	for seq := uint16(65500); ; seq++ { // the sequence number wraps early
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		paused, level := s.paused, s.level
		s.mu.Unlock()
		if paused {
			seq--
			continue
		}
		p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(seq) * 960, Marker: !audio}, Payload: make([]byte, 100)}
		if audio && ext != 0 {
			_ = p.Header.SetExtension(ext, []byte{level})
		}
		_ = s.track.WriteRTP(p)
	}
}

func (s *source) feedback() {
	for {
		packets, _, err := s.sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if _, ok := p.(*rtcp.PictureLossIndication); ok {
				s.mu.Lock()
				s.plis++
				s.mu.Unlock()
			}
		}
	}
}

func (s *source) set(change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}
