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

// TestTwoOfThreeTrainsAreEnough: through TLS some see less than there is. One of
// three is not.
func TestTwoOfThreeTrainsAreEnough(t *testing.T) {
	for _, test := range []struct {
		name   string
		trains []int
		layer  int
	}{
		{"two", []int{9, 9}, 1},
		{"two of three", []int{9, 1, 9}, 1},
		{"after a bad one", []int{1, 9, 1, 9}, 1},
		{"one of three", []int{9, 1, 1, 9, 1, 1, 1, 9}, 0},
	} {
		var p Policy
		s := Sample{Now: time.Unix(1000, 0), Reported: true, Sent: 400_000, Rates: []int{400_000, 2_000_000}}
		var o Order
		for _, capacity := range test.trains {
			for o.Probe = false; !o.Probe; s.Now = s.Now.Add(50 * time.Millisecond) {
				if o = p.Decide(s); o.Layer != 0 {
					t.Fatalf("%s: went up without a train", test.name)
				}
			}
			s.Now = s.Now.Add(100 * time.Millisecond)
			s.Capacity, s.Probed = capacity*1_000_000, s.Now
			o = p.Decide(s)
		}
		if o.Layer != test.layer {
			t.Errorf("%s: layer %d, want %d", test.name, o.Layer, test.layer)
		}
	}
}

// TestWiderLinksAreProbedSooner: what a train says of TCP that has just been slow
// is too little.
func TestWiderLinksAreProbedSooner(t *testing.T) {
	for capacity, want := range map[int]time.Duration{600_000: probeEvery, 1_200_000: againAfter} {
		var p Policy
		s := Sample{Now: time.Unix(1000, 0), Reported: true, Sent: 400_000, Rates: []int{400_000, 2_000_000}}
		for !p.Decide(s).Probe {
			s.Now = s.Now.Add(50 * time.Millisecond)
		}
		start := s.Now
		s.Capacity, s.Probed = capacity, start.Add(50*time.Millisecond)
		for s.Now = s.Probed; !p.Decide(s).Probe; s.Now = s.Now.Add(50 * time.Millisecond) {
		}
		if took := s.Now.Sub(start); took < want || took > want+100*time.Millisecond {
			t.Errorf("%d bit/s: the next train after %v, want %v", capacity, took, want)
		}
	}
}
