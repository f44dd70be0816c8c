package rate

import (
	"math"
	"testing"
	"time"
)

func TestRateOfASteadyStream(t *testing.T) {
	var w Window
	now := time.Unix(1000, 0)
	if got := w.Rate(now); got != 0 {
		t.Errorf("nothing has %d bit/s", got)
	}
	for i := range 300 { // 1 Mbit/s
		now = now.Add(8 * time.Millisecond)
		w.Add(now, 1000)
		if got := w.Rate(now); i > 50 && math.Abs(float64(got)-1e6) > 1e5 {
			t.Fatalf("packet %d: %d bit/s, want a million", i, got)
		}
	}
	if got := w.Rate(now.Add(Span / 2)); math.Abs(float64(got)-5e5) > 1e5 {
		t.Errorf("half a window later %d bit/s, want half a million", got)
	}
	if got := w.Rate(now.Add(Span)); got != 0 {
		t.Errorf("a window later %d bit/s, want 0", got)
	}
	if w.Last() != now {
		t.Errorf("last packet at %v, want %v", w.Last(), now)
	}
}

func TestClockGoingBackwards(t *testing.T) {
	var w Window
	now := time.Unix(1000, 0)
	w.Add(now, 1000)
	w.Add(now.Add(-time.Hour), 1000)
	if got := w.Rate(now); got != 2000*8*4 {
		t.Errorf("%d bit/s, want %d", got, 2000*8*4)
	}
}

func TestWindowDoesNotAllocate(t *testing.T) {
	var w Window
	now := time.Unix(1000, 0)
	if a := testing.AllocsPerRun(1000, func() { now = now.Add(time.Millisecond); w.Add(now, 100); w.Rate(now) }); a != 0 {
		t.Errorf("%v allocations per packet", a)
	}
}

func BenchmarkAdd(b *testing.B) {
	var w Window
	now := time.Unix(1000, 0)
	for range b.N {
		now = now.Add(100 * time.Microsecond)
		w.Add(now, 1000)
	}
}
