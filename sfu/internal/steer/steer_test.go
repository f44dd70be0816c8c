package steer

import (
	"testing"
	"time"
)

// A link is a way to a receiver as the policy may find it. Its layers are switched
// at once, and trains are reported after 100 ms.
type link struct {
	capacity int // bit/s
	shallow  bool
	lies     bool // trains find credit and see more than there is
	rates    []int
	loss     float64 // of the radio

	now     time.Time
	layer   int
	probing time.Time
	s       Sample
	trains  int
	changes []time.Duration
}

// run lets a policy decide for a while.
func (l *link) run(p *Policy, d time.Duration) {
	start := l.now
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(100 * time.Millisecond) {
		sent := l.rates[min(l.layer, len(l.rates)-1)]
		l.s.Now, l.s.Reported, l.s.Sent, l.s.Rates, l.s.Layer = l.now, true, sent, l.rates, l.layer
		l.s.Loss, l.s.Queue, l.s.Estimate = l.loss, 0, sent
		if sent > l.capacity {
			l.s.Estimate = l.capacity * 85 / 100
			if l.shallow {
				l.s.Loss += float64(sent-l.capacity) / float64(sent)
			} else {
				l.s.Queue = 300 * time.Millisecond
			}
		}
		if !l.probing.IsZero() && l.now.Sub(l.probing) >= 100*time.Millisecond {
			l.s.Capacity, l.s.Probed, l.probing = l.capacity, l.now, time.Time{}
			if l.lies {
				l.s.Capacity = 50_000_000
			}
		}
		o := p.Decide(l.s)
		if o.Probe {
			l.probing = l.now
			l.trains++
		}
		if o.Layer != l.layer {
			l.layer = o.Layer
			l.changes = append(l.changes, l.now.Sub(start))
		}
	}
}

func newLink(capacity int) *link {
	return &link{capacity: capacity, rates: []int{400_000, 2_000_000}, now: time.Unix(1000, 0)}
}

func TestWideLinkGetsTheHighLayerSoon(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.run(&p, 5*time.Second)
	if l.layer != 1 || len(l.changes) != 1 || l.changes[0] > 2*time.Second {
		t.Errorf("layer %d, changes at %v, want one within 2 s", l.layer, l.changes)
	}
}

func TestNarrowLinkIsProbedAndLeftAlone(t *testing.T) {
	var p Policy
	l := newLink(600_000)
	l.run(&p, time.Minute)
	if l.layer != 0 || len(l.changes) != 0 {
		t.Errorf("layer %d after changes at %v, want none", l.layer, l.changes)
	}
	if l.trains < 20 || l.trains > 60 {
		t.Errorf("%d trains in a minute", l.trains)
	}
}

func TestFollowsTheLink(t *testing.T) {
	for _, shallow := range []bool{false, true} {
		var p Policy
		l := newLink(10_000_000)
		l.shallow = shallow
		l.run(&p, 10*time.Second)
		for range 3 {
			l.changes, l.capacity = nil, 600_000
			l.run(&p, 30*time.Second)
			if len(l.changes) != 1 || l.changes[0] > time.Second {
				t.Errorf("shallow %v: changes %v after the cut, want one within a second", shallow, l.changes)
			}
			l.changes, l.capacity = nil, 10_000_000
			l.run(&p, 30*time.Second)
			if len(l.changes) != 1 || l.changes[0] > 4*time.Second {
				t.Errorf("shallow %v: changes %v after the opening, want one within 4 s", shallow, l.changes)
			}
		}
	}
}

func TestMistakesAreMadeLessAndLessOften(t *testing.T) {
	var p Policy
	l := newLink(600_000)
	l.lies = true
	l.run(&p, 5*time.Minute)
	if n := len(l.changes); n < 4 || n > 20 {
		t.Errorf("%d changes in 5 minutes on a link that lies, at %v", n, l.changes)
	}
	if l.changes[len(l.changes)-1]-l.changes[len(l.changes)-2] > 5*time.Second {
		t.Errorf("a mistake lasted: %v", l.changes)
	}
}

func TestRadioLossIsNotCongestion(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.loss = 0.05
	l.run(&p, time.Minute)
	if l.layer != 1 || len(l.changes) != 1 {
		t.Errorf("layer %d after changes at %v, want the high one for good", l.layer, l.changes)
	}
}

func TestLayerThatEndsIsLeft(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.run(&p, 5*time.Second)
	l.changes, l.rates = nil, l.rates[:1]
	l.run(&p, 5*time.Second)
	if l.layer != 0 || len(l.changes) != 1 || l.changes[0] > 0 {
		t.Errorf("layer %d after changes at %v, want the low one at once", l.layer, l.changes)
	}
}

func TestBeginsWhereThereIsKnownToBeRoom(t *testing.T) {
	now := time.Unix(1000, 0)
	s := Sample{Now: now, Reported: true, Sent: 100_000, Capacity: 5_000_000, Probed: now.Add(-time.Second), Rates: []int{400_000, 2_000_000}}
	var p, q, r, silent Policy
	if o := p.Decide(s); o.Layer != 1 {
		t.Errorf("began with layer %d, want 1", o.Layer)
	}
	s.Probed = now.Add(-time.Minute)
	if o := q.Decide(s); o.Layer != 0 {
		t.Errorf("began with layer %d on an old measurement", o.Layer)
	}
	s.Reported = false
	if o := r.Decide(s); o.Layer != 0 || o.Probe {
		t.Errorf("%+v without reports", o)
	}
	if o := silent.Decide(Sample{Now: now}); o.Layer != 0 {
		t.Errorf("%+v before anything arrived", o)
	}
}

func TestFlushOnlyAfterTrouble(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.run(&p, 5*time.Second)
	l.s.Now, l.s.Queue = l.now, time.Second
	if o := p.Decide(l.s); o.Layer != 0 || !o.Flush {
		t.Errorf("%+v in trouble, want a switch down that flushes", o)
	}
	l.s.Queue = 0 // the switch waits for its key frame
	if o := p.Decide(l.s); o.Layer != 0 || !o.Flush {
		t.Errorf("%+v while the switch waits", o)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	var p Policy
	l := newLink(600_000)
	l.run(&p, time.Second)
	if a := testing.AllocsPerRun(100, func() { p.Decide(l.s) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}
