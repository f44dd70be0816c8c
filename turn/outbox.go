package turn

import (
	"encoding/binary"
	"sync"
	"time"
)

const (
	// outboxSize is how many bytes may wait for a slow connection: enough for
	// a key frame.
	outboxSize = 256 << 10

	// Media older than this is not worth sending any more: what is on the
	// way now would only delay what comes. Voice may be somewhat late, receivers
	// can stretch what they have.
	videoPatience = 250 * time.Millisecond
	voicePatience = time.Second
)

// An outbox holds what waits for one slow TCP connection: whole frames, video
// behind everything else. Each of its two lanes keeps its order, and an RTP
// stream stays in its lane, so that no stream is reordered.
type outbox struct {
	drops *drops
	began time.Time // the clock of the lanes starts here

	mu     sync.Mutex // guards the following
	urgent lane       // STUN, voice, RTCP, data
	video  lane
	ended  bool

	// Streams that had a packet too long for voice, by SSRC; a slot holds the
	// latest one.
	streams [64]uint32
}

// A lane is a queue of frames.
type lane struct {
	*store     // nil while it is empty
	start  int // of the oldest frame, in data
	first  int // the oldest, in frames
}

// A store is what a lane keeps its frames in.
type store struct {
	data   []byte // of all frames, one behind the other
	frames []stamp
}

var stores = sync.Pool{New: func() any { return new(store) }}

type stamp struct {
	size    int
	since   time.Duration
	patient bool // not media: it is kept, however late
}

func newOutbox(d *drops) *outbox { return &outbox{drops: d, began: time.Now()} }

// put queues a frame and tells whether there is anything to write now. What
// does not fit makes room by losing the oldest video, then the oldest media.
func (o *outbox) put(b []byte) bool {
	now := time.Since(o.began)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return false
	}
	for o.size()+len(b) > outboxSize {
		if !o.makeRoom() {
			o.drops.stream.Inc()
			return true
		}
	}
	l := &o.urgent
	if o.isVideo(b) {
		l = &o.video
	}
	l.push(b, stamp{size: len(b), since: now, patient: isResponse(b)})
	return true
}

// take appends frames to b, the most urgent first, until limit bytes or count
// frames are reached. It leaves out media that is too old by now.
func (o *outbox) take(b []byte, limit, count int) []byte {
	now := time.Since(o.began)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops.late.Add(float64(o.urgent.expire(now-voicePatience) + o.video.expire(now-videoPatience)))
	for _, l := range [...]*lane{&o.urgent, &o.video} {
		for ; l.len() > 0 && count > 0 && (len(b) == 0 || len(b)+l.oldest().size <= limit); count-- {
			b = l.pop(b)
		}
	}
	return b
}

// waiting is how many bytes wait.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size()
}

// end drops everything, also what will be put.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended, o.urgent, o.video = true, lane{}, lane{}
}

// size is how many bytes wait.
func (o *outbox) size() int { return o.urgent.size() + o.video.size() }

// makeRoom drops one frame, if any may be dropped.
func (o *outbox) makeRoom() bool {
	l := &o.video
	if l.len() == 0 {
		l = &o.urgent
	}
	if l.len() == 0 || l.oldest().patient {
		return false
	}
	l.drop()
	o.drops.stream.Inc()
	return true
}

// isVideo tells whether a frame carries an RTP stream that has shown to be
// video.
func (o *outbox) isVideo(b []byte) bool {
	if len(b) < channelHeader || b[0]>>6 != 1 || !isRTP(b[channelHeader:]) {
		return false
	}
	const ssrcAt = channelHeader + 8
	ssrc := binary.BigEndian.Uint32(b[ssrcAt:])
	known := &o.streams[ssrc*0x9E3779B1>>26]
	if isBulk(b[channelHeader:]) {
		*known = ssrc
	}
	return *known == ssrc && ssrc != 0
}

func (l *lane) len() int {
	if l.store == nil {
		return 0
	}
	return len(l.frames) - l.first
}

func (l *lane) size() int {
	if l.store == nil {
		return 0
	}
	return len(l.data) - l.start
}

func (l *lane) oldest() *stamp { return &l.frames[l.first] }

func (l *lane) push(b []byte, w stamp) {
	if l.store == nil {
		l.store = stores.Get().(*store)
	}
	if len(l.data)+len(b) > cap(l.data) && l.start > len(l.data)/2 { // else let it grow: moving costs, too
		l.data = l.data[:copy(l.data, l.data[l.start:])]
		l.frames = l.frames[:copy(l.frames, l.frames[l.first:])]
		l.start, l.first = 0, 0
	}
	l.data = append(l.data, b...)
	l.frames = append(l.frames, w)
}

// pop appends the oldest frame to b.
func (l *lane) pop(b []byte) []byte {
	b = append(b, l.data[l.start:l.start+l.oldest().size]...)
	l.drop()
	return b
}

func (l *lane) drop() {
	l.start += l.oldest().size
	l.first++
	if l.len() > 0 {
		return
	}
	l.data, l.frames = l.data[:0], l.frames[:0]
	stores.Put(l.store)
	*l = lane{}
}

// expire drops media put before a moment, and returns how much.
func (l *lane) expire(before time.Duration) (lost int) {
	for l.len() > 0 && !l.oldest().patient && l.oldest().since < before {
		l.drop()
		lost++
	}
	return lost
}
