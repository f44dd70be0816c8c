package sfu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/steer"
	"sallyport/sfu/internal/vp8"
)

// browser makes a guest do with video what browsers do: NACK, reports and
// transport-cc.
func browser(t *testing.T) func(*webrtc.MediaEngine, *interceptor.Registry) {
	return func(m *webrtc.MediaEngine, r *interceptor.Registry) {
		for _, err := range []error{webrtc.ConfigureNack(m, r), webrtc.ConfigureRTCPReports(r), webrtc.ConfigureTWCCSender(m, r)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A screen is a source that a guest publishes in two encodings, as Chromium does.
type screen struct {
	g      *guest
	sender *webrtc.RTPSender
	layers [2]*screenLayer
	stop   chan struct{}
	wg     sync.WaitGroup
}

type screenLayer struct {
	track  *tappedTrack
	bytes  int // of a frame
	every  time.Duration
	key    atomic.Bool // the next frame is a key frame
	plis   atomic.Int64
	paused atomic.Bool
	seq    uint16
	ts     uint32
	pic    uint16
	tl0    uint8
}

// A tappedTrack hands out the reader of its own RTCP. RTPSender.ReadSimulcast is
// not safe while the sender stops.
type tappedTrack struct {
	*webrtc.TrackLocalStaticRTP
	reports chan interceptor.RTCPReader
}

func (t *tappedTrack) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	select {
	case t.reports <- ctx.RTCPReader():
	default:
	}
	return t.TrackLocalStaticRTP.Bind(ctx)
}

// shareScreen publishes l at bitrates[0] and h at bitrates[1].
func shareScreen(t *testing.T, g *guest, bitrates [2]int) *screen {
	t.Helper()
	s := &screen{g: g, stop: make(chan struct{})}
	for i, rid := range []string{"l", "h"} {
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "screen", "screen-stream", webrtc.WithRTPStreamID(rid))
		if err != nil {
			t.Fatal(err)
		}
		// Numbers of their own, all of them about to wrap.
		l := &screenLayer{track: &tappedTrack{track, make(chan interceptor.RTCPReader, 1)}, every: 50 * time.Millisecond, seq: uint16(65500 - 300*i), ts: ^uint32(0) - uint32(i)*90000, pic: uint16(0x7FF0 - 100*i), tl0: uint8(250 - 100*i)}
		l.bytes = bitrates[i] / 8 / int(time.Second/l.every)
		l.key.Store(true)
		s.layers[i] = l
	}
	g.sess.ScreenOn("screen-stream")
	g.negotiate(func() {
		var err error
		if s.sender, err = g.pc.AddTrack(s.layers[0].track); err == nil {
			err = s.sender.AddEncoding(s.layers[1].track)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	answer := g.pc.RemoteDescription().SDP
	for _, line := range []string{"a=rid:l recv", "a=rid:h recv", "a=simulcast:recv l;h"} {
		if !strings.Contains(answer, line) {
			t.Errorf("answer lacks %s", line)
		}
	}
	for _, l := range s.layers {
		s.wg.Go(func() { s.send(l) })
		s.wg.Go(func() { s.feedback(l) })
	}
	t.Cleanup(func() {
		close(s.stop)
		_ = s.sender.Stop()
		s.wg.Wait()
	})
	return s
}

func (s *screen) send(l *screenLayer) {
	var mid, rid uint8
	for _, e := range s.sender.GetParameters().HeaderExtensions {
		switch e.URI {
		case extMid:
			mid = uint8(e.ID)
		case extRID:
			rid = uint8(e.ID)
		}
	}
	name := ""
	for _, tr := range s.g.pc.GetTransceivers() {
		if tr.Sender() == s.sender {
			name = tr.Mid()
		}
	}
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		if l.paused.Load() {
			continue
		}
		delta := byte(1)
		if l.key.Swap(false) {
			delta = 0
		}
		for left, first := l.bytes, true; left > 0; first = false {
			p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: l.seq, Timestamp: l.ts}}
			_ = p.Header.SetExtension(mid, []byte(name))
			_ = p.Header.SetExtension(rid, []byte(l.track.RID()))
			start := byte(0x80)
			if first {
				start = 0x90
			}
			p.Payload = append([]byte{start, 0xE0, 0x80 | byte(l.pic>>8), byte(l.pic), l.tl0, 0x20, delta, l.track.RID()[0]}, make([]byte, min(left, 1000))...)
			left -= 1000
			p.Marker = left <= 0
			_ = l.track.WriteRTP(p)
			l.seq++
		}
		l.ts += uint32(l.every.Milliseconds() * 90)
		l.pic = (l.pic + 1) & 0x7FFF
		l.tl0++
	}
}

func (s *screen) feedback(l *screenLayer) {
	var reports interceptor.RTCPReader
	select {
	case reports = <-l.track.reports:
	case <-s.stop:
		return
	}
	buf := make([]byte, 2000)
	for {
		n, _, err := reports.Read(buf, interceptor.Attributes{})
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			s.g.errorf("reports: %v", err)
			return
		}
		for _, p := range packets {
			if _, ok := p.(*rtcp.PictureLossIndication); ok {
				l.plis.Add(1)
				l.key.Store(true)
			}
		}
	}
}

