package steer

import (
	"testing"
	"time"
)

// TestLayerThatComesBackIsTakenAgain: without probing, but each time later.
func TestLayerThatComesBackIsTakenAgain(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	both, one := l.rates, l.rates[:1]
	l.run(&p, 10*time.Second)
	for _, want := range []time.Duration{backAfter, 2 * backAfter, 4 * backAfter} {
		l.rates, l.changes = one, nil
		l.run(&p, time.Second)
		l.rates = both
		trains := l.trains
		l.run(&p, 3*time.Second)
		if len(l.changes) != 2 || l.changes[0] > 100*time.Millisecond || l.changes[1] > want+200*time.Millisecond || l.changes[1] < want-200*time.Millisecond {
			t.Fatalf("changes after %v, want the second after %v", l.changes, want)
		}
		if want == backAfter && l.trains != trains {
			t.Errorf("%d trains sent", l.trains-trains)
		}
	}
}

// TestLayerThatComesBackIntoANarrowLinkIsNotTaken: trouble meanwhile counts.
func TestLayerThatComesBackIntoANarrowLinkIsNotTaken(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	both := l.rates
	l.run(&p, 10*time.Second)
	l.rates, l.capacity = l.rates[:1], 300_000
	l.run(&p, 2*time.Second)
	l.rates, l.capacity, l.changes = both, 600_000, nil
	l.run(&p, 20*time.Second)
	if len(l.changes) != 0 {
		t.Errorf("changes after %v", l.changes)
	}
}

// TestChanceIsNotCongestion: a tenth lost for a moment is no reason, for longer it
// is.
func TestChanceIsNotCongestion(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.run(&p, 10*time.Second)
	for range 5 {
		l.loss = 0.12
		l.run(&p, lossFor-200*time.Millisecond)
		l.loss = 0.05
		l.run(&p, time.Second)
	}
	if l.layer != 1 {
		t.Fatal("a moment of loss lowered the layer")
	}
	l.loss = 0.12
	l.run(&p, lossFor+500*time.Millisecond)
	if l.layer != 0 {
		t.Error("lasting loss did not lower the layer")
	}
}

// TestStandstillLowersTheLayer: nothing is reported, not even loss.
func TestStandstillLowersTheLayer(t *testing.T) {
	var p Policy
	l := newLink(10_000_000)
	l.run(&p, 10*time.Second)
	l.s.Now, l.s.Reported, l.s.Overdue, l.s.Layer = l.now, false, 400*time.Millisecond, 1
	if o := p.Decide(l.s); o.Layer != 1 {
		t.Fatalf("layer %d after 400 ms", o.Layer)
	}
	l.s.Overdue = 600 * time.Millisecond
	if o := p.Decide(l.s); o.Layer != 0 || !o.Flush {
		t.Errorf("%+v after 600 ms, want the low layer", o)
	}
}
