package sfu

import (
	"slices"
	"sync"
	"time"

	"sallyport/sfu/internal/seqmap"
	"sallyport/sfu/internal/steer"
)

const (
	// videoClock is the rate of the RTP timestamps of all video.
	videoClock = 90000
	// steerEvery is how often a receiver's layer is reconsidered.
	steerEvery = 50 * time.Millisecond
	// deadAfter is the least time after which a layer that is silent while a lower
	// one is not counts as ended: its publisher has too little bandwidth for it.
	// One with few frames has longer, but not more than longPause.
	deadAfter = 180 * time.Millisecond
	longPause = 1500 * time.Millisecond
	// longestStop is how long nothing is sent while a switch waits for its key
	// frame.
	longestStop = 1500 * time.Millisecond
)

// A chooser says which layer a receiver should get, 0 being the lowest.
type chooser interface {
	Decide(steer.Sample) steer.Order
}

// A choice is which layer of a source one down sends, and the numbering that
// makes a single stream of them. A switch waits for a key frame of the layer it
// goes to, which is asked for; until then the old layer goes on.
//
//	target = current ──chooser──> target ≠ current, key frame asked for
//	       ^                            │
//	       └── key frame of target ─────┘
type choice struct {
	of   *layers
	path *congestion // of the receiver's connection

	mu       sync.Mutex // guards the following; taken before an outgoing's
	chooser  chooser
	numbers  seqmap.Map
	current  *encoding // nil until the first key frame
	target   *encoding // nil if the source ended before it was sent
	sent     time.Time // when the newest packet went out
	whole    bool      // that one ended a frame
	decideAt time.Time
	alone    [3]time.Time // by rank: when lower layers came first after its last packet
	probe    bool         // send padding as soon as a frame has ended
	flush    bool         // the switch leaves nothing worth repairing behind
	stopped  bool         // no more frames of current are sent
	stopAt   time.Time    // since when; zero = not since the last switch
	least    int          // bit/s that the layer to come had then
	drained  time.Time    // when about the queue of what was is short
	pace     pacer
}

// newChoice begins with the layer the receiver's connection has room for as far
// as it is known.
func newChoice(of *layers, s *Session) *choice {
	c := &choice{of: of, path: &s.media.path, chooser: s.server.chooser()}
	c.decide(time.Now())
	return c
}

// want returns the ups to ask for a key frame: of the layer that is sent and of
// the one that is to be.
func (c *choice) want() []*up {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*up
	for _, e := range []*encoding{c.target, c.current} {
		if e != nil && !slices.Contains(out, e.up) {
			out = append(out, e.up)
		}
	}
	return out
}

// decide asks the chooser. It needs c.mu once c is in use.
func (c *choice) decide(now time.Time) {
	c.decideAt = now.Add(steerEvery)
	all := c.of.encodings()
	if len(all) == 0 {
		return
	}
	sample := c.path.sample(now)
	var rates [8]int
	sample.Rates, sample.Layer = rates[:0], max(0, slices.Index(all, c.current))
	var newest time.Time
	for i, e := range all {
		bitrate, last := e.measure(now)
		if i > 0 && (last.IsZero() || c.ended(e, last, newest)) {
			break // nor is anything above
		}
		if last.After(newest) {
			newest = last
		}
		sample.Rates = append(sample.Rates, bitrate)
	}
	order := c.chooser.Decide(sample)
	c.probe, c.flush = c.probe || order.Probe, order.Flush
	switch {
	case order.Stop && c.stopAt.IsZero():
		c.least = sample.Rates[min(max(order.Layer, 0), len(sample.Rates)-1)]
		c.stopped, c.stopAt, c.drained = true, now, now.Add(min(order.Ahead, longestAhead)-queueLeft)
	case c.stopped && now.Sub(c.stopAt) > longestStop:
		c.stopped = false // the other layer may never have a key frame
	}
	c.target = all[min(max(order.Layer, 0), len(sample.Rates)-1)]
}

