package reports

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

var epoch = time.Unix(1_700_000_000, 250_000_000)

const ms = time.Millisecond

func after(d time.Duration) time.Time { return epoch.Add(d) }

func TestReceiverReport(t *testing.T) {
	s := Source{Rate: 48000}
	if s.Begun() {
		t.Error("begun before the first packet")
	}
	push := func(from, to int, skip func(int) bool) {
		for i := from; i < to; i++ {
			if skip == nil || !skip(i) {
				s.Push(uint16(65500+i), uint32(960*i), after(time.Duration(i)*20*ms))
			}
		}
	}
	push(0, 100, func(i int) bool { return i%10 == 5 })
	s.Reported(0x0123456789ABCDEF, after(1900*ms))
	r := s.Report(after(2000 * ms))
	want := rtcp.ReceptionReport{FractionLost: 25, TotalLost: 10, LastSequenceNumber: 1<<16 | 63, LastSenderReport: 0x456789AB, Delay: 6553}
	if r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	push(100, 120, func(i int) bool { return i == 110 })
	s.Push(uint16(65500+5), 960*5, after(2400*ms)) // late: one is lost and one came
	if r = s.Report(after(2400 * ms)); r.FractionLost != 0 || r.TotalLost != 10 {
		t.Errorf("late packet: fraction %d, %d in all", r.FractionLost, r.TotalLost)
	}
	if r = s.Report(after(3400 * ms)); r.FractionLost != 0 || r.TotalLost != 10 {
		t.Errorf("nothing since: fraction %d, %d in all", r.FractionLost, r.TotalLost)
	}
	s = Source{Rate: 48000}
	s.Push(10, 0, epoch)
	s.Push(9, 0, epoch) // begun in the middle of a reordering
	if r = s.Report(epoch); r.TotalLost != 0 || r.FractionLost != 0 || r.LastSequenceNumber != 10 {
		t.Errorf("reordered at the beginning: %+v", r)
	}
}

// Packets that come alternately 5 ms early and late have a jitter of 10 ms.
func TestJitter(t *testing.T) {
	s := Source{Rate: 48000}
	for i := range 1000 {
		s.Push(uint16(i), uint32(960*i)+0xFFFF0000, after(time.Duration(i)*20*ms+time.Duration(i%2*10)*ms))
	}
	if got := float64(s.Report(epoch).Jitter) / 48; math.Abs(got-10) > 0.5 {
		t.Errorf("jitter of %.2f ms, want 10", got)
	}
}

func TestLossesAreAskedFor(t *testing.T) {
	var l Losses
	for _, seq := range []uint16{65533, 65534, 1, 2, 5} { // 65535, 0, 3 and 4 are missing
		l.Push(seq, epoch)
	}
	for _, step := range []struct {
		at   time.Duration
		come []uint16
		want []uint16
	}{
		{5 * ms, nil, nil}, // perhaps only late
		{10 * ms, []uint16{3}, nil},
		{20 * ms, nil, []uint16{65535, 0, 4}},
		{60 * ms, []uint16{0}, nil},
		{100 * ms, nil, []uint16{65535, 4}},
		{150 * ms, []uint16{4, 4, 77}, nil}, // a jump: 71 more
		{990 * ms, []uint16{76}, append([]uint16{65535}, span(6, 75)...)},
		{1000 * ms, nil, nil},
	} {
		for _, seq := range step.come {
			l.Push(seq, after(step.at))
		}
		if got := l.Due(after(step.at)); !slices.Equal(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.at, got, step.want)
		}
	}
	if l.Missing(); len(l.Due(after(3*time.Second))) != 0 || l.Missing() {
		t.Error("asks for ever")
	}
	l.Push(77+missingMost+2, epoch)
	if l.Missing() {
		t.Error("asks for more than can be repaired")
	}
	for i := range uint16(1000) {
		l.Push(1000+2*i, epoch)
	}
	if n := len(l.missing); n > missingMost {
		t.Errorf("%d missing, want at most %d", n, missingMost)
	}
}

func span(from, to uint16) (out []uint16) {
	for ; from <= to; from++ {
		out = append(out, from)
	}
	return out
}

func TestNothingIsAllocated(t *testing.T) {
	s, a, tl := Source{Rate: 90000}, Arrivals{}, Timeline{Rate: 90000}
	var l Losses
	l.Push(0, epoch)
	l.Push(200, epoch)
	l.Due(after(ms))
	seq, now := uint16(300), epoch
	if n := testing.AllocsPerRun(2000, func() {
		seq += 2
		now = now.Add(10 * ms)
		s.Push(seq, uint32(seq), now)
		a.Push(1, seq, now)
		tl.Push(uint32(seq), now)
		l.Push(seq, now)
		l.Due(now)
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func TestSynchronised(t *testing.T) {
	behind := 7*time.Hour + 123*ms // the participant's clock
	var c Clock
	audio, video := Timeline{Rate: 48000}, Timeline{Rate: 90000}
	if _, ok := audio.Now(&c, epoch); ok {
		t.Error("a timestamp before the first packet")
	}
	for i := range 300 {
		at := time.Duration(i) * time.Second
		jitter := time.Duration(i*37%50) * ms
		captured := after(at)
		arrived := captured.Add(30*ms + jitter)
		audio.Push(1000+uint32(48000*i), arrived.Add(time.Duration(i*13%90)*ms))
		video.Push(0xFFFFFF00+uint32(90000*i), arrived)
		if i == 0 {
			if got, ok := video.Now(&c, arrived); !ok || got != 0xFFFFFF00 {
				t.Errorf("without a report: %d, %v", got, ok)
			}
		}
		ntp := NTP(captured.Add(-behind))
		c.Heard(ntp, arrived)
		audio.Reported(ntp, 1000+uint32(48000*i))
		video.Reported(ntp, 0xFFFFFF00+uint32(90000*i))
		now := arrived.Add(400 * ms)
		a, okA := audio.Now(&c, now)
		v, okV := video.Now(&c, now)
		apart := float64(a-1000)/48000 - float64(v-0xFFFFFF00)/90000
		if !okA || !okV || math.Abs(apart) > 0.0001 {
			t.Fatalf("after %v audio and video are %.4f s apart", at, apart)
		}
		if late := now.Sub(captured).Seconds() - float64(a-1000-uint32(48000*i))/48000; late < 0.029 || late > 0.081 {
			t.Fatalf("after %v the timestamp is %.3f s behind", at, late)
		}
	}
	video.Reported(1, 2) // nonsense
	if got, ok := video.Now(&c, after(300*time.Second)); !ok || math.Abs(float64(int32(got+0x100-300*90000))) > 90000 {
		t.Errorf("by a report that makes no sense: %d", got)
	}
}

func TestNTP(t *testing.T) {
	at := time.Date(2036, 2, 7, 6, 28, 15, 500_000_000, time.UTC)
	if got := NTP(at); got != 0xFFFFFFFF80000000 {
		t.Errorf("%#x", got)
	}
	if got := ntpTime(NTP(epoch)); got.Sub(epoch).Abs() > time.Microsecond {
		t.Errorf("%v back as %v", epoch, got)
	}
}