// A watcher keeps what a guest sees of a screen.
type watcher struct {
	mu      sync.Mutex
	ssrcs   map[webrtc.SSRC]bool
	packets []seen
	newest  seen   // the packet with the highest number that is no padding
	numbers uint32 // unwrapped sequence numbers
}

type seen struct {
	at     time.Time
	seq    uint32 // unwrapped
	ts     uint32
	marker bool
	layer  byte // 'l', 'h'; 0 = padding
	vp8    vp8.Descriptor
}

func (w *watcher) packet(tr *webrtc.TrackRemote, p *rtp.Packet) {
	if tr.Kind() != webrtc.RTPCodecTypeVideo {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ssrcs == nil {
		w.ssrcs = map[webrtc.SSRC]bool{}
		w.numbers = 1<<20 + uint32(p.SequenceNumber)
	}
	w.ssrcs[tr.SSRC()] = true
	w.numbers += uint32(int32(int16(p.SequenceNumber - uint16(w.numbers))))
	s := seen{at: time.Now(), seq: w.numbers, ts: p.Timestamp, marker: p.Marker}
	if d, ok := vp8.Parse(p.Payload); ok {
		s.vp8, s.layer = d, p.Payload[7]
	}
	if s.layer != 0 && s.seq >= w.newest.seq {
		w.newest = s
	}
	w.packets = append(w.packets, s)
}

// layer returns the layer of the newest picture: retransmissions of an older one
// may come after it.
func (w *watcher) layer() byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest.layer
}

func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.packets)
}

// begun reports whether a key frame has come.
func (w *watcher) begun() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.packets, func(p seen) bool { return p.vp8.KeyFrame })
}

func (w *watcher) askKeyFrame(g *guest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ssrc := range w.ssrcs {
		_ = g.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(ssrc)}})
	}
}

// check verifies that all is one stream and returns how often the layer changed.
// whole: nothing may be missing.
func (w *watcher) check(t *testing.T, whole bool) (switches int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ssrcs) != 1 {
		t.Errorf("%d SSRCs, want 1", len(w.ssrcs))
	}
	all := slices.Clone(w.packets)
	slices.SortStableFunc(all, func(a, b seen) int { return cmp.Compare(a.seq, b.seq) })
	all = slices.CompactFunc(all, func(a, b seen) bool { return a.seq == b.seq })
	// A pion guest loses what arrives before its receiver has started.
	begin := slices.IndexFunc(all, func(p seen) bool { return p.vp8.KeyFrame })
	if begin < 0 {
		t.Fatalf("no key frame in %d packets", len(all))
	}
	all = all[begin:]
	last := all[0] // that was no padding
	for i, p := range all[1:] {
		before := all[i]
		if p.seq != before.seq+1 && whole {
			t.Fatalf("packet %d: sequence number %d follows %d", i+1, p.seq, before.seq)
		}
		if p.layer == 0 {
			if p.ts != before.ts || before.layer != 0 && !before.marker {
				t.Fatalf("padding within a frame: %+v after %+v", p, before)
			}
			continue
		}
		if int32(p.ts-last.ts) < 0 || p.ts-last.ts > 90000*3 {
			t.Fatalf("packet %d: timestamp %d follows %d", i+1, p.ts, last.ts)
		}
		if p.layer != last.layer {
			switches++
			if !p.vp8.KeyFrame {
				t.Fatalf("layer %c begins without a key frame", p.layer)
			}
		}
		step := uint16(0)
		if p.vp8.Start {
			step = 1
		}
		if whole && ((p.vp8.Picture-last.vp8.Picture)&0x7FFF != step || p.vp8.Base-last.vp8.Base != uint8(step) || (p.ts != last.ts) != p.vp8.Start) {
			t.Fatalf("packet %d: picture %d base %d timestamp %d after %d %d %d", i+1, p.vp8.Picture, p.vp8.Base, p.ts, last.vp8.Picture, last.vp8.Base, last.ts)
		}
		last = p
	}
	return switches
}

// forced is a chooser that a test decides for.
type forced struct{ layer, probes atomic.Int32 }

func (f *forced) Decide(steer.Sample) steer.Order {
	probe := f.probes.Load() > 0
	if probe {
		f.probes.Add(-1)
	}
	return steer.Order{Layer: int(f.layer.Load()), Probe: probe}
}

