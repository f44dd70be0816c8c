// Package steer decides which layer of a simulcast source a receiver gets from
// what is known of the way to it. It is pure: time is an argument.
//
// Going down is easy to justify, because the trouble shows: packets are lost, or
// a queue stands on the way. Going up is not, because a link that carries the low
// layer well says nothing about the high one. So the way is probed with short
// trains of padding, whose arrival tells the capacity, and the layer goes up when
// two of three trains in a row say that there is room. An upgrade that was a mistake is
// taken back at the first trouble, and the next one is put off, each time twice as
// long.
package steer

import "time"

const (
	// lossMany is the share of packets lost in a second above which a layer is
	// too much (draft-ietf-rmcat-gcc-02 §6 reduces the rate from there on).
	// It has to be so many for lossFor, as chance alone makes a tenth out of a
	// twentieth now and then; lossHeavy is beyond doubt.
	lossMany  = 0.10
	lossFor   = 500 * time.Millisecond
	lossHeavy = 0.20
	// lossFew is the share up to which a higher layer is tried. Loss between the
	// two is taken for the radio's, not for a full queue.
	lossFew = 0.08
	// queueLong is a standing queue that is too much at once; queueShort is one
	// that confirms what the estimator says.
	queueLong  = 150 * time.Millisecond
	queueShort = 40 * time.Millisecond
	// A queue that is known to be queueGrows long and delivers less than grows of
	// what is sent is longer by the time we know. queueAhead is too much of that.
	queueGrows = 60 * time.Millisecond
	grows      = 0.85
	queueAhead = 200 * time.Millisecond
	// reportAfter is how old a report usually is.
	reportAfter = 100 * time.Millisecond
	// overdueLong is how long a report may be late: then the way stands still.
	overdueLong = 500 * time.Millisecond
	// settle is the time after a switch in which its consequences do not show yet.
	settle = 400 * time.Millisecond
	// room is how much more than the layer needs has to be there.
	room = 1.2
	// probeEvery is the time between trains, confirmAfter that between one that
	// found room and the one that has to agree.
	probeEvery   = 1500 * time.Millisecond
	confirmAfter = 300 * time.Millisecond
	// againAfter is the time after a train that did not confirm, or found wider
	// times what is sent.
	againAfter = 600 * time.Millisecond
	wider      = 2
	// probeFresh is how old a measurement may be.
	probeFresh = 3 * time.Second
	// mistake is how soon after an upgrade a downgrade takes it back.
	mistake     = 5 * time.Second
	mistakeHold = 3 * time.Second
	longestHold = 80 * time.Second
	// A layer that has vanished may come back within awayLong, when it has been
	// there for backAfter, which doubles up to backLongest with each time that it
	// vanishes again within steady.
	awayLong    = 10 * time.Second
	backAfter   = 500 * time.Millisecond
	backLongest = 16 * time.Second
	steady      = 30 * time.Second
)

// A Sample is what is known at one moment. Rates are bits per second.
type Sample struct {
	Now       time.Time
	Reported  bool          // the receiver reports arrivals; without it nothing else is known
	Sent      int           // all video on the way to the receiver
	Estimate  int           // of the congestion controller; 0 if it has none
	Loss      float64       // share of the packets of the last second
	Queue     time.Duration // the least delay over the usual of the last moments: a standing queue
	Delay     time.Duration // that of the newest moment: what Queue will be if it lasts
	Delivered int           // what arrives; while there is a queue that is what the way carries. 0 = unknown
	Overdue   time.Duration // by how much the next report is late
	Capacity  int           // what the newest train measured
	Probed    time.Time     // when; zero if there was none
	Rates     []int         // of the layers that arrive, lowest first
	Layer     int           // the one being sent
}

// An Order is a decision.
type Order struct {
	Layer int           // to be sent
	Probe bool          // send a train
	Flush bool          // the layer left was too much: do not send its packets again
	Stop  bool          // nor any more of it: it only makes longer what the key frame of the next one waits for
	Ahead time.Duration // with Stop: the queue by now
}

// A Policy decides for one receiver and one source. The zero Policy has decided
// nothing yet: its first answer is the layer to begin with.
type Policy struct {
	begun    bool
	layer    int
	since    time.Time // of layer
	upgraded time.Time
	peak     int           // highest estimate at this layer
	hold     time.Duration // after the last mistake
	flush    bool          // the switch under way, or the last, was because of trouble
	notUntil time.Time     // no upgrade before
	lossy    time.Time     // since when too much is lost; zero = it is not

	gone   int           // layer that vanished while it was sent; 0 = none
	goneAt time.Time     // when
	backAt time.Time     // since when it is there again; zero = it is not
	wait   time.Duration // how long it has to be

	probeAt time.Time
	counted time.Time // the measurement counted last
	good    int       // measurements that found room, at most one between that did not
	missed  bool      // there was that one
}

// Decide takes a sample and says what to do. Call it ten times a second or more.
func (p *Policy) Decide(s Sample) Order {
	if !p.begun {
		p.begin(s)
	}
	p.peak = max(p.peak, s.Estimate)
	switch {
	case p.layer >= max(len(s.Rates), 1): // it does not arrive any longer
		p.vanish(s)
	case s.Layer != p.layer: // the switch waits for its key frame
		p.since = s.Now
		if p.layer > s.Layer && trouble(s) {
			p.down(s.Layer, s)
		}
	case p.layer > 0 && p.tooMuch(s):
		p.down(p.layer-1, s)
	case !s.Reported:
	case p.returned(s):
		p.change(p.gone, s)
		p.upgraded, p.gone = s.Now, 0
	case p.gone > 0 && p.gone < len(s.Rates): // not yet for long enough
	default:
		return p.climb(s)
	}
	o := Order{Layer: p.layer, Flush: p.flush}
	if o.Ahead = ahead(s); p.flush && s.Layer > p.layer && (trouble(s) || o.Ahead >= queueAhead) {
		o.Stop = true
	}
	return o
}

