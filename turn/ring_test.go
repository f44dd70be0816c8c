package turn

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func testCounter(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// numbered returns a packet that says n, of video or voice.
func numbered(n int, video bool) *packet {
	b := rtp(1, n, 100)[channelHeader:]
	if video {
		b = rtp(2, n, 1000)[channelHeader:]
	}
	return packetOf(b)
}

func numberOf(p *packet) int { return int(binary.BigEndian.Uint16(p.data[2:])) }

// A ring is compared with what a slice does, however it is used.
func TestRing(t *testing.T) {
	for _, size := range []int{1, 16, 200} {
		r := newRing(size)
		var model []*packet
		random := rand.New(rand.NewPCG(1, 2))
		for n := range 20000 {
			if random.IntN(100) < 30+40*(n/2000%2) { // fills for a while, then empties
				p := r.pop()
				if (p == nil) != (len(model) == 0) || p != nil && p != model[0] {
					t.Fatalf("step %d: got %v, want the first of %d", n, p, len(model))
				}
				if p != nil {
					model = model[1:]
				}
				continue
			}
			p := numbered(n, random.IntN(3) == 0)
			lost := r.push(p)
			if len(model) == size {
				gone := 0
				for i, old := range model {
					if old.bulk {
						gone = i
						break
					}
				}
				model = append(append([]*packet(nil), model[:gone]...), model[gone+1:]...)
				lost--
			}
			if lost != 0 {
				t.Fatalf("step %d: %d packets too many lost", n, lost)
			}
			model = append(model, p)
		}
	}
}

// A key frame that arrives while nobody reads is kept whole. Later the ring is
// as small as before, and it keeps no packet alive.
func TestRingGrows(t *testing.T) {
	r := newRing(relayQueue)
	const keyFrame = 300 // packets of some 350 kB
	for i := range keyFrame {
		if lost := r.push(numbered(i, true)); lost != 0 {
			t.Fatalf("packet %d: %d lost", i, lost)
		}
	}
	for i := range keyFrame {
		if p := r.pop(); p == nil || numberOf(p) != i {
			t.Fatalf("packet %d: %v", i, p)
		}
	}
	for i, p := range r.video.packets {
		if p != nil {
			t.Fatalf("packet %d is still held", i)
		}
	}
	for range ringCalm {
		if len(r.video.packets) < keyFrame {
			t.Fatal("it has given up its room already")
		}
		r.pop()
	}
	if n := len(r.video.packets); n > rowSize {
		t.Errorf("room for %d packets in an idle ring", n)
	}
}

// Voice survives a flood of video in the same queue.
func TestFullRingLosesOldVideoFirst(t *testing.T) {
	r := newRing(relayQueue)
	for i := range 10 * relayQueue {
		r.push(numbered(i, i%20 != 0)) // a twentieth of them is voice
	}
	voice, video := 0, []int(nil)
	for p := r.pop(); p != nil; p = r.pop() {
		if p.bulk {
			video = append(video, numberOf(p))
		} else {
			voice++
		}
	}
	if voice != 10*relayQueue/20 || len(video) != relayQueue-voice || video[len(video)-1] != 10*relayQueue-1 {
		t.Errorf("%d voice packets are left, and video %v", voice, video)
	}
	for i := range 3 * relayQueue {
		r.push(numbered(i, false))
	}
	if p := r.pop(); numberOf(p) != 2*relayQueue {
		t.Errorf("without video the oldest left is %d", numberOf(p))
	}
}
