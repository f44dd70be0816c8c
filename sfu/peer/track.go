package peer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// A Track is a track the peer receives.
type Track struct {
	// ID is the track's ID as the server named it, Type and Sender the first
	// two of its three fields: voice, screen, screen-audio or video, and the
	// publisher's session.
	ID, Type, Sender string
	// Mid is the m-line, Announced what the media map said of it when the first
	// packet came; zero if it said nothing.
	Mid       string
	Announced wire.Media
	// Codec is the MIME type.
	Codec string

	remote *webrtc.TrackRemote
	pc     *webrtc.PeerConnection
	tap    func(*Track, []byte) // Config.OnPacket

	counter *counter // nil unless the peer has a Bulk

	mu sync.Mutex // guards the following
	meter
	waiting map[chan struct{}]uint64 // closed when so many packets have come
	ended   bool
}

// TrackStats is what a track received so far.
type TrackStats struct {
	Packets, Bytes uint64 // whole RTP packets, duplicates included
	// Lost counts the numbers missing so far between the first and last stamp
	// of a source; a late packet is taken off again.
	Lost, Duplicates, Late uint64
	// Foreign counts packets without a stamp: of browsers, or damaged.
	Foreign uint64
	// KeyFrames counts first packets of key frames.
	KeyFrames uint64
	// LastSequence is the highest stamped number.
	LastSequence uint32
	// Measured counts the packets marked by the sender's Window, without
	// duplicates; Latency and Jitter (RFC 3550, section 6.4.1) are theirs.
	// Latency compares two clocks unless sender and receiver share a machine.
	Measured uint64
	Jitter   time.Duration
	Latency  Histogram
	// Freezes counts the times that video stood still for 150 ms longer than it
	// usually does and for three times as long, and Frozen is how long that was
	// altogether. LastPicture is when the last whole picture had come, in
	// nanoseconds since 1970.
	Freezes     uint64
	Frozen      time.Duration
	LastPicture int64
	// Counted says that the peer has a Bulk. Then Measured is what came while the
	// Window was open, Missing the numbers passed over meanwhile and After what
	// came later, and what only a decrypted packet tells stays 0: Foreign,
	// KeyFrames, Jitter, Latency, and all about pictures.
	Counted        bool
	Missing, After uint64
}

// Stats returns a copy of the counters.
func (t *Track) Stats() TrackStats {
	if t.counter != nil {
		return t.counter.stats()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.TrackStats
}

// Ended reports whether the server has taken the track away.
func (t *Track) Ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// WaitPackets returns nil when n packets have come since the track began. The
// error is ctx's.
func (t *Track) WaitPackets(ctx context.Context, n uint64) error {
	reached := make(chan struct{})
	t.mu.Lock()
	if t.Packets >= n {
		t.mu.Unlock()
		return nil
	}
	t.waiting[reached] = n
	t.mu.Unlock()
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.waiting, reached)
		return fmt.Errorf("wait for %d packets of %s, got %d: %w", n, t.ID, t.Packets, context.Cause(ctx))
	}
}

// RequestKeyFrame asks the publisher for a key frame, as a decoder does that
// cannot go on (PLI, RFC 4585 section 6.3.1).
func (t *Track) RequestKeyFrame() error {
	pli := &rtcp.PictureLossIndication{MediaSSRC: uint32(t.remote.SSRC())}
	if err := t.pc.WriteRTCP([]rtcp.Packet{pli}); err != nil {
		return fmt.Errorf("request key frame of %s: %w", t.ID, err)
	}
	return nil
}

// newTrack describes remote; announced looks up a mid in the media map.
func newTrack(pc *webrtc.PeerConnection, remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) *Track {
	t := &Track{ID: remote.ID(), Codec: remote.Codec().MimeType, remote: remote, pc: pc, waiting: map[chan struct{}]uint64{}}
	if fields := strings.Split(t.ID, "_"); len(fields) == 3 {
		t.Type, t.Sender = fields[0], fields[1]
	}
	if transceiver := receiver.RTPTransceiver(); transceiver != nil {
		t.Mid = transceiver.Mid()
	}
	return t
}

// receive counts packets until the track ends.
func (t *Track) receive() {
	buf := make([]byte, 1500)
	video := t.remote.Kind() == webrtc.RTPCodecTypeVideo
	for {
		n, _, err := t.remote.Read(buf)
		if err != nil {
			break
		}
		packet, arrived := buf[:n], now()
		if t.tap != nil {
			t.tap(t, packet)
		}
		head, err := payloadOf(packet)
		keyFrame := err == nil && video && isKeyFrame(t.Codec, packet[head:])
		t.mu.Lock()
		if keyFrame {
			t.KeyFrames++
		}
		measured := t.meter.add(packet, arrived)
		if video && err == nil {
			t.meter.picture(keyFrame, packet[1]&0x80 != 0, measured, arrived)
		}
		for reached, want := range t.waiting {
			if t.Packets >= want {
				delete(t.waiting, reached)
				close(reached)
			}
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
}

// A meter judges the packets of one track by their stamps.
type meter struct {
	TrackStats
	source  uint32
	started bool
	seen    uint64 // bit i = number LastSequence-i has come
	transit int64  // of the last measured packet, nanoseconds
	jitter  float64
	screening
}

// add counts a packet and reports whether it is to be measured.
func (m *meter) add(packet []byte, arrived int64) bool {
	m.Packets++
	m.Bytes += uint64(len(packet))
	s, ok := readStamp(packet)
	switch {
	case !ok:
		m.Foreign++
	case !m.order(s):
		m.Duplicates++
	case s.measured:
		m.time(arrived - s.sent)
		return true
	}
	return false
}

// order notes the number of a stamp and reports whether it is new.
func (m *meter) order(s stamp) bool {
	if !m.started || s.source != m.source {
		m.started, m.source, m.seen, m.LastSequence = true, s.source, 1, s.sequence
		return true
	}
	ahead := int32(s.sequence - m.LastSequence)
	if ahead > 0 {
		m.Lost += uint64(ahead - 1)
		m.seen = m.seen<<min(ahead, 64) | 1
		m.LastSequence = s.sequence
		return true
	}
	bit := uint64(1) << min(-ahead, 64) // too late to tell counts as seen
	if bit == 0 || m.seen&bit != 0 {
		return false
	}
	m.seen |= bit
	m.Late++
	m.Lost -= min(m.Lost, 1) // it may have been sent before the first we saw
	return true
}

func (m *meter) time(transit int64) {
	if m.Measured > 0 {
		m.jitter += (float64(max(transit-m.transit, m.transit-transit)) - m.jitter) / 16
	}
	m.transit = transit
	m.Measured++
	m.Jitter = time.Duration(m.jitter)
	m.Latency.Add(time.Duration(transit))
}
