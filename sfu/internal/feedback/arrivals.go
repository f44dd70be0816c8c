package feedback

import "time"

// deliveredOver is the span of arrivals that tells how fast the way carries, and
// deliveredLeast how much of it there has to be.
const (
	deliveredOver  = 300 * time.Millisecond
	deliveredLeast = 100 * time.Millisecond
)

// arrivals are the newest packets that arrived, by the receiver's clock.
type arrivals struct {
	ring [64]arrival
	n    int // of all there ever were
}

type arrival struct {
	at    time.Duration
	bytes int
}

func (a *arrivals) add(at time.Duration, bytes int) {
	a.ring[a.n%len(a.ring)] = arrival{at, bytes}
	a.n++
}

// rate is the bit rate at which they came: that of the narrowest link while a
// queue stands before it. 0 = too few to tell.
func (a *arrivals) rate() int {
	if a.n < smallTrain {
		return 0
	}
	newest := a.ring[(a.n-1)%len(a.ring)]
	first, bits := newest.at, 0
	for i := a.n - 2; i >= max(0, a.n-len(a.ring)); i-- {
		p := a.ring[i%len(a.ring)]
		if newest.at-p.at > deliveredOver {
			break
		}
		bits += 8 * a.ring[(i+1)%len(a.ring)].bytes
		first = min(first, p.at)
	}
	span := newest.at - first
	if span < deliveredLeast {
		return 0
	}
	return int(int64(bits) * int64(time.Second) / int64(span))
}

// Delivered returns the bit rate, of packets without what is below RTP, at which
// the newest packets arrived. While they wait in a queue it is what the way
// carries. 0 = unknown.
func (p *Path) Delivered() int { return p.arrivals.rate() }

// Delay returns the least delay of the last one or two moments over the usual one:
// what Queue will be if it lasts. 0 = unknown.
func (p *Path) Delay(now time.Time) time.Duration { return p.delays.newest(now) }
