package sfu

import (
	"slices"
	"time"

	"sallyport/sfu/internal/vp8"
)

const (
	// paceFor is how long packets are paced after a switch because of trouble: the
	// key frame, what comes after it, and what is lost of both.
	paceFor = 2 * time.Second
	// leastPace is the lowest rate that is believed, in bit/s.
	leastPace = 100_000
	// longestAhead is as much of a queue as is believed in before a key frame;
	// queueLeft is what may be left of it, so that the way is never idle.
	longestAhead = 400 * time.Millisecond
	queueLeft    = 100 * time.Millisecond
	// paceStep is what may leave at once, as time.
	paceStep = 5 * time.Millisecond
	// paceLongest is how long a packet waits at most.
	paceLongest = time.Second
	// mostRepairs is how many packets that are asked for again wait at most: about
	// what leaves within paceLongest. A receiver asks once more for the others.
	mostRepairs = 64
)

// A pacer holds packets of a receiver back that would leave in a burst. The way has
// just turned out to be narrow: a key frame at once would be lost in its queue. It
// is idle, and costs nothing, at any other time. The mu of its choice guards it.
type pacer struct {
	rate  int       // bytes per second; 0 = everything leaves at once
	until time.Time // when it ends, and all that is held leaves
	next  time.Time // when the next packet may leave
	held  []heldPacket
	again int // how many of held are repairs; they come first
	timer *time.Timer
}

// A heldPacket waits. Its payload is in the cache.
type heldPacket struct {
	sending
	again bool // sent before
	since time.Time
}

// begin paces packets at what the way has delivered, bit/s, from first on. 0 =
// unknown: they are not paced.
func (p *pacer) begin(now, first time.Time, delivered int) {
	if delivered < leastPace {
		return
	}
	p.rate, p.until, p.next = delivered/8, now.Add(paceFor), first
}

// on reports whether packets have to wait for their turn.
func (p *pacer) on(now time.Time) bool {
	return p.rate > 0 && (len(p.held) > 0 || now.Before(p.until))
}

// push holds a packet: repairs before others.
func (p *pacer) push(x heldPacket) {
	if x.again {
		p.held = slices.Insert(p.held, p.again, x)
		p.again++
		return
	}
	p.held = append(p.held, x)
}

// ask holds packets that a receiver misses, each once, as far as there is room.
func (p *pacer) ask(seqs []uint16, now time.Time) {
	for _, seq := range seqs {
		if p.again >= mostRepairs {
			return
		}
		if !slices.ContainsFunc(p.held[:p.again], func(h heldPacket) bool { return h.seq == seq }) {
			p.push(heldPacket{sending: sending{seq: seq}, again: true, since: now})
		}
	}
}

// pop returns the next packet that may leave, and false if none may yet.
func (p *pacer) pop(now time.Time) (heldPacket, bool) {
	if len(p.held) == 0 {
		return heldPacket{}, false
	}
	x := p.held[0]
	if now.Before(p.until) && p.next.After(now.Add(paceStep)) && now.Sub(x.since) < paceLongest {
		return heldPacket{}, false
	}
	p.held = slices.Delete(p.held, 0, 1)
	if x.again {
		p.again--
	}
	return x, true
}

// left counts bytes that have left.
func (p *pacer) left(now time.Time, bytes int) {
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(bytes) * time.Second / time.Duration(p.rate))
}

// clear forgets what is held.
func (p *pacer) clear() { p.held, p.again = nil, 0 }

// hold keeps a packet until its turn, if it has to wait for one. It needs the lock
// of choice.
func (d *down) hold(x *sending, now time.Time) bool {
	p := &d.choice.pace
	if x.ref == 0 || !p.on(now) {
		return false
	}
	h := heldPacket{sending: *x, since: now}
	h.payload = nil
	p.push(h)
	d.wake(p)
	return true
}

// holdAgain is hold for what a receiver misses. It reports whether it did.
func (d *down) holdAgain(seqs []uint16, now time.Time) bool {
	if d.choice == nil {
		return false
	}
	d.choice.mu.Lock()
	defer d.choice.mu.Unlock()
	p := &d.choice.pace
	if !p.on(now) {
		return false
	}
	p.ask(seqs, now)
	d.wake(p)
	return true
}

// wake makes sure that release is going to be called. It needs the lock of choice.
func (d *down) wake(p *pacer) {
	if p.timer == nil && len(p.held) > 0 {
		p.timer = time.AfterFunc(paceStep, d.release)
	}
}

// release sends the held packets whose turn it is.
func (d *down) release() {
	if d.releaseHeld(time.Now()) > 0 {
		d.session.server.drops("nack_budget")
		d.requestKeyframe() // nothing else will repair the picture
	}
}

// releaseHeld returns how many packets the budget did not allow.
func (d *down) releaseHeld(now time.Time) (refused int) {
	r := d.session.server.resend.get()
	defer d.session.server.resend.put(r)
	refused = d.takeHeld(r, now)
	r.out.flush() // the publisher's reader waits for the lock of choice, but not for this
	return refused
}

// takeHeld puts the packets whose turn it is into the outbox.
func (d *down) takeHeld(r *resender, now time.Time) (refused int) {
	c := d.choice
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pace.timer = nil
	o := d.bound.Load()
	if o == nil {
		c.pace.clear()
		return 0
	}
	w := o.to.way.Load()
	if w == nil {
		c.pace.clear()
		return 0
	}
	r.now, r.before = now, o.repeatBefore(now)
	for {
		x, ok := c.pace.pop(now)
		if !ok {
			break
		}
		sent := d.releaseOne(r, o, w, &x)
		c.pace.left(now, sent.bytes)
		if sent.refused {
			refused++
		}
	}
	d.wake(&c.pace)
	return refused
}

// releaseOne sends a held packet. It needs the lock of choice.
func (d *down) releaseOne(r *resender, o *outgoing, w *way, x *heldPacket) repeated {
	if x.again {
		return d.repeat(r, o, w, x.seq)
	}
	var ok bool
	if x.payload, ok = d.cache(x.layer).Get(x.ref, r.payload[:0]); !ok {
		return repeated{}
	}
	if v, ok := vp8.Parse(x.payload); ok {
		v.Rewrite(x.payload, x.picture, x.base)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.write(r.out, w, &x.sending) {
		d.lost.Inc()
	}
	return repeated{bytes: len(x.payload)}
}
