package sfu

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v2/packetio"
	"github.com/pion/webrtc/v3"
)

// What one participant may claim of the server. Honest clients stay far below;
// a session that goes beyond loses what is too much, or ends.
const (
	// maxSections is how many media sections a participant's description may
	// have, and ours: more than fit into the largest description a browser handles.
	maxSections = 500
	// maxChannels is how many data channels a participant may open; each costs
	// a goroutine and a buffer of 64 KiB. Clients open one.
	maxChannels = 8
	// maxUnread is how many bytes may wait on a data channel that the
	// participant does not read before the session ends. From maxReplies on
	// nothing is answered any longer: answers are short, so that many small ones
	// take far more memory than they have bytes.
	maxUnread  = 1 << 20
	maxReplies = 64 << 10
	// maxRTPStreams and maxRTCPStreams are how many SSRCs of one session have a
	// buffer at a time, and rtpBuffer and rtcpBuffer the bytes it may hold. What
	// comes from or for further SSRCs is discarded, and after maxStreams of them
	// the session ends.
	maxRTPStreams  = 256
	maxRTCPStreams = 4096
	maxStreams     = 1 << 16
	rtpBuffer      = 256 << 10
	rtcpBuffer     = 16 << 10
)

// An intake is a description of the participant that pion may see.
type intake struct {
	webrtc.SessionDescription
	sections []*sdp.MediaDescription
	codecs   map[string]named // by mid: what each section names, before widen
}

// bounded returns a description without what must not reach pion:
//
//   - ICE candidates that are too many: for each one the agent would send checks
//     to an address that the participant chose
//   - SSRCs of a media section beyond the first (and its repair flow): for the
//     others pion starts readers that have nothing to read from, and panics
//   - formats that nobody forwards
//
// It fails if the description has too many media sections, or one without formats:
// it must have some (RFC 8866 §5.14), and pion's answer would leave the section out.
func (s *Session) bounded(kind webrtc.SDPType, text string) (intake, error) {
	var d sdp.SessionDescription
	in := intake{codecs: map[string]named{}}
	if err := d.UnmarshalString(text); err != nil {
		return in, err
	}
	if n := max(len(d.MediaDescriptions), len(s.pc.GetTransceivers())); n > s.sections {
		return in, fmt.Errorf("%d media sections: at most %d", n, s.sections)
	}
	s.nameSections(&d)
	for i, m := range d.MediaDescriptions {
		if !slices.ContainsFunc(m.MediaName.Formats, func(f string) bool { return f != "" }) {
			return in, fmt.Errorf("media section %d has no formats", i)
		}
		s.boundSection(m)
		mid, _ := m.Attribute("mid")
		if media := m.MediaName.Media; media == "audio" || media == "video" {
			in.codecs[mid] = agreedCodecs(m)
			strip(m, sectionCodecs(m))
		}
		if _, off := m.Attribute("inactive"); off && kind == webrtc.SDPTypeOffer {
			if err := s.detach(mid); err != nil {
				return in, err
			}
		}
	}
	if !s.widened {
		widen(&d)
	}
	b, err := d.Marshal()
	in.SessionDescription = webrtc.SessionDescription{Type: kind, SDP: string(b)}
	in.sections = d.MediaDescriptions
	return in, err
}

// nameSections gives sections that are turned down the names they have in our
// description: pion as a client leaves them out, and pion as a server makes no
// further description if one is missing. The order of sections never changes.
func (s *Session) nameSections(d *sdp.SessionDescription) {
	var ours *sdp.SessionDescription
	for i, m := range d.MediaDescriptions {
		if _, ok := m.Attribute("mid"); ok || m.MediaName.Port.Value != 0 {
			continue
		}
		if ours == nil {
			ours = &sdp.SessionDescription{}
			l := s.pc.LocalDescription()
			if l == nil || ours.UnmarshalString(l.SDP) != nil {
				return
			}
		}
		if i < len(ours.MediaDescriptions) {
			if mid, ok := ours.MediaDescriptions[i].Attribute("mid"); ok {
				m.WithValueAttribute("mid", mid)
			}
		}
	}
}

