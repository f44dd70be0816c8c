package sfu

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

const (
	// tcpFrames is how many datagrams of each lane wait for a slow TCP connection,
	// tcpVideoAge how long video does: what is older stands in the way of what
	// comes, and to lose it tells the congestion control that the way is full.
	tcpFrames   = 512
	tcpVideoAge = 500 * time.Millisecond
	// tcpVoiceAge is how long voice waits. It overtakes video, so it waits only
	// when even voice is too much, or the way stands still.
	tcpVoiceAge = time.Second
	// tcpBatch is how many bytes are written at once; tcpShort to a connection that
	// has just not kept up, and so much should be in the kernel, where nothing can
	// overtake it. Less would cost wide links a part of what they carry.
	tcpBatch = 4 << 10
	tcpShort = 2 << 10
	// bulky is the size in bytes from which an RTP packet is no voice: 20 ms of
	// Opus at 200 kbit/s.
	bulky = 520
	// tcpStreams is how many streams are known as video before all are forgotten.
	tcpStreams = 64
)

// A tcpQueue holds what waits for one TCP connection. It never blocks who fills
// it. Voice, signalling and reports overtake video; each stream keeps its order.
type tcpQueue struct {
	drops func(reason string)

	mu     sync.Mutex // guards the following
	ready  sync.Cond
	urgent lane
	video  lane
	bulks  map[uint32]struct{} // SSRCs that had a packet too large for voice
	closed bool
}

func newTCPQueue(drops func(reason string)) *tcpQueue {
	q := &tcpQueue{drops: drops, bulks: map[uint32]struct{}{}}
	q.ready.L = &q.mu
	return q
}

// push copies p into the queue and reports whether nothing was lost. The address
// is not needed.
func (q *tcpQueue) push(p []byte, _ net.Addr) bool {
	w := queued{datagram: datagrams.Get().(*datagram), since: time.Now()}
	w.n = copy(w.buf[:], p)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		datagrams.Put(w.datagram)
		return false
	}
	l := &q.urgent
	if isRTP(p) {
		w.patience = tcpVoiceAge
		if q.isVideo(p) {
			l, w.patience = &q.video, tcpVideoAge
		}
	}
	full := l.count == tcpFrames
	if full {
		l.drop()
	}
	l.push(w)
	q.ready.Signal()
	return !full
}

// isRTP tells RTP from DTLS, STUN and RTCP (RFC 7983, RFC 5761 §4).
func isRTP(p []byte) bool {
	return len(p) >= 12 && p[0]>>6 == 2 && (p[1] < 192 || p[1] > 223)
}

// isVideo reports whether an RTP packet is of a stream that has shown to be video.
func (q *tcpQueue) isVideo(p []byte) bool {
	ssrc := binary.BigEndian.Uint32(p[8:])
	if _, known := q.bulks[ssrc]; known || len(p) < bulky {
		return known
	}
	if len(q.bulks) == tcpStreams {
		clear(q.bulks)
	}
	q.bulks[ssrc] = struct{}{}
	return true
}

// next waits for something to send and appends it to buf, in RFC 4571 frames, up
// to most bytes or one datagram. It returns false once the queue is closed.
func (q *tcpQueue) next(buf []byte, most int) ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		now := time.Now()
		for range q.urgent.expire(now) + q.video.expire(now) {
			q.drops("tcp_slow")
		}
		if q.closed {
			return buf, false
		}
		if q.urgent.count+q.video.count > 0 {
			break
		}
		q.ready.Wait()
	}
	for _, l := range []*lane{&q.urgent, &q.video} {
		for l.count > 0 && (len(buf) == 0 || len(buf)+2+l.oldest().n <= most) {
			d := l.oldest()
			buf = binary.BigEndian.AppendUint16(buf, uint16(d.n))
			buf = append(buf, d.buf[:d.n]...)
			l.drop()
		}
	}
	return buf, true
}

// close ends next and gives the buffers back.
func (q *tcpQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, l := range []*lane{&q.urgent, &q.video} {
		for l.count > 0 {
			l.drop()
		}
	}
	q.ready.Broadcast()
}

// A queued is a datagram in a lane.
type queued struct {
	*datagram
	since    time.Time
	patience time.Duration // 0 = it never gets too old
}

// A lane is a ring of datagrams that grows with what waits, up to tcpFrames. Its
// owner's lock guards it. The zero lane is empty.
type lane struct {
	ring        []queued // its length is 0 or a power of two
	head, count int
}

func (l *lane) oldest() *queued { return &l.ring[l.head] }

// push adds a datagram; there must be less than tcpFrames.
func (l *lane) push(w queued) {
	if l.count == len(l.ring) {
		more := make([]queued, max(8, 2*len(l.ring)))
		n := copy(more, l.ring[l.head:])
		copy(more[n:], l.ring[:l.head])
		l.ring, l.head = more, 0
	}
	l.ring[(l.head+l.count)%len(l.ring)] = w
	l.count++
}

// drop takes the oldest out.
func (l *lane) drop() {
	datagrams.Put(l.oldest().datagram)
	*l.oldest() = queued{}
	l.head = (l.head + 1) % len(l.ring)
	l.count--
}

// expire drops what has waited for too long, and returns how much.
func (l *lane) expire(now time.Time) (lost int) {
	for l.count > 0 && l.oldest().patience > 0 && now.Sub(l.oldest().since) > l.oldest().patience {
		l.drop()
		lost++
	}
	return lost
}