// begin takes the highest layer there is known to be room for.
func (p *Policy) begin(s Sample) {
	p.begun = true
	p.change(0, s)
	for i := range s.Rates {
		if i > 0 && s.Reported && s.Now.Sub(s.Probed) < probeFresh && float64(s.Capacity) > room*float64(s.Sent+s.Rates[i]) {
			p.change(i, s)
			p.upgraded = s.Now
		}
	}
}

func (p *Policy) change(layer int, s Sample) {
	p.layer, p.since, p.peak, p.good, p.missed = layer, s.Now, s.Estimate, 0, false
	p.probeAt, p.flush = s.Now.Add(settle), false
}

// vanish leaves a layer that does not arrive any longer.
func (p *Policy) vanish(s Sample) {
	if p.wait == 0 || s.Now.Sub(p.goneAt) > steady {
		p.wait = backAfter
	} else {
		p.wait = min(2*p.wait, backLongest)
	}
	if s.Layer == p.layer { // it was sent, so the way carried it
		p.gone, p.goneAt, p.backAt = p.layer, s.Now, time.Time{}
	}
	p.change(max(len(s.Rates)-1, 0), s)
}

// returned reports whether the layer that vanished is there again, to stay.
func (p *Policy) returned(s Sample) bool {
	switch {
	case p.gone == 0:
	case s.Now.Sub(p.goneAt) > awayLong+p.wait || trouble(s):
		p.gone = 0
	case p.gone >= len(s.Rates):
		p.backAt = time.Time{}
	case p.backAt.IsZero():
		p.backAt = s.Now
	default:
		return s.Now.Sub(p.backAt) >= p.wait
	}
	return false
}

// down goes to a lower layer because of trouble.
func (p *Policy) down(layer int, s Sample) {
	p.gone = 0
	if !p.upgraded.IsZero() && s.Now.Sub(p.upgraded) < mistake {
		p.hold = min(max(2*p.hold, mistakeHold), longestHold)
		p.notUntil = s.Now.Add(p.hold)
	} else {
		p.hold = 0
	}
	p.change(layer, s)
	p.flush = true
}

// tooMuch reports whether the current layer has to be given up.
func (p *Policy) tooMuch(s Sample) bool {
	switch {
	case s.Loss < lossMany || !s.Reported:
		p.lossy = time.Time{}
	case p.lossy.IsZero():
		p.lossy = s.Now
	}
	if s.Now.Sub(p.since) < settle {
		return false
	}
	lost := s.Reported && s.Loss >= lossHeavy || !p.lossy.IsZero() && s.Now.Sub(p.lossy) >= lossFor
	fallen := s.Estimate > 0 && float64(s.Estimate) < 0.9*float64(p.peak) && float64(s.Estimate) < 0.9*float64(s.Sent)
	return lost || stuck(s) || growing(s) || s.Reported && fallen && s.Queue >= queueShort
}

// trouble is what shows by itself.
func trouble(s Sample) bool { return s.Reported && s.Loss >= lossMany || stuck(s) }

// stuck reports whether packets wait on the way.
func stuck(s Sample) bool { return s.Reported && s.Queue >= queueLong || s.Overdue >= overdueLong }

// growing reports whether a queue is about to be too long.
func growing(s Sample) bool {
	return s.Reported && s.Delay >= queueGrows && s.Delivered > 0 && float64(s.Delivered) < grows*float64(s.Sent) && ahead(s) >= queueAhead
}

// ahead is how long the queue is by now: what is known of it is as old as the
// report, and the packets it speaks of waited as long as they did.
func ahead(s Sample) time.Duration {
	if s.Delivered <= 0 || s.Delivered >= s.Sent {
		return s.Delay
	}
	return s.Delay + time.Duration(float64(s.Delay+reportAfter)*(float64(s.Sent)/float64(s.Delivered)-1))
}

// climb goes up if there is room, or looks for it.
func (p *Policy) climb(s Sample) Order {
	next := p.layer + 1
	if next >= len(s.Rates) || s.Now.Before(p.notUntil) || s.Loss >= lossFew || s.Queue >= queueShort {
		p.good, p.missed = 0, false
		return Order{Layer: p.layer}
	}
	if s.Probed.After(p.counted) && s.Probed.After(p.since) {
		p.counted = s.Probed
		switch enough := float64(s.Capacity) >= room*float64(s.Sent-s.Rates[p.layer]+s.Rates[next]); {
		case enough:
			p.good++
			p.probeAt = s.Now.Add(confirmAfter)
		case p.good > 0: // perhaps it met a burst, or waited for TCP
			if p.missed {
				p.good = 0
			}
			p.missed, p.probeAt = !p.missed, s.Now.Add(againAfter)
		case s.Capacity > wider*s.Sent: // TCP that has just been slow says less than there is
			p.probeAt = s.Now.Add(againAfter)
		}
	}
	if p.good >= 2 {
		p.change(next, s)
		p.upgraded = s.Now
		return Order{Layer: p.layer}
	}
	if s.Now.Before(p.probeAt) {
		return Order{Layer: p.layer}
	}
	p.probeAt = s.Now.Add(probeEvery)
	return Order{Layer: p.layer, Probe: true}
}