func TestLayersAreOneStream(t *testing.T) {
	srv := startServer(t)
	var f forced
	srv.chooser = func() chooser { return &f }
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	var w watcher
	b := join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: w.packet})
	s := shareScreen(t, a, [2]int{300_000, 1_200_000})
	until(t, "the low layer", func() bool { return w.layer() == 'l' && w.count() > 20 })
	offers := b.offered()
	for i := range 6 {
		want := "hl"[i%2]
		f.layer.Store(int32(1 - i%2))
		f.probes.Store(2)
		begun, n := time.Now(), 0
		until(t, "the switch", func() bool { return w.layer() == want })
		t.Logf("switch to %c after %v", want, time.Since(begun).Round(time.Millisecond))
		n = w.count()
		until(t, "some frames", func() bool { return w.count() > n+20 })
	}
	if got := w.check(t, true); got != 6 {
		t.Errorf("%d switches, want 6", got)
	}
	// Each switch took a key frame, and the publisher makes one only when asked. The
	// request may be one of before: of another receiver, or of the switch back.
	for _, l := range s.layers {
		if n := l.plis.Load(); n < 3 {
			t.Errorf("layer %s: asked for %d key frames, want 3", l.track.RID(), n)
		}
	}
	if b.offered() != offers {
		t.Errorf("%d offers for the switches", b.offered()-offers)
	}
	if st := srv.Status().Calls[0].Sessions[0].Tracks; len(st) != 1 {
		t.Errorf("alpha publishes %q, want one source", st)
	}
}

func TestLateJoinerSeesAPictureAtOnce(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	s := shareScreen(t, a, [2]int{300_000, 1_200_000})
	var early watcher
	join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: early.packet})
	until(t, "a picture", func() bool { return early.count() > 0 })
	var took time.Duration
	for i := range 3 { // on a busy machine the first may have to wait for a processor
		if took = joinLate(t, srv, s, fmt.Sprint("late", i)); took <= time.Second {
			return
		}
	}
	t.Errorf("a late joiner waited %v for a picture", took)
}

// joinLate returns how long after joining the first packet came.
func joinLate(t *testing.T, srv *Server, s *screen, name string) time.Duration {
	t.Helper()
	time.Sleep(keyframeEvery) // until another request may be sent
	plis := s.layers[0].plis.Load()
	var late watcher
	guest := join(t, srv, "call", name, guestOptions{media: browser(t), packet: late.packet})
	joined := time.Now()
	until(t, "a picture", func() bool { return late.count() > 0 })
	took := time.Since(joined)
	t.Logf("first packet %v after joining", took.Round(time.Millisecond))
	until(t, "a key frame", func() bool {
		if !late.begun() { // as a decoder does that has missed the beginning
			late.askKeyFrame(guest)
		}
		return late.begun()
	})
	if s.layers[0].plis.Load() == plis {
		t.Error("no key frame was asked for")
	}
	late.check(t, false)
	return took
}

func TestSilentHighLayerIsLeft(t *testing.T) {
	srv := startServer(t)
	var f forced
	f.layer.Store(1)
	srv.chooser = func() chooser { return &f }
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	var w watcher
	join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: w.packet})
	s := shareScreen(t, a, [2]int{300_000, 1_200_000})
	until(t, "the high layer", func() bool { return w.layer() == 'h' })
	s.layers[1].paused.Store(true)
	until(t, "the low layer", func() bool { return w.layer() == 'l' })
	s.layers[1].paused.Store(false)
	until(t, "the high layer again", func() bool { return w.layer() == 'h' })
	w.check(t, true)
}

func TestLossIsRepairedAcrossSwitches(t *testing.T) {
	srv := startServer(t)
	var f forced
	srv.chooser = func() chooser { return &f }
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	n := newNarrow(t, srv)
	var w watcher
	join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: w.packet, rewrite: n.rewrite})
	shareScreen(t, a, [2]int{300_000, 1_200_000})
	until(t, "the low layer", func() bool { return w.layer() == 'l' })
	n.dropIn.Store(50)
	for i := range 4 {
		f.layer.Store(int32(1 - i%2))
		until(t, "the switch", func() bool { return w.layer() == "hl"[i%2] })
		before := w.count()
		until(t, "some frames", func() bool { return w.count() > before+150 })
	}
	n.dropIn.Store(0)
	// What is still missing comes within a few NACK rounds.
	until(t, "the repair", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		got := map[uint32]bool{}
		for _, p := range w.packets {
			got[p.seq] = true
		}
		for i := range w.numbers - w.packets[0].seq {
			if !got[w.packets[0].seq+i] {
				return false
			}
		}
		return true
	})
	if n.dropped.Load() < 10 {
		t.Errorf("only %d packets were dropped", n.dropped.Load())
	}
	t.Logf("%d of %d packets dropped, none missing", n.dropped.Load(), n.passed.Load())
	w.check(t, true)
}
