package steer

import (
	"testing"
	"time"
)

// high is a sample of a receiver who has had the high layer for a while.
func high(l *link, p *Policy) Sample {
	l.run(p, 10*time.Second)
	s := l.s
	s.Now, s.Layer, s.Queue = l.now, 1, 0
	return s
}

// TestQueueThatGrowsLowersTheLayer: before it is long for all of some moments, and
// before anything is lost.
func TestQueueThatGrowsLowersTheLayer(t *testing.T) {
	var p Policy
	s := high(newLink(10_000_000), &p)
	s.Delay, s.Delivered = 80*time.Millisecond, s.Sent/2 // 260 ms by now
	if o := p.Decide(s); o.Layer != 0 || !o.Flush || !o.Stop {
		t.Errorf("%+v, want the low layer and no more of the high one", o)
	}
}

// TestDelayAloneIsNotCongestion: a burst may wait where the way carries enough, and
// what comes slowly because little was sent does not wait.
func TestDelayAloneIsNotCongestion(t *testing.T) {
	for name, change := range map[string]func(*Sample){
		"burst":   func(s *Sample) { s.Delay, s.Delivered = 140*time.Millisecond, s.Sent },
		"little":  func(s *Sample) { s.Delay, s.Delivered = 10*time.Millisecond, s.Sent/4 },
		"unknown": func(s *Sample) { s.Delay, s.Delivered = 140*time.Millisecond, 0 },
		"silent":  func(s *Sample) { s.Delay, s.Delivered, s.Reported = 140*time.Millisecond, s.Sent/4, false },
	} {
		var p Policy
		s := high(newLink(10_000_000), &p)
		change(&s)
		if o := p.Decide(s); o.Layer != 1 || o.Stop {
			t.Errorf("%s: %+v, want the high layer", name, o)
		}
	}
}

// TestShortQueueStopsNothing: the high layer goes on until the key frame is there.
func TestShortQueueStopsNothing(t *testing.T) {
	var p Policy
	s := high(newLink(10_000_000), &p)
	s.Queue, s.Delay, s.Delivered, s.Estimate = 50*time.Millisecond, 50*time.Millisecond, s.Sent*9/10, s.Sent/2
	if o := p.Decide(s); o.Layer != 0 || o.Stop {
		t.Fatalf("%+v, want the low layer, and the high one until then", o)
	}
	s.Queue = queueLong
	if o := p.Decide(s); o.Layer != 0 || !o.Stop {
		t.Errorf("%+v with a long queue, want no more of the high layer", o)
	}
}
