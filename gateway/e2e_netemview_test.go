package gateway_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

const (
	// plainHeader is an RTP header as the server sends it, but for extensions.
	plainHeader = 12
	// stampLength is what sources put at the end of each packet: magic, source and
	// number (4 bytes each), the time in ns since 1970 (8), measured (1).
	stampLength = 21
	// impatient is how long a decoder waits for what it misses before it asks for
	// a key frame.
	impatient = time.Second
)

// A view is what a receiver sees of a layered screen: it keeps all packets, and
// decodes them as far as a decoder would get.
type view struct {
	mu      sync.Mutex // guards the following
	track   *peer.Track
	ssrcs   map[uint32]bool
	packets map[uint32]glimpse // by sequence number, unwrapped
	highest uint32
	first   uint32 // sequence number

	frames []shown
	next   uint32 // sequence number that the decoder waits for; 0 = any key frame
	keys   []uint32
	asked  time.Time
}

// A glimpse is one packet of the screen.
type glimpse struct {
	at         time.Time
	seq        uint32
	time       uint32
	picture    uint16
	layer      byte // 0 = padding
	marker     bool
	start, key bool
}

// A shown is a frame that a decoder could show.
type shown struct {
	at    time.Time
	layer byte
}

func newView() *view {
	return &view{ssrcs: map[uint32]bool{}, packets: map[uint32]glimpse{}}
}

// packet takes an RTP packet of the screen.
func (v *view) packet(track *peer.Track, p []byte) {
	if len(p) < plainHeader {
		return
	}
	head := plainHeader + 4*int(p[0]&0x0F)
	if p[0]&0x10 != 0 && len(p) >= head+4 {
		head += 4 + 4*int(binary.BigEndian.Uint16(p[head+2:]))
	}
	number := binary.BigEndian.Uint16(p[2:])
	g := glimpse{at: time.Now(), time: binary.BigEndian.Uint32(p[4:]), marker: p[1]&0x80 != 0}
	if len(p) > head+4+stampLength && p[0]&0x20 == 0 {
		g.layer = peer.LayerOf(p)
		body := p[head:] // RFC 7741 §4.2: X and I, 15 bits of picture ID
		g.picture = binary.BigEndian.Uint16(body[2:]) & 0x7FFF
		g.start = body[0]&0x10 != 0
		g.key = g.start && body[4]&1 == 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.track == nil {
		v.highest = 1<<20 + uint32(number)
		v.first = v.highest
	}
	v.track = track
	v.ssrcs[binary.BigEndian.Uint32(p[8:])] = true
	g.seq = v.highest + uint32(int32(int16(number-uint16(v.highest))))
	v.highest = max(v.highest, g.seq)
	if _, twice := v.packets[g.seq]; twice {
		return
	}
	v.packets[g.seq] = g
	if g.key {
		v.keys = append(v.keys, g.seq)
	}
	v.decode(g.at)
}

// decode shows every frame that can be shown. It needs mu.
func (v *view) decode(now time.Time) {
	for {
		end := uint32(0)
		if v.next != 0 {
			end = v.frame(v.next, now)
		}
		for i := len(v.keys) - 1; i >= 0 && end == 0; i-- { // the newest whole key frame heals everything
			if v.keys[i] >= v.next {
				end = v.frame(v.keys[i], now)
			}
		}
		if end == 0 {
			return
		}
		v.next = end
		v.keys = slices.DeleteFunc(v.keys, func(k uint32) bool { return k < end })
	}
}

// frame shows the frame, or passes the padding, that begins at seq, and returns
// what follows; 0 if it is not complete.
func (v *view) frame(seq uint32, now time.Time) uint32 {
	for at := seq; ; at++ {
		g, come := v.packets[at]
		switch {
		case !come:
			return 0
		case g.layer == 0 && at == seq:
			return at + 1
		case g.marker:
			v.frames = append(v.frames, shown{now, g.layer})
			return at + 1
		}
	}
}

// layer returns that of the newest frame shown; 0 before the first.
func (v *view) layer() byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.frames) == 0 {
		return 0
	}
	return v.frames[len(v.frames)-1].layer
}

// watch asks for a key frame whenever a decoder would, until ctx ends.
func (v *view) watch(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		v.mu.Lock()
		now, track := time.Now(), v.track
		stuck := track != nil && v.next <= v.highest && now.Sub(v.newest()) > impatient && now.Sub(v.asked) > impatient
		if stuck {
			v.asked = now
		}
		v.mu.Unlock()
		if stuck {
			_ = track.RequestKeyFrame()
		}
	}
}

// newest returns when the newest frame was shown. It needs mu.
func (v *view) newest() time.Time {
	if len(v.frames) == 0 {
		return time.Time{}
	}
	return v.frames[len(v.frames)-1].at
}

// since returns the frames shown from a moment on.
func (v *view) since(begin time.Time) []shown {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, _ := slices.BinarySearchFunc(v.frames, begin, func(f shown, t time.Time) int { return f.at.Compare(t) })
	return slices.Clone(v.frames[i:])
}

