package sfu

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/dtlskeys"
	"sallyport/sfu/internal/reports"
	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/srtp"
)

// maxSources is how many SSRCs of one session are decrypted. Each costs about a
// kilobyte until the session ends: who began anew would begin without a memory of
// what has been received.
const maxSources = 1024

// maxFormer is how many of the tracks that a participant gets no more are
// remembered, so that late RTCP of them goes nowhere.
const maxFormer = 1024

// A media is the RTP of one session, in both directions. pion runs ICE, DTLS, SCTP
// and RTCP; RTP it neither encrypts nor decrypts, but for the first packets of an
// SSRC, of which it makes a track:
//
//	mux ─> media ── SSRC of an up ──> decrypt in place ─> up, at the end of the batch: downs
//	             └─ any other ──────> pion (and a copy is decrypted, for the accounts)
//
//	down ─> outgoing: header, encrypt ─> outbox ─> way
//
// The keys are made of what DTLS shows of itself (package dtlskeys) once pion has
// verified the participant's certificate. Without them the session is refused:
// there is no second road.
type media struct {
	session *Session
	pc      *webrtc.PeerConnection // set once, before anything else is used
	sender  uint32                 // SSRC of our reports of what comes in
	path    congestion             // of what goes out

	secrets dtlskeys.Secrets
	ufrag   atomic.Pointer[string]
	out     atomic.Pointer[srtp.Keys] // nil until DTLS is done, and after the end
	way     atomic.Pointer[way]       // to the participant; nil while there is none
	pair    atomic.Pointer[pairOf]    // that leads there
	number  atomic.Uint32             // ID of the transport-cc extension in what comes in; 0 = not negotiated
	due     atomic.Bool               // feedback is called for
	lively  atomic.Bool               // a message of the participant has come on a data channel since the last report
	seconds atomic.Int32              // how often it was our turn to report
	heeded  atomic.Int32              // tracks published and video tracks received: about anything else we read no RTCP

	mu       sync.Mutex // guards the following: what comes in
	in       *srtp.Keys // like out
	sources  map[uint32]*incoming
	arrivals *reports.Arrivals // nil until the first numbered packet
	reported time.Time         // when arrivals were
	clock    reports.Clock
	scratch  []byte

	downsMu sync.Mutex // guards the following: what goes out
	downs   map[*down]struct{}
	unread  map[uint32]struct{} // SSRCs whose RTCP nobody reads
	former  []uint32            // those of unread that are sent no more, oldest first; at most maxFormer
}

// An incoming is one SSRC of the participant. media.mu guards it.
type incoming struct {
	opener *srtp.Opener
	up     *up // nil until pion has made a track of it
	video  bool
	stats  reports.Source
	losses reports.Losses
	line   reports.Timeline
	news   bool // something came since the last report
}

func newMedia(s *Session) *media {
	return &media{session: s, sender: rand.Uint32(), sources: map[uint32]*incoming{}, downs: map[*down]struct{}{}, unread: map[uint32]struct{}{}}
}

