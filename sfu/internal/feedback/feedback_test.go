package feedback

import (
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// A receiver reports what arrives, as RTP receivers do: through the wire format.
type receiver struct {
	t     *testing.T
	path  *Path
	clock time.Duration // its clock, minus ours
}

// report says that the packets from first on arrived at these times (our clock
// since epoch; negative = lost).
func (r *receiver) report(now time.Time, first uint16, at ...time.Duration) {
	r.t.Helper()
	p := &rtcp.TransportLayerCC{BaseSequenceNumber: first, PacketStatusCount: uint16(len(at))}
	last := time.Duration(-1)
	for len(at)%7 != 0 {
		at = append(at, -1)
	}
	for i := 0; i < len(at); i += 7 {
		c := &rtcp.StatusVectorChunk{Type: rtcp.TypeTCCStatusVectorChunk, SymbolSize: rtcp.TypeTCCSymbolSizeTwoBit}
		for _, x := range at[i : i+7] {
			if x < 0 {
				c.SymbolList = append(c.SymbolList, rtcp.TypeTCCPacketNotReceived)
				continue
			}
			x += r.clock
			if last < 0 {
				p.ReferenceTime = uint32(x/(64*time.Millisecond)) & 0xFFFFFF
				last = x / (64 * time.Millisecond) * (64 * time.Millisecond)
			}
			c.SymbolList = append(c.SymbolList, rtcp.TypeTCCPacketReceivedLargeDelta)
			p.RecvDeltas = append(p.RecvDeltas, &rtcp.RecvDelta{Type: rtcp.TypeTCCPacketReceivedLargeDelta, Delta: (x - last).Microseconds()})
			last = x
		}
		p.PacketChunks = append(p.PacketChunks, c)
	}
	p.Header = rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: uint16(p.MarshalSize()/4 - 1)}
	r.path.Report(now, p)
}

var epoch = time.Unix(1000, 0)

func after(d time.Duration) time.Time { return epoch.Add(d) }

const ms = time.Millisecond

func TestRateAndLoss(t *testing.T) {
	var p Path
	r := receiver{t, &p, time.Hour}
	for i := range 200 { // 100 packets a second, every tenth is lost
		now := time.Duration(i) * 10 * ms
		n := p.Send(after(now), 1000)
		at := now + 30*ms
		if i%10 == 9 {
			at = -1
		}
		r.report(after(now+50*ms), n, at)
	}
	now := after(2 * time.Second)
	if got := p.Sent(now); math.Abs(float64(got)-800_000) > 80_000 {
		t.Errorf("%d bit/s sent, want 800000", got)
	}
	if got := p.Loss(now); math.Abs(got-0.1) > 0.02 {
		t.Errorf("loss %v, want 0.1", got)
	}
	if got := p.Queue(now); got > ms {
		t.Errorf("queue of %v, want none", got)
	}
	if p.Reported().IsZero() {
		t.Error("no report seen")
	}
}

func TestUnusedSymbolsAreNoLoss(t *testing.T) {
	var p Path
	r := receiver{t, &p, 0}
	for i := range 100 {
		now := time.Duration(i) * 10 * ms
		r.report(after(now+20*ms), p.Send(after(now), 1000), now+10*ms) // six of seven symbols unused
	}
	if got := p.Loss(after(time.Second)); got != 0 {
		t.Errorf("loss %v, want none", got)
	}
}

func TestStandingQueue(t *testing.T) {
	var p Path
	r := receiver{t, &p, -time.Minute + time.Hour}
	step := func(i int, delay time.Duration) time.Duration {
		now := time.Duration(i) * 20 * ms
		r.report(after(now+delay), p.Send(after(now), 1000), now+delay)
		return p.Queue(after(now + delay))
	}
	for i := range 100 {
		step(i, 40*ms)
	}
	var got time.Duration
	for i := 100; i < 150; i++ {
		delay := 40 * ms
		if i%3 != 0 { // bursts: most packets wait, some do not
			delay = 240 * ms
		}
		got = step(i, delay)
	}
	if got > 2*ms {
		t.Errorf("bursts count as a queue of %v", got)
	}
	for i := 150; i < 200; i++ {
		got = step(i, 240*ms)
	}
	if got < 199*ms || got > 201*ms {
		t.Errorf("queue of %v, want 200 ms", got)
	}
	for i := 200; i < 2500; i++ { // the way is longer now, and stays so
		got = step(i, 240*ms)
	}
	if got > 2*ms {
		t.Errorf("queue of %v after 46 s of the same delay", got)
	}
}

