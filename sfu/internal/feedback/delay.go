package feedback

import (
	"math"
	"time"
)

// none is a delay that has not been measured.
const none = time.Duration(math.MaxInt64)

// delays follows one-way delays, of which only differences mean anything: the
// clocks of sender and receiver have nothing in common.
type delays struct {
	begun  bool
	recent [moments]time.Duration // least of each moment, a ring
	moment int64                  // number of the newest
	base   [2]time.Duration       // least of this span of baseFor and of the one before
	span   time.Time              // when this one began
}

func (d *delays) add(now time.Time, delay time.Duration) {
	d.advance(now)
	d.recent[d.moment%moments] = min(d.recent[d.moment%moments], delay)
	d.base[0] = min(d.base[0], delay)
}

func (d *delays) advance(now time.Time) {
	n := now.UnixNano() / int64(moment)
	if !d.begun {
		d.begun, d.moment, d.span = true, n, now
		d.recent = [moments]time.Duration{none, none, none, none}
		d.base = [2]time.Duration{none, none}
	}
	for i := max(d.moment+1, n-moments+1); i <= n; i++ {
		d.recent[i%moments] = none
	}
	d.moment = max(d.moment, n)
	if now.Sub(d.span) >= baseFor {
		d.base, d.span = [2]time.Duration{none, d.base[0]}, now
	}
}

// standing returns by how much the least of the recent delays exceeds the usual.
func (d *delays) standing(now time.Time) time.Duration {
	d.advance(now)
	least, seen := none, 0
	for _, x := range d.recent {
		if x != none {
			least = min(least, x)
			seen++
		}
	}
	if seen < 2 { // one burst is not a standing queue
		return 0
	}
	return least - min(d.base[0], d.base[1])
}

// newest returns by how much the least of the newest one or two moments exceeds
// the usual.
func (d *delays) newest(now time.Time) time.Duration {
	d.advance(now)
	least := min(d.recent[d.moment%moments], d.recent[(d.moment+moments-1)%moments])
	if least == none {
		return 0
	}
	return least - min(d.base[0], d.base[1])
}

// A least is the least duration of the last 20 to 40 seconds.
type least struct {
	now, before time.Duration
	span        time.Time // when now began; zero = nothing yet
}

func (l *least) add(now time.Time, d time.Duration) {
	switch {
	case l.span.IsZero():
		*l = least{d, none, now}
	case now.Sub(l.span) >= baseFor:
		*l = least{d, l.now, now}
	default:
		l.now = min(l.now, d)
	}
}

func (l *least) get() time.Duration { return min(l.now, l.before) }

// A train gathers what is reported of one. Its packets leave at once, so the time
// between their arrivals is what the narrowest link takes for them.
type train struct {
	open          bool
	begun         time.Time
	sent          int
	arrived, lost int
	at            [64]time.Duration
	bytes         [64]int
}

func (t *train) add(bytes int, arrived bool, at time.Duration) {
	switch {
	case !arrived:
		t.lost++
	case t.arrived < len(t.at):
		t.at[t.arrived], t.bytes[t.arrived] = at, bytes
		t.arrived++
	}
}

// capacity is what the whole train says or what its second half says, whichever
// is less: the first packets may have found credit in a token bucket. Loss of
// more than an eighth, or too few packets, say 0.
func (t *train) capacity() int {
	if t.arrived < smallTrain || t.lost*8 > t.sent {
		return 0
	}
	return min(t.over(0), t.over(t.arrived/2))
}

// over returns the bit rate from the arrival of packet i on.
func (t *train) over(i int) int {
	bits := 0
	first, last := t.at[i], t.at[i]
	for k := i + 1; k < t.arrived; k++ {
		bits += 8 * t.bytes[k]
		first, last = min(first, t.at[k]), max(last, t.at[k])
	}
	if last <= first {
		return unlimited
	}
	return int(min(int64(bits)*int64(time.Second)/int64(last-first), unlimited))
}
