package reports

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// told is what the reports say: arrival by number, in the clock of the receiver.
type told struct {
	t  *testing.T
	at map[uint16]time.Duration
	no map[uint16]bool
}

// take reads all reports there are, through their wire format.
func (to *told) take(a *Arrivals) (reports int) {
	to.t.Helper()
	for ; ; reports++ {
		f := a.Feedback(99)
		if f == nil {
			return reports
		}
		b, err := f.Marshal()
		if err != nil {
			to.t.Fatal(err)
		}
		all, err := rtcp.Unmarshal(b)
		if err != nil {
			to.t.Fatalf("read report back: %v", err)
		}
		r := all[0].(*rtcp.TransportLayerCC)
		if r.SenderSSRC != 99 || r.MediaSSRC != 7 {
			to.t.Fatalf("report of %d about %d", r.SenderSSRC, r.MediaSSRC)
		}
		to.read(r)
	}
}

func (to *told) read(r *rtcp.TransportLayerCC) {
	at, n, left := time.Duration(r.ReferenceTime)*reference, r.BaseSequenceNumber, int(r.PacketStatusCount)
	deltas := r.RecvDeltas
	for _, c := range r.PacketChunks {
		for _, s := range c.(*rtcp.StatusVectorChunk).SymbolList {
			if left == 0 {
				break
			}
			left--
			if s == rtcp.TypeTCCPacketNotReceived {
				to.no[n] = true
			} else {
				at += time.Duration(deltas[0].Delta) * time.Microsecond
				deltas = deltas[1:]
				to.at[n] = at
			}
			n++
		}
	}
	if left != 0 || len(deltas) != 0 {
		to.t.Fatalf("%d symbols and %d deltas left", left, len(deltas))
	}
}

func newTold(t *testing.T) *told { return &told{t, map[uint16]time.Duration{}, map[uint16]bool{}} }

func TestArrivalsAreReported(t *testing.T) {
	var a Arrivals
	to := newTold(t)
	r := rand.New(rand.NewPCG(3, 3))
	sent := map[uint16]time.Duration{}
	var first uint16
	now := time.Duration(0)
	for i := range 5000 {
		number := uint16(64_000 + i)
		now += time.Duration(r.IntN(20_000)) * time.Microsecond
		if i == 3000 {
			now += 20 * time.Second // more than a delta can say
		}
		if i%9 == 4 {
			continue // lost
		}
		if i%50 == 10 {
			a.Push(7, number+1, after(now)) // overtaken
			sent[number+1] = now
		}
		a.Push(7, number, after(now))
		if _, twice := sent[number]; !twice {
			sent[number] = now
		}
		if i == 0 {
			first = number
		}
		if i%13 == 12 {
			to.take(&a)
		}
	}
	to.take(&a)
	offset := to.at[first] - sent[first]
	for number, at := range sent {
		got, ok := to.at[number]
		if !ok {
			t.Fatalf("packet %d is not reported", number)
		}
		if d := got - at - offset; d.Abs() > tick {
			t.Fatalf("packet %d arrived %v off", number, d)
		}
	}
	if len(to.at) != len(sent) || len(to.no) < 400 {
		t.Errorf("%d reported of %d, %d lost", len(to.at), len(sent), len(to.no))
	}
	if to.take(&a) != 0 {
		t.Error("reported twice")
	}
}

func TestNumbersOutOfTheWay(t *testing.T) {
	var a Arrivals
	to := newTold(t)
	a.Push(7, 100, epoch)
	a.Push(7, 30_000, epoch) // one stray number
	a.Push(7, 101, epoch)
	to.take(&a)
	if _, ok := to.at[101]; !ok || len(to.at) != 2 || len(to.no) != 0 {
		t.Errorf("%v reported after a stray number", to.at)
	}
	for i := range uint16(20) { // the sender begins anew
		a.Push(7, 40_000+i, epoch)
	}
	to.take(&a)
	if _, ok := to.at[40_019]; !ok || len(to.no) != 0 {
		t.Errorf("%v reported after a new beginning", to.at)
	}
	a.Push(7, 40_019+arrivalsKept-1, epoch)
	to.take(&a)
	a.Push(7, 40_020, epoch)
	to.take(&a)
	if _, ok := to.at[40_020]; !ok {
		t.Error("a late packet is not reported")
	}
}

func FuzzArrivals(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 0xFF, 0xFF, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Arrivals
		now := epoch
		for ; len(b) >= 4; b = b[4:] {
			now = now.Add(time.Duration(int8(b[0])) * time.Duration(b[1]) * ms)
			a.Push(7, uint16(b[2])<<8|uint16(b[3]), now)
			if b[0]%16 == 0 {
				newTold(t).take(&a)
			}
		}
		if n := newTold(t).take(&a); n > arrivalsKept {
			t.Fatalf("%d reports", n)
		}
	})
}
