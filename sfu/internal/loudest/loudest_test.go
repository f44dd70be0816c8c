package loudest

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// A room is a call in which everybody sends a packet every 20 ms.
type room struct {
	voices []*Voice
	levels []uint8
	now    time.Time
	heard  []int // packets forwarded of each
	swaps  int   // how often somebody began to be heard
	was    []bool
}

const silent = 255 // sends nothing

func newRoom(most int, levels ...uint8) *room {
	s := New(most)
	r := &room{levels: levels, now: time.Unix(1_000_000, 0), heard: make([]int, len(levels)), was: make([]bool, len(levels))}
	for range levels {
		r.voices = append(r.voices, s.Join())
	}
	return r
}

// pass lets time pass and returns who is heard at the end of it.
func (r *room) pass(d time.Duration) (heard []int) {
	for end := r.now.Add(d); r.now.Before(end); r.now = r.now.Add(20 * time.Millisecond) {
		heard = heard[:0]
		for i, v := range r.voices {
			ok := r.levels[i] != silent && v.Heard(r.levels[i], r.now)
			if ok {
				heard = append(heard, i)
				r.heard[i]++
			}
			if ok && !r.was[i] {
				r.swaps++
			}
			r.was[i] = ok
		}
	}
	return heard
}

func (r *room) expect(t *testing.T, when string, d time.Duration, want ...int) {
	t.Helper()
	if got := r.pass(d); !slices.Equal(got, want) {
		t.Errorf("%s: %v are heard, want %v", when, got, want)
	}
}

func TestOffHearsEverybody(t *testing.T) {
	r := newRoom(0, 127, 127, 20)
	r.expect(t, "off", time.Second, 0, 1, 2)
}

func TestFewerThanPlaces(t *testing.T) {
	r := newRoom(3, 120, 90)
	r.expect(t, "room for all", time.Second, 0, 1)
	if r.heard[0] != 50 || r.heard[1] != 50 {
		t.Errorf("packets %v, want all of them", r.heard)
	}
}

func TestTheLoudestAreHeard(t *testing.T) {
	r := newRoom(2, 110, 110, 110, 110)
	r.expect(t, "noise", 2*time.Second, 0, 1)
	r.levels[3] = 30
	r.pass(200 * time.Millisecond)
	if !r.was[3] {
		t.Error("who begins to speak is not heard within 200 ms")
	}
	r.levels[2] = 35
	r.expect(t, "two speak", 2*time.Second, 2, 3)
	r.levels[0] = 10
	r.expect(t, "a third is louder", 2*time.Second, 0, 3)
}

func TestSpeakersAreNotCutIntoPieces(t *testing.T) {
	r := newRoom(1, 40, 40)
	for i := range 600 { // a minute of two people who talk over each other, 3 dB up and down
		r.levels[0], r.levels[1] = uint8(37+3*(i%3)), uint8(37+3*((i+1)%3))
		r.pass(100 * time.Millisecond)
	}
	if r.swaps > 1 {
		t.Errorf("%d changes between two of the same loudness", r.swaps)
	}
	r = newRoom(1, 40, 120)
	r.pass(time.Second)
	for range 20 { // pauses for breath
		r.levels[0] = 120
		r.pass(200 * time.Millisecond)
		r.levels[0] = 40
		r.pass(800 * time.Millisecond)
	}
	if r.heard[1] != 0 {
		t.Errorf("%d packets of noise in the pauses of a speaker", r.heard[1])
	}
}

func TestPlacesAreKeptForAWhile(t *testing.T) {
	r := newRoom(1, 60, 10)
	r.pass(hold - 40*time.Millisecond)
	if r.heard[1] > 0 {
		t.Error("a place was lost before its time")
	}
	r.expect(t, "afterwards", time.Second, 1)
}

func TestTheMutedMakeRoomAtOnce(t *testing.T) {
	r := newRoom(1, 20, 80)
	r.expect(t, "a loud voice", 2*time.Second, 0)
	r.levels[0] = silent
	r.expect(t, "muted", 600*time.Millisecond, 1)
	r.levels[0] = 20
	r.expect(t, "back", 2*time.Second, 0)
	r.voices[0].Leave()
	r.levels[0] = silent
	r.expect(t, "gone", 40*time.Millisecond, 1)
}

func TestConcurrentSpeakers(t *testing.T) {
	s := New(3)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			v, now := s.Join(), time.Unix(1_000_000, 0)
			for k := range 2000 {
				v.Heard(uint8((i*37+k/50*13)%128), now.Add(time.Duration(k)*20*time.Millisecond))
			}
			v.Leave()
		})
	}
	all.Wait()
	if n := len(s.places); n != 0 {
		t.Errorf("%d places are taken in an empty call", n)
	}
}

func TestHeardAllocatesNothing(t *testing.T) {
	r := newRoom(2, 20, 30, 40, 50)
	if n := testing.AllocsPerRun(1000, func() { r.voices[3].Heard(50, r.now); r.now = r.now.Add(time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func BenchmarkHeard(b *testing.B) {
	for _, test := range []struct {
		name string
		most int
		who  int
	}{{"off", 0, 0}, {"heard", 3, 0}, {"not heard", 3, 9}} {
		b.Run(test.name, func(b *testing.B) {
			r := newRoom(test.most, 20, 20, 20, 90, 90, 90, 90, 90, 90, 90)
			r.pass(time.Second)
			b.ReportAllocs()
			for b.Loop() {
				r.now = r.now.Add(time.Microsecond)
				r.voices[test.who].Heard(r.levels[test.who], r.now)
			}
		})
	}
}
