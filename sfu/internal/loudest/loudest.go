// Package loudest says which speakers of a call are heard when only the N
// loudest are. It reads no packets and has no clock but the one it is given.
//
//	level of a packet ──average──> loudness ──compare──> place: forward it
//	                                               └──> none: drop it
//
// There are N places. While one is free, whoever sends gets it; when all are
// taken, one must be clearly louder than the least loud of those who have had
// theirs for a while.
package loudest

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quiet is the level of no sound at all (RFC 6464 §3: 0 to 127 -dBov).
	quiet = 127
	// rise and fall are the time constants of the average a speaker is judged by:
	// a voice is heard within a syllable, and a pause for breath is not its end.
	rise = 40 * time.Millisecond
	fall = 800 * time.Millisecond
	// margin is by how much somebody must be louder, in dB, than whoever makes
	// room, and hold how long a place is kept at least. Without them two voices
	// of the same loudness would cut each other into pieces.
	margin = 4
	hold   = time.Second
	// stale is after how long without a packet a place is free: muted people send
	// none.
	stale = 500 * time.Millisecond
	// frame stands for the time before somebody's first packet.
	frame = 20 * time.Millisecond
)

// A Selector chooses the loudest of one call. Its methods may be called from any
// goroutine.
type Selector struct {
	most int

	mu     sync.Mutex // guards the following
	places []*Voice   // who is heard
}

// New returns a selector of the n loudest. With n <= 0 everybody is heard.
func New(n int) *Selector {
	return &Selector{most: n, places: make([]*Voice, 0, max(n, 0))}
}

// Join makes a speaker of the call, who has no place yet.
func (s *Selector) Join() *Voice { return &Voice{of: s} }

// A Voice is one speaker. Heard is called by one goroutine at a time.
type Voice struct {
	of    *Selector
	heard atomic.Bool   // has a place
	loud  atomic.Uint32 // average loudness, dB above no sound, as bits of a float32; written by Heard
	last  atomic.Int64  // Unix nanoseconds of the last packet; written by Heard
	since time.Time     // when it got its place; guarded by Selector.mu
}

// Heard takes the audio level of a packet that came at now, in -dBov as RFC 6464
// has it, and reports whether the packet should be forwarded. Who cannot be
// judged, because the client sends no levels, should pass level 0, and is heard
// like the loudest. It allocates nothing.
func (v *Voice) Heard(level uint8, now time.Time) bool {
	if v.of.most <= 0 {
		return true
	}
	loud := v.average(level, now)
	return v.heard.Load() || v.of.admit(v, loud, now)
}

// Leave gives the place back. It may be called from any goroutine; nothing is
// heard of v after it.
func (v *Voice) Leave() {
	s := v.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.places, v); i >= 0 {
		s.places = slices.Delete(s.places, i, i+1)
	}
	v.heard.Store(false)
}

// average adds a level to the loudness and returns it.
func (v *Voice) average(level uint8, now time.Time) float32 {
	at := now.UnixNano()
	since := time.Duration(at - v.last.Swap(at))
	if since > time.Minute { // the first packet
		since = frame
	}
	loud, level32 := v.loudness(), float32(quiet-min(level, quiet))
	constant := fall
	if level32 > loud {
		constant = rise
	}
	share := 1 - float32(math.Exp(-float64(max(since, 0))/float64(constant)))
	loud += share * (level32 - loud)
	v.loud.Store(math.Float32bits(loud))
	return loud
}

func (v *Voice) loudness() float32 { return math.Float32frombits(v.loud.Load()) }

// admit gives v a place if there is one for it.
func (s *Selector) admit(v *Voice, loud float32, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.places) < s.most {
		s.places = append(s.places, v)
		v.take(now)
		return true
	}
	least := -1
	for i, p := range s.places {
		if now.UnixNano()-p.last.Load() > int64(stale) {
			least = i
			break
		}
		if now.Sub(p.since) >= hold && p.loudness()+margin < loud && (least < 0 || p.loudness() < s.places[least].loudness()) {
			least = i
		}
	}
	if least < 0 {
		return false
	}
	s.places[least].heard.Store(false)
	s.places[least] = v
	v.take(now)
	return true
}

// take needs Selector.mu.
func (v *Voice) take(now time.Time) {
	v.since = now
	v.heard.Store(true)
}