// boundSection removes candidates and sources that are too many.
func (s *Session) boundSection(m *sdp.MediaDescription) {
	var sources sources
	for _, a := range m.Attributes {
		sources.note(a.Key, a.Value)
	}
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a sdp.Attribute) bool {
		return a.IsICECandidate() && !s.ice.admit(a.Value) || !sources.keep(a.Key, a.Value)
	})
}

// accept gives a description to pion.
func (s *Session) accept(in intake) error {
	if err := s.pc.SetRemoteDescription(in.SessionDescription); err != nil {
		return fmt.Errorf("set remote description: %w", err)
	}
	s.widened = s.widened || slices.ContainsFunc(in.sections, func(m *sdp.MediaDescription) bool { return m.MediaName.Media == "video" })
	return nil
}

// sources are the SSRCs of a media section that are used: the first one, and the
// repair flow of it if there is one (RFC 5576 §4.2).
type sources struct{ first, repair string }

// note takes the attributes of the section, one after the other. It must read
// them exactly as pion does: at single spaces.
func (s *sources) note(key, value string) {
	f := strings.Split(value, " ")
	switch {
	case key == "ssrc" && s.first == "":
		s.first = f[0]
	case key == "ssrc-group" && len(f) == 3 && f[0] == "FID" && s.repair == "":
		s.first, s.repair = f[1], f[2]
	}
}

// keep reports whether an attribute concerns nothing but those sources.
func (s *sources) keep(key, value string) bool {
	f := strings.Split(value, " ")
	switch key {
	case "ssrc":
		return f[0] == s.first || f[0] == s.repair
	case "ssrc-group":
		return len(f) == 3 && f[0] == "FID" && f[1] == s.first && f[2] == s.repair
	}
	return true
}

// detach stops what is sent on a media section that the participant turns off,
// before pion does: pion would stop the sender and leave it in its place, where
// it is never used again and pion's own look at it can find no track.
func (s *Session) detach(mid string) error {
	for _, t := range s.pc.GetTransceivers() {
		if t.Sender() == nil || t.Mid() != mid {
			continue
		}
		for u, d := range s.downs {
			if d.sender == t.Sender() {
				s.forgetDown(u, d)
				s.stale = true
			}
		}
		if err := s.pc.RemoveTrack(t.Sender()); err != nil {
			return fmt.Errorf("remove track from section %s: %w", mid, err)
		}
	}
	return nil
}

// streams makes the buffers of a session's SRTP and SRTCP streams, one for each
// SSRC. Without it a participant could have as many as there are SSRCs.
type streams struct {
	rtp, rtcp, all atomic.Int32
	over           func()                 // ends the session
	silent         func(ssrc uint32) bool // whose RTCP nobody reads
}

// buffer implements webrtc.SettingEngine.BufferFactory.
func (s *streams) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	if kind == packetio.RTCPBufferPacket && s.silent != nil && s.silent(ssrc) {
		return nothing{}
	}
	open, most, size := &s.rtp, int32(maxRTPStreams), rtpBuffer
	if kind == packetio.RTCPBufferPacket {
		open, most, size = &s.rtcp, maxRTCPStreams, rtcpBuffer
	}
	if open.Add(1) > most {
		open.Add(-1)
		if s.all.Add(1) == maxStreams {
			s.over()
		}
		return nothing{}
	}
	b := packetio.NewBuffer()
	b.SetLimitSize(size)
	return &streamBuffer{Buffer: b, open: open}
}

// A streamBuffer is the buffer of one SSRC.
type streamBuffer struct {
	*packetio.Buffer
	open   *atomic.Int32
	closed atomic.Bool
}

// Close implements io.Closer.
func (b *streamBuffer) Close() error {
	if !b.closed.Swap(true) {
		b.open.Add(-1)
	}
	return b.Buffer.Close()
}

// nothing is the buffer of an SSRC that is one too many, or that nobody reads.
type nothing struct{}

// Read implements io.Reader.
func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// Write implements io.Writer.
func (nothing) Write(p []byte) (int, error) { return len(p), nil }

// Close implements io.Closer.
func (nothing) Close() error { return nil }