func TestTrainMeasuresTheNarrowestLink(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gap      time.Duration // between arrivals
		credit   int           // packets a token bucket lets through at once
		lost     int
		min, max int
	}{
		{"600 kbit/s", 4320 * time.Microsecond, 0, 0, 590_000, 610_000},
		{"4 Mbit/s", 648 * time.Microsecond, 0, 0, 3_800_000, 4_200_000},
		{"token bucket", 4320 * time.Microsecond, 6, 0, 590_000, 610_000},
		{"no limit", 0, 0, 0, unlimited, unlimited},
		{"some lost", 4320 * time.Microsecond, 0, 2, 500_000, 700_000},
		{"many lost", 0, 0, 4, 0, 0},
	} {
		var p Path
		r := receiver{t, &p, time.Hour}
		p.BeginTrain(after(0))
		first, at := uint16(0), []time.Duration{}
		x := 30 * ms
		for i := range 16 {
			n := p.Send(after(0), 286) // 324 bytes on the wire
			if i == 0 {
				first = n
			}
			if i > tt.credit {
				x += tt.gap
			}
			if i < tt.lost {
				at = append(at, -1)
			} else {
				at = append(at, x)
			}
		}
		p.EndTrain()
		r.report(after(120*ms), first, at[:10:10]...)
		if !p.LastTrain().At.IsZero() {
			t.Errorf("%s: measured before it was reported", tt.name)
		}
		r.report(after(220*ms), first+10, at[10:]...)
		if got := p.LastTrain(); got.Capacity < tt.min || got.Capacity > tt.max || got.At != after(220*ms) {
			t.Errorf("%s: %+v, want %d to %d", tt.name, got, tt.min, tt.max)
		}
	}
}

func TestTrainThatIsNotReportedSaysNothing(t *testing.T) {
	var p Path
	r := receiver{t, &p, 0}
	p.BeginTrain(after(0))
	for range 16 {
		p.Send(after(0), 286)
	}
	p.EndTrain()
	n := p.Send(after(1100*ms), 1000)
	r.report(after(1200*ms), n, 1150*ms)
	if got := p.LastTrain(); got.Capacity != 0 || got.At.IsZero() {
		t.Errorf("%+v, want a train that found nothing", got)
	}
}

func TestReferenceTimeWraps(t *testing.T) {
	var p Path
	// The 24 bits of 64 ms wrap in the middle.
	r := receiver{t, &p, (1<<24 - 16) * 64 * ms}
	for i := range 200 {
		now := time.Duration(i) * 20 * ms
		r.report(after(now+30*ms), p.Send(after(now), 1000), now+10*ms)
		if got := p.Queue(after(now + 30*ms)); got > ms {
			t.Fatalf("packet %d: queue of %v", i, got)
		}
	}
}

// FuzzReport: a receiver may report what it likes.
func FuzzReport(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 1, 0, 0x20, 4, 1, 2, 3, 4, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(make([]byte, 4, 4+len(b)), b...)
		h := rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: uint16(len(b)/4 - 1)}
		head, err := h.Marshal()
		if err != nil {
			return
		}
		copy(b, head)
		var r rtcp.TransportLayerCC
		if r.Unmarshal(b) != nil {
			return
		}
		var p Path
		p.BeginTrain(epoch)
		for range 100 {
			p.Send(epoch, 1000)
		}
		p.EndTrain()
		p.Report(after(ms), &r)
		p.Report(after(3*time.Second), &r)
		if l := p.Loss(after(3 * time.Second)); l < 0 || l > 1 {
			t.Fatalf("loss %v", l)
		}
		p.Queue(after(3 * time.Second))
	})
}

func BenchmarkSendAndReport(b *testing.B) {
	var p Path
	r := &rtcp.TransportLayerCC{PacketStatusCount: 1, PacketChunks: []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{PacketStatusSymbol: rtcp.TypeTCCPacketReceivedSmallDelta, RunLength: 1}}, RecvDeltas: []*rtcp.RecvDelta{{Type: rtcp.TypeTCCPacketReceivedSmallDelta}}}
	b.ReportAllocs()
	for i := range b.N {
		now := epoch.Add(time.Duration(i) * ms)
		r.BaseSequenceNumber = p.Send(now, 1000)
		p.Report(now, r)
	}
}
