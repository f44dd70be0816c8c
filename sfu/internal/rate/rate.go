// Package rate measures the bit rate of a stream of packets over a sliding
// window.
package rate

import "time"

const (
	slots = 20
	slot  = 50 * time.Millisecond
)

// Span is the length of the window.
const Span = slots * slot

// A Window counts the bytes of the last second. The zero Window has seen nothing.
// It is not safe for concurrent use.
type Window struct {
	bytes [slots]int
	total int
	head  int64 // number of the newest slot, counted from the epoch
	begun int64 // slot of the first packet after a silence
	last  time.Time
}

// Add counts a packet.
func (w *Window) Add(now time.Time, bytes int) {
	w.advance(now)
	if w.total == 0 {
		w.begun = w.head
	}
	w.bytes[w.head%slots] += bytes
	w.total += bytes
	w.last = now
}

// Rate returns bits per second: 0 after a silence as long as the window. In the
// first second of a stream it is what the stream would have if it went on so, but
// never taken from less than a quarter of the window.
func (w *Window) Rate(now time.Time) int {
	w.advance(now)
	n := min(max(w.head-w.begun+1, slots/4), slots)
	return int(int64(w.total) * 8 * int64(time.Second) / (n * int64(slot)))
}

// Last returns when the newest packet came; the zero time if none ever did.
func (w *Window) Last() time.Time { return w.last }

// advance forgets what has left the window. A clock that goes backwards counts as
// standing still.
func (w *Window) advance(now time.Time) {
	n := now.UnixNano() / int64(slot)
	if n <= w.head {
		return
	}
	for i := max(w.head+1, n-slots+1); i <= n; i++ {
		w.total -= w.bytes[i%slots]
		w.bytes[i%slots] = 0
	}
	w.head = n
}
