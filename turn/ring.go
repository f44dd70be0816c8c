package turn

import "sync"

const (
	// bulkSize is how long an RTP packet must be to be taken for video, in
	// bytes. A voice packet of 20 ms is shorter up to 200 kbit/s.
	bulkSize = 600

	// spareScan is how many packets a full ring looks at to find a video packet
	// that may give way: a flood must not make every push expensive.
	spareScan = 64
)

// A ring holds packets between two goroutines, in order. Its writers never
// wait: when it is full the oldest video packet gives way, for there is more
// to come and late video is worth least; without any, the oldest packet.
type ring struct {
	wake chan struct{} // holds an element once there is something to take

	mu      sync.Mutex // guards the following
	packets []*packet  // circular
	first   int        // the oldest
	held    int
	bulk    int // how many of them are video
}

func newRing(size int) *ring {
	return &ring{wake: make(chan struct{}, 1), packets: make([]*packet, size)}
}

// push adds p and returns how many packets were lost for it.
func (r *ring) push(p *packet) (lost int) {
	p.bulk = isBulk(p.bytes())
	r.mu.Lock()
	var old *packet
	if r.held == len(r.packets) {
		old = r.evict()
	}
	r.packets[r.at(r.held)] = p
	r.held++
	if p.bulk {
		r.bulk++
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // the reader has yet to take what is already there
	}
	if old == nil {
		return 0
	}
	old.release()
	return 1
}

// pop takes the oldest packet, nil if there is none. Whoever got nil waits for
// wake before trying again.
func (r *ring) pop() *packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == 0 {
		return nil
	}
	return r.take()
}

// len is how many packets wait.
func (r *ring) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

func (r *ring) at(i int) int { return (r.first + i) % len(r.packets) }

// take removes the oldest packet; there is one.
func (r *ring) take() *packet {
	p := r.packets[r.first]
	r.packets[r.first] = nil
	r.first = r.at(1)
	r.held--
	if p.bulk {
		r.bulk--
	}
	return p
}

// evict removes the packet that is worth least; the ring is full.
func (r *ring) evict() *packet {
	for i := 0; r.bulk > 0 && i < min(spareScan, r.held); i++ {
		p := r.packets[r.at(i)]
		if !p.bulk {
			continue
		}
		for ; i > 0; i-- { // those before it move up
			r.packets[r.at(i)] = r.packets[r.at(i-1)]
		}
		r.packets[r.first] = p
		break
	}
	return r.take()
}

// isRTP tells RTP from everything else that shares a path with it (RFC 7983),
// RTCP included (RFC 5761).
func isRTP(b []byte) bool {
	const header = 12
	return len(b) >= header && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223)
}

// isBulk tells whether b is a video packet, by all that can be seen of it
// without knowing the session.
func isBulk(b []byte) bool { return len(b) > bulkSize && isRTP(b) }
