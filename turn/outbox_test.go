package turn

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun"
)

// rtp returns ChannelData with an RTP packet of a size, whose sequence number
// is n.
func rtp(ssrc uint32, n, size int) []byte {
	p := make([]byte, size)
	p[0], p[1] = 0x80, 96
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	binary.BigEndian.PutUint32(p[8:], ssrc)
	return channelFrame(0x4000, p)
}

// taken empties an outbox and returns the sequence numbers by stream, and the
// SSRCs in the order of the packets.
func taken(o *outbox) (numbers map[uint32][]int, order []uint32) {
	numbers = make(map[uint32][]int)
	for {
		b := o.take(nil, 1, 1)
		if b == nil {
			return numbers, order
		}
		if b[0]>>6 != 1 {
			continue
		}
		ssrc := binary.BigEndian.Uint32(b[12:])
		numbers[ssrc] = append(numbers[ssrc], int(binary.BigEndian.Uint16(b[6:])))
		order = append(order, ssrc)
	}
}

func testOutbox(t testing.TB) *outbox {
	t.Helper()
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	return newOutbox(&m.drops)
}

func TestVoiceOvertakesVideo(t *testing.T) {
	const voice, video = 1, 2
	o := testOutbox(t)
	o.put(rtp(video, 0, 1200))
	for i := range 10 {
		o.put(rtp(video, i+1, 100+110*(i%10))) // the last packet of a frame is short
		o.put(rtp(voice, i, 100))
	}
	numbers, order := taken(o)
	if i := slices.Index(order, video); i != 10 {
		t.Errorf("order of the streams: %v", order)
	}
	for ssrc, n := range numbers {
		if !slices.IsSorted(n) || len(n) < 10 {
			t.Errorf("stream %d: %v", ssrc, n)
		}
	}
}

func TestFullOutboxLosesOldVideoFirst(t *testing.T) {
	const voice, video = 1, 2
	o := testOutbox(t)
	answer := stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw
	for i := range 3 * outboxSize / 1000 {
		o.put(rtp(video, i, 1000))
		if i%10 == 0 {
			o.put(rtp(voice, i, 100))
			o.put(answer)
		}
		if o.size() > outboxSize {
			t.Fatalf("%d bytes wait", o.size())
		}
	}
	numbers, _ := taken(o)
	last := 3*outboxSize/1000 - 1
	if n := numbers[video]; n[len(n)-1] != last || n[0] != last-len(n)+1 || len(n) < 200 {
		t.Errorf("video packets %d to %d, %d of them", n[0], n[len(n)-1], len(n))
	}
	if n := numbers[voice]; len(n) != last/10+1 {
		t.Errorf("%d voice packets are left, want %d", len(n), last/10+1)
	}
	for range 10 * outboxSize / 200 { // voice alone is bounded, too
		o.put(rtp(voice, 0, 200))
	}
	if o.size() > outboxSize {
		t.Errorf("%d bytes wait", o.size())
	}
}

// Nobody waits for what is late: video 250 ms, voice a second, answers for ever.
func TestOutboxForgetsWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const voice, video = 1, 2
		for _, tt := range []struct {
			after             time.Duration
			voice, video, all int
		}{{0, 10, 10, 21}, {videoPatience, 10, 10, 21}, {videoPatience + 1, 10, 0, 11}, {voicePatience, 10, 0, 11}, {voicePatience + 1, 0, 0, 1}} {
			o := testOutbox(t)
			o.put(stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw)
			for i := range 10 {
				o.put(rtp(voice, i, 100))
				o.put(rtp(video, i, 1000))
			}
			time.Sleep(tt.after)
			all := 0
			for len(o.take(nil, 1, 1)) > 0 {
				all++
			}
			if all != tt.all {
				t.Errorf("after %v: %d frames, want %d", tt.after, all, tt.all)
			}
			if got := testCounter(t, o.drops.late); got != 21-float64(tt.all) {
				t.Errorf("after %v: %v counted as late", tt.after, got)
			}
		}
	})
}

func TestOutboxDoesNotAllocate(t *testing.T) {
	o := testOutbox(t)
	voice, video := rtp(1, 0, 100), rtp(2, 0, 1000)
	buf := make([]byte, 0, writeChunk)
	if n := testing.AllocsPerRun(1000, func() {
		for range 10 {
			o.put(voice)
			o.put(video)
		}
		for o.waiting() > 0 {
			o.take(buf, writeChunk, 20)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for 20 frames", n)
	}
}

func BenchmarkOutbox(b *testing.B) {
	o := testOutbox(b)
	frame := rtp(2, 0, 1000)
	buf := make([]byte, 0, writeChunk)
	b.ReportAllocs()
	for b.Loop() {
		o.put(frame)
		if o.waiting() > 8000 {
			o.take(buf, writeChunk, 8)
		}
	}
}