// freeze returns the longest time from a moment on without a new frame.
func (v *view) freeze(begin time.Time) (longest time.Duration) {
	last := begin
	for _, f := range append(v.since(begin), shown{at: time.Now()}) {
		longest, last = max(longest, f.at.Sub(last)), f.at
	}
	return longest
}

// story tells when the layer changed and where the picture stood still, in
// seconds from a moment on.
func (v *view) story(begin time.Time) string {
	var out strings.Builder
	last := shown{at: begin}
	for _, f := range v.since(begin) {
		if gap := f.at.Sub(last.at); gap > 400*time.Millisecond {
			fmt.Fprintf(&out, "still for %.2f until %.2f; ", gap.Seconds(), f.at.Sub(begin).Seconds())
		}
		if f.layer != last.layer {
			fmt.Fprintf(&out, "%c at %.2f; ", f.layer, f.at.Sub(begin).Seconds())
		}
		last = f
	}
	return out.String()
}

// missing returns how many packets of how many have not come, not counting those
// of the last moments, which may be repaired yet.
func (v *view) missing(recent time.Duration) (lost, of int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	end := v.highest
	for ; end > v.first; end-- {
		if g, come := v.packets[end]; come && time.Since(g.at) > recent {
			break
		}
	}
	for seq := v.first; seq < end; seq++ {
		if _, come := v.packets[seq]; !come {
			lost++
		}
	}
	return lost, int(end - v.first)
}

// check verifies that all that came is one stream, and returns how often the
// layer changed.
func (v *view) check(t *testing.T) (switches int) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ssrcs) != 1 {
		t.Errorf("%d SSRCs, want 1", len(v.ssrcs))
	}
	var all []glimpse
	for _, g := range v.packets {
		if g.layer != 0 {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b glimpse) int { return cmp.Compare(a.seq, b.seq) })
	for i := 1; i < len(all); i++ {
		if fault := follows(all[i-1], all[i]); fault != "" {
			t.Errorf("%s: %+v after %+v", fault, all[i], all[i-1])
			return switches
		}
		if all[i].layer != all[i-1].layer {
			switches++
		}
	}
	return switches
}

// follows says what is wrong with b as the next packet that came after a.
func follows(a, b glimpse) string {
	gap := b.seq - a.seq - 1 // padding, or lost
	pictures := (b.picture - a.picture) & 0x7FFF
	switch elapsed := b.time - a.time; {
	case elapsed > 5*90000:
		return "timestamp jumps"
	case pictures > uint16(gap)+1:
		return "picture ID jumps"
	case (pictures == 0) != (elapsed == 0):
		return "picture ID and timestamp disagree"
	case gap == 0 && b.start != (pictures == 1):
		return "picture does not begin with its first packet"
	case gap == 0 && a.layer != b.layer && !b.key:
		return "layer begins without a key frame"
	}
	return ""
}

// ears are what a participant hears of the others.
type ears struct {
	mu    sync.Mutex // guards heard
	heard map[string][]sound
}

// A sound is one packet of a voice.
type sound struct {
	at, sent time.Time
	number   uint32
}

func (e *ears) packet(from string, p []byte) {
	if len(p) < stampLength {
		return
	}
	stamp := p[len(p)-stampLength:]
	s := sound{at: time.Now(), number: binary.BigEndian.Uint32(stamp[8:]), sent: time.Unix(0, int64(binary.BigEndian.Uint64(stamp[12:])))}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard == nil {
		e.heard = map[string][]sound{}
	}
	e.heard[from] = append(e.heard[from], s)
}

// A hearing is what was heard of one voice for a while.
type hearing struct {
	packets, lost int
	pause         time.Duration // longest between two packets
	median, worst time.Duration // of their delay
}

func (h hearing) String() string {
	return fmt.Sprintf("%d packets, %.1f %% lost, longest pause %v, delay %v, at most %v", h.packets, h.loss()*100,
		h.pause.Round(time.Millisecond), h.median.Round(time.Millisecond), h.worst.Round(time.Millisecond))
}

func (h hearing) loss() float64 { return float64(h.lost) / float64(max(h.packets+h.lost, 1)) }

// since judges what has been heard of a voice from a moment on.
func (e *ears) since(begin time.Time, from string) (h hearing) {
	e.mu.Lock()
	all := slices.Clone(e.heard[from])
	e.mu.Unlock()
	i, _ := slices.BinarySearchFunc(all, begin, func(s sound, t time.Time) int { return s.at.Compare(t) })
	all = all[i:]
	if h.packets = len(all); h.packets == 0 {
		h.pause = time.Since(begin)
		return h
	}
	var delays []time.Duration
	last := begin
	least, most := all[0].number, all[0].number
	for _, s := range all {
		h.pause, last = max(h.pause, s.at.Sub(last)), s.at
		least, most = min(least, s.number), max(most, s.number)
		delays = append(delays, s.at.Sub(s.sent))
	}
	h.pause = max(h.pause, time.Since(last))
	h.lost = max(int(most-least)+1-len(all), 0)
	slices.Sort(delays)
	h.median, h.worst = delays[len(delays)/2], delays[len(delays)-1]
	return h
}