// ended reports whether a layer has been silent for too long, last being its last
// packet and newest the newest of lower layers. Both are silent while a screen
// stands still, and the lower one may be first to begin again. It needs c.mu once
// c is in use.
func (c *choice) ended(e *encoding, last, newest time.Time) bool {
	if !newest.After(last) {
		return false
	}
	since := &c.alone[e.rank]
	if !since.After(last) {
		*since = newest
	}
	return newest.Sub(*since) > e.patience()
}

// sending is the up whose packets are sent; nil if there is none yet.
func (c *choice) sending() *up {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil
	}
	return c.current.up
}

// forwardLayer sends those packets of a layer that are the receiver's. Goroutines
// of several ups call it.
func (d *down) forwardLayer(out *outbox, run []layerPacket) {
	o := d.bound.Load()
	if o == nil {
		return
	}
	w := o.to.way.Load()
	if w == nil {
		return
	}
	d.choice.mu.Lock()
	defer d.choice.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range run {
		d.forwardOne(out, w, o, &run[i])
	}
}

// forwardOne needs the locks of choice and o.
func (d *down) forwardOne(to *outbox, w *way, o *outgoing, p *layerPacket) {
	c := d.choice
	if !p.at.Before(c.decideAt) {
		stopped := c.stopped
		c.decide(p.at)
		if c.stopped && !stopped {
			o.repair.flush()
		}
		if c.target != nil && (c.target != c.current || c.stopped) && !c.begins(p) {
			c.target.up.requestKeyframe() // again, if the last request was in vain
		}
	}
	if c.begins(p) {
		since := max(0, p.at.Sub(c.sent)) // p may have waited for the lock
		c.numbers.Switch(p.from.rank, p.position, uint32(since.Microseconds()*videoClock/1e6))
		c.current, c.stopped, c.stopAt = p.from, false, time.Time{}
		if c.flush {
			o.repair.flush()
			if got := c.path.delivered(); got > 0 {
				c.pace.begin(p.at, c.drained, max(got, c.least)) // else it is held until there is more and more
			}
		}
	}
	if c.stopped && c.whole && p.from == c.current {
		return
	}
	out, ok := c.numbers.Map(p.from.rank, p.position)
	if !ok {
		return
	}
	// Every receiver writes its own numbers into the shared payload.
	p.vp8.Rewrite(p.Payload, out.Picture, out.Base)
	x := sending{marker: p.Marker, seq: out.Seq, time: out.Time, payload: p.Payload, ref: p.ref, layer: uint8(p.from.rank), picture: out.Picture, base: out.Base}
	if !d.hold(&x, p.at) && !o.write(to, w, &x) {
		d.lost.Inc() // one receiver's trouble must not hold up the others
	}
	if out == c.numbers.Newest() {
		c.sent, c.whole, o.move = p.at, p.Marker, out.Time-p.Time
	}
	if c.probe && c.whole && !c.pace.on(p.at) {
		c.probe = false
		d.sendProbe(to, w, o, out.Time)
	}
}

// begins reports whether the layer to come can begin with p. It needs c.mu.
func (c *choice) begins(p *layerPacket) bool {
	return p.from == c.target && (p.from != c.current || c.stopped) && p.vp8.KeyFrame && p.fresh
}

// padding is an RTP payload that is nothing but padding (RFC 3550 §5.1).
var padding = func() []byte {
	p := make([]byte, 255)
	p[254] = 255
	return p
}()

// sendProbe sends a short train of padding between two frames, from whose arrival
// the congestion control tells how much more the way to the receiver carries. It
// needs the locks of choice and o.
func (d *down) sendProbe(to *outbox, w *way, o *outgoing, timestamp uint32) {
	n := d.choice.path.trainLength(time.Now())
	first := d.choice.numbers.Insert(n)
	d.choice.path.probe(true)
	for i := range n {
		x := sending{padding: true, seq: first + i, time: timestamp, payload: padding, ref: probeRef}
		if !o.write(to, w, &x) {
			d.lost.Inc()
		}
	}
	d.choice.path.probe(false)
}
