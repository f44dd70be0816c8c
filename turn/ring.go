package turn

import "sync"

const (
	// bulkSize is how long an RTP packet must be to be taken for video, in
	// bytes. A voice packet of 20 ms is shorter up to 200 kbit/s.
	bulkSize = 600

	// A ring begins with room for rowSize packets of each kind and doubles it as
	// need be. It gives the rest back when it has been empty ringCalm times since
	// it needed more: thousands of rings are idle, but a busy one must not
	// allocate for every burst.
	rowSize  = 32
	ringCalm = 64
)

// A ring holds packets between two goroutines, in order. Its writers never
// wait: when it is full the oldest video packet gives way, for there is more
// to come and late video is worth least; without any, the oldest packet.
type ring struct {
	wake  chan struct{} // holds an element once there is something to take
	limit int           // of packets

	mu          sync.Mutex // guards the following
	pushed      uint64     // how many ever were: the order of the rows
	video, rest row
	calm        int // how often it was empty since it needed more than rowSize
}

func newRing(limit int) *ring {
	return &ring{wake: make(chan struct{}, 1), limit: limit}
}

// push adds p and returns how many packets were lost for it.
func (r *ring) push(p *packet) (lost int) {
	p.bulk = isBulk(p.bytes())
	r.mu.Lock()
	var old *packet
	if r.video.held+r.rest.held == r.limit {
		old = r.evict()
	}
	r.pushed++
	p.order = r.pushed
	to := &r.rest
	if p.bulk {
		to = &r.video
	}
	if to.add(p); to.held > rowSize {
		r.calm = 0
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
	video, rest := r.video.oldest(), r.rest.oldest()
	switch {
	case video != nil && (rest == nil || video.order < rest.order):
		return r.video.take()
	case rest != nil:
		return r.rest.take()
	}
	if r.calm++; r.calm == ringCalm {
		r.video.shrink()
		r.rest.shrink()
	}
	return nil
}

// len is how many packets wait.
func (r *ring) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.video.held + r.rest.held
}

// evict removes the packet that is worth least; the ring is full.
func (r *ring) evict() *packet {
	if r.video.held > 0 {
		return r.video.take()
	}
	return r.rest.take()
}

// A row is a circular list that grows.
type row struct {
	packets     []*packet // a power of two long, or nil
	first, held int
}

func (w *row) add(p *packet) {
	if w.held == len(w.packets) {
		w.grow()
	}
	w.packets[(w.first+w.held)&(len(w.packets)-1)] = p
	w.held++
}

func (w *row) grow() {
	room := make([]*packet, max(rowSize, 2*len(w.packets)))
	n := copy(room, w.packets[w.first:])
	copy(room[n:], w.packets[:w.first])
	w.packets, w.first = room, 0
}

// shrink gives up the room that a row has beyond rowSize; it is empty.
func (w *row) shrink() {
	if len(w.packets) > rowSize {
		w.packets, w.first = nil, 0
	}
}

// oldest returns the packet that was added first, nil if there is none.
func (w *row) oldest() *packet {
	if w.held == 0 {
		return nil
	}
	return w.packets[w.first]
}

// take removes the oldest packet; there is one.
func (w *row) take() *packet {
	p := w.packets[w.first]
	w.packets[w.first] = nil
	w.first = (w.first + 1) & (len(w.packets) - 1)
	w.held--
	return p
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