// media implements mediaTap.
func (m *media) media(r *reader, p []byte) bool {
	if !isRTP(p) {
		return m.heeded.Load() == 0 // who only listens has nothing to say that changes anything
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in == nil {
		return false
	}
	ssrc := binary.BigEndian.Uint32(p[8:])
	in := m.sources[ssrc]
	if in == nil || in.up == nil {
		m.stranger(ssrc, in, p)
		return false
	}
	plain, err := in.opener.Open(p)
	if err != nil {
		m.session.server.refused(err)
		return true
	}
	x, ok := rtpheader.Parse(plain)
	if !ok {
		return true
	}
	now := time.Now()
	m.arrived(&x, now)
	in.note(&x, now)
	if in.losses.Missing() {
		m.due.Store(true)
	}
	in.up.take(r, received{Packet: x, at: now, size: len(plain)})
	return true
}

// stranger looks at a packet that pion gets: of an SSRC of which there is no track
// yet, or never will be. The packet itself stays as it is. It needs mu.
func (m *media) stranger(ssrc uint32, in *incoming, p []byte) {
	if in == nil {
		if len(m.sources) >= maxSources {
			return
		}
		in = &incoming{opener: m.in.Opener(ssrc)}
	}
	m.scratch = append(m.scratch[:0], p...)
	plain, err := in.opener.Open(m.scratch)
	if err != nil {
		return // pion finds out for itself
	}
	m.sources[ssrc] = in // only now: who cannot encrypt makes no state
	if x, ok := rtpheader.Parse(plain); ok {
		m.arrived(&x, time.Now())
	}
}

// arrived records the transport-wide number of a packet, if it has one. It needs
// mu.
func (m *media) arrived(x *rtpheader.Packet, now time.Time) {
	number := x.Extension(uint8(m.number.Load()))
	if len(number) < 2 {
		return
	}
	if m.arrivals == nil {
		m.arrivals = &reports.Arrivals{}
	}
	m.arrivals.Push(x.SSRC, binary.BigEndian.Uint16(number), now)
	m.due.Store(true)
}

// note counts a packet.
func (in *incoming) note(x *rtpheader.Packet, now time.Time) {
	in.news = true
	in.stats.Push(x.Seq, x.Time, now)
	in.line.Push(x.Time, now)
	if in.video {
		in.losses.Push(x.Seq, now)
	}
}

// attach gives the packets of an up to it from now on.
func (m *media) attach(u *up) {
	rate := int(u.track.Codec().ClockRate)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in == nil {
		return
	}
	ssrc := uint32(u.track.SSRC())
	in := m.sources[ssrc]
	if in == nil { // pion knows the first packet, and we have lost count
		in = &incoming{opener: m.in.Opener(ssrc)}
		m.sources[ssrc] = in
	}
	if in.up == nil {
		m.heeded.Add(1)
	}
	in.up, in.video = u, !u.audio()
	in.stats, in.losses = reports.Source{Rate: rate}, reports.Losses{}
	in.line = reports.Timeline{Rate: rate}
}

// detach ends that. pion gets the packets again, if there are any.
func (m *media) detach(u *up) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.sources[uint32(u.track.SSRC())]; in != nil && in.up == u {
		in.up = nil
		m.heeded.Add(-1)
	}
}

// heard takes a sender report of the participant about one of its SSRCs.
func (m *media) heard(ssrc uint32, ntp uint64, timestamp uint32) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.sources[ssrc]; in != nil {
		m.clock.Heard(ntp, now)
		in.stats.Reported(ntp, now)
		in.line.Reported(ntp, timestamp)
	}
}

// timestamp returns the RTP timestamp that an up has now.
func (m *media) timestamp(u *up, now time.Time) (uint32, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.sources[uint32(u.track.SSRC())]
	if in == nil {
		return 0, false
	}
	return in.line.Now(&m.clock, now)
}

// send makes sender reports of a down.
func (m *media) send(d *down) {
	m.downsMu.Lock()
	defer m.downsMu.Unlock()
	m.downs[d] = struct{}{}
	if !d.up.audio() {
		m.heeded.Add(1)
	}
}

func (m *media) sendNoMore(d *down) {
	m.downsMu.Lock()
	defer m.downsMu.Unlock()
	if _, ok := m.downs[d]; ok && !d.up.audio() {
		m.heeded.Add(-1)
	}
	delete(m.downs, d)
}

// leaveUnread makes the RTCP of an audio stream go nowhere: nothing in it changes
// what we do, and reading it costs a goroutine.
func (m *media) leaveUnread(ssrc uint32) {
	m.downsMu.Lock()
	defer m.downsMu.Unlock()
	m.unread[ssrc] = struct{}{}
}

// noLongerSent notes that of an SSRC, of which the participant may still send RTCP
// for a while.
func (m *media) noLongerSent(ssrc uint32) {
	m.downsMu.Lock()
	defer m.downsMu.Unlock()
	if _, ok := m.unread[ssrc]; !ok {
		return
	}
	if m.former = append(m.former, ssrc); len(m.former) > maxFormer {
		delete(m.unread, m.former[0])
		m.former = m.former[1:]
	}
}

// silent reports whether that was said of an SSRC.
func (m *media) silent(ssrc uint32) bool {
	m.downsMu.Lock()
	defer m.downsMu.Unlock()
	_, ok := m.unread[ssrc]
	return ok
}

// refusal is how a packet that was not opened is counted.
func refusal(err error) string {
	if errors.Is(err, srtp.ErrReplayed) || errors.Is(err, srtp.ErrOld) {
		return "replayed"
	}
	return "forged"
}
