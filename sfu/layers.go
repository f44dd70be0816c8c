package sfu

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/rate"
	"sallyport/sfu/internal/seqmap"
	"sallyport/sfu/internal/vp8"
)

// rids are the names of simulcast encodings that can be layers of one source,
// lowest first (rtcd protocol §4.12). The lowest is what stands for the source in
// negotiations.
var rids = []string{"l", "m", "h"}

// lowerEvery is how often an encoding that came before a lower one looks for it.
const lowerEvery = 100 * time.Millisecond

// layers is one screen that is published in several encodings. Every receiver
// gets one of them at a time, under one SSRC.
//
//	up l ─┐              ┌─ down (choice: l)
//	      ├─ layers.fan ─┤
//	up h ─┘              └─ down (choice: h)
type layers struct {
	fan    fanout
	caches [3]atomic.Pointer[packetcache.Cache] // by rank: of the last up there was

	mu  sync.Mutex                  // held to replace all, not to read it
	all atomic.Pointer[[]*encoding] // lowest first
}

// An encoding is one up as a layer of a source.
type encoding struct {
	up   *up
	of   *layers
	rank int // in rids

	// Guarded by the mu of up.
	run     []layerPacket
	begun   bool
	newest  uint16         // highest sequence number
	numbers vp8.Descriptor // of the last packet that had any

	mu    sync.Mutex // guards the following
	rate  rate.Window
	time  uint32        // RTP timestamp of the newest frame
	begin time.Time     // when that began
	every time.Duration // usually between two frames
}

// layered reports whether u can be a layer. Only VP8 comes in several encodings
// (rtcd protocol §4.11).
func (u *up) layered() bool {
	return slices.Contains(rids, u.track.RID()) && strings.EqualFold(u.mime(), webrtc.MimeTypeVP8)
}

// awaitLower waits until the encodings named before that of u have arrived, and
// reports whether they have before over was closed. RTPReceiver.ReadSimulcastRTCP
// looks at them without a lock, and writes of their arrival would race with that.
func (u *up) awaitLower(over <-chan struct{}) bool {
	for {
		arrived := true
		for _, t := range u.receiver.Tracks() {
			if t == u.track {
				break
			}
			arrived = arrived && t.SSRC() != 0
		}
		if arrived {
			u.receiver.Tracks() // takes the lock under which the last one arrives
			return true
		}
		select {
		case <-over:
			return false
		case <-time.After(lowerEvery):
		}
	}
}

// joinLayers makes sources of the classified screen tracks among ups that have a
// RID: those of one MediaStream and track belong together. It needs call.mu.
func joinLayers(ups []*up) {
	for _, u := range ups {
		if u.layer.Load() != nil || u.kind() != classScreen || !u.layered() {
			continue
		}
		of := &layers{}
		for _, v := range ups {
			if e := v.layer.Load(); e != nil && !v.retired && v.track.StreamID() == u.track.StreamID() && v.track.ID() == u.track.ID() {
				of = e.of
			}
		}
		of.add(&encoding{up: u, of: of, rank: slices.Index(rids, u.track.RID())})
	}
}

func (l *layers) add(e *encoding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append(slices.Clone(l.encodings()), e)
	slices.SortStableFunc(all, func(a, b *encoding) int { return a.rank - b.rank })
	l.all.Store(&all)
	l.caches[e.rank].Store(e.up.cache)
	e.up.layer.Store(e)
}

// cache has the packets of the layer of a rank.
func (l *layers) cache(rank int) *packetcache.Cache { return l.caches[rank].Load() }

// remove takes the encoding of a track that has ended out.
func (l *layers) remove(e *encoding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(l.encodings()), func(x *encoding) bool { return x == e })
	l.all.Store(&all)
}

// encodings returns the layers, lowest first, not to be modified.
func (l *layers) encodings() []*encoding {
	if all := l.all.Load(); all != nil {
		return *all
	}
	return nil
}

// measure returns what the layer brings in and when its last packet came.
func (e *encoding) measure(now time.Time) (bitrate int, last time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rate.Rate(now), e.rate.Last()
}

// count notes a packet.
func (e *encoding) count(p *received) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rate.Add(p.at, p.size)
	if int32(p.Time-e.time) <= 0 && !e.begin.IsZero() {
		return // of the same frame, or late
	}
	if gap := p.at.Sub(e.begin); gap < longPause { // else the screen stood still
		e.every += (gap - e.every) / 8
	}
	e.time, e.begin = p.Time, p.at
}

// patience is how long the layer may be silent while lower ones are not before it
// counts as ended.
func (e *encoding) patience() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return min(max(3*e.every, deadAfter), longPause)
}

// forward gives packets of the layer to the receivers that want it. It needs the
// up's mu, and reports whether there are any receivers.
func (e *encoding) forward(out *outbox, run []received) bool {
	e.run = e.run[:0]
	for i := range run {
		e.run = append(e.run, e.look(&run[i]))
		if e.run[i].vp8.KeyFrame {
			e.up.gotKeyframe()
		}
	}
	sinks := e.of.fan.watching() // after that: who comes now asks anew
	if len(sinks) == 0 {
		return false
	}
	for i := range e.run {
		e.run[i].ref = e.up.cache.Put(e.run[i].Payload)
	}
	for _, d := range sinks {
		d.forwardLayer(out, e.run)
	}
	return true
}

// look reads from a packet what all receivers need to know of it.
func (e *encoding) look(p *received) layerPacket {
	e.count(p)
	in := layerPacket{received: *p, from: e, fresh: !e.begun || int16(p.Seq-e.newest) > 0}
	if in.fresh {
		e.begun, e.newest = true, p.Seq
	}
	var ok bool
	if in.vp8, ok = vp8.Parse(p.Payload); ok {
		e.numbers = in.vp8
	} else {
		in.vp8 = vp8.Descriptor{} // padding: nothing to rewrite, and no new picture
	}
	in.position = seqmap.Position{Seq: p.Seq, Time: p.Time, Picture: e.numbers.Picture, Base: e.numbers.Base}
	return in
}

// A layerPacket is a packet of a layer with what all receivers need to know of it.
type layerPacket struct {
	received
	from     *encoding
	vp8      vp8.Descriptor
	position seqmap.Position
	fresh    bool // no later packet has come before
}
