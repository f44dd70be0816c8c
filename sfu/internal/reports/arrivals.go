package reports

import (
	"time"

	"github.com/pion/rtcp"
)

const (
	arrivalsKept = 1024 // a power of two
	// strayMost is how many packets in a row may have numbers from far away before
	// the numbering is taken to have begun anew.
	strayMost = 8

	tick      = 250 * time.Microsecond // of the deltas
	reference = 64 * time.Millisecond  // of the reference time
)

// Arrivals records when the packets of a connection arrived, by their
// transport-wide sequence numbers. The zero Arrivals has seen nothing.
type Arrivals struct {
	at    [arrivalsKept]time.Duration // since start, plus 1; 0 = not arrived
	start time.Time
	begin int64 // unwrapped number of the first to report
	end   int64 // one after the newest; 0 = none yet
	stray int
	media uint32 // SSRC of the last packet
	count uint8  // of feedback packets
}

// Push notes a packet. Of several with the same number the first counts.
func (a *Arrivals) Push(ssrc uint32, number uint16, now time.Time) {
	if a.end == 0 {
		a.reset(int64(number)+1<<16, now)
	}
	n := a.end - 1 + int64(int16(number-uint16(a.end-1)))
	if n <= a.end-arrivalsKept || n >= a.end+arrivalsKept {
		if a.stray++; a.stray < strayMost {
			return
		}
		a.reset(n+1<<16, now)
		n += 1 << 16
	}
	a.stray, a.media = 0, ssrc
	for ; a.end <= n; a.end++ {
		a.at[a.end%arrivalsKept] = 0
	}
	a.begin = max(a.begin, a.end-arrivalsKept)
	if slot := &a.at[n%arrivalsKept]; *slot == 0 {
		*slot = now.Sub(a.start) + 1
		a.begin = min(a.begin, n) // late, and reported missing: it is reported again
	}
}

func (a *Arrivals) reset(next int64, now time.Time) {
	if a.start.IsZero() {
		a.start = now.Add(-time.Second)
	}
	a.begin, a.end = next, next
	clear(a.at[:])
}

// Feedback makes the report of what arrived since the last one, nil if nothing
// did. sender is the SSRC it comes from. Call it again until it is nil: a silence
// does not fit into one report.
func (a *Arrivals) Feedback(sender uint32) *rtcp.TransportLayerCC {
	for a.begin < a.end && a.at[a.begin%arrivalsKept] == 0 {
		a.begin++ // nothing is known before the first that arrived: it may be under way
	}
	if a.begin >= a.end {
		return nil
	}
	base := (a.at[a.begin%arrivalsKept] - 1).Truncate(reference)
	f := &rtcp.TransportLayerCC{
		SenderSSRC:         sender,
		MediaSSRC:          a.media,
		BaseSequenceNumber: uint16(a.begin),
		ReferenceTime:      uint32(base/reference) & 0xFFFFFF,
		FbPktCount:         a.count,
	}
	a.count++
	var symbols []uint16
	for last := int64(base / tick); a.begin < a.end; a.begin++ {
		at := a.at[a.begin%arrivalsKept]
		if at == 0 {
			symbols = append(symbols, rtcp.TypeTCCPacketNotReceived)
			continue
		}
		delta := int64((at-1)/tick) - last
		symbol := rtcp.TypeTCCPacketReceivedSmallDelta
		switch {
		case delta != int64(int16(delta)):
			return a.finish(f, symbols)
		case delta < 0 || delta > 255:
			symbol = rtcp.TypeTCCPacketReceivedLargeDelta
		}
		last += delta
		symbols = append(symbols, symbol)
		f.RecvDeltas = append(f.RecvDeltas, &rtcp.RecvDelta{Type: symbol, Delta: delta * tick.Microseconds()})
	}
	return a.finish(f, symbols)
}

// finish puts the symbols into chunks of seven and sets the lengths.
func (a *Arrivals) finish(f *rtcp.TransportLayerCC, symbols []uint16) *rtcp.TransportLayerCC {
	f.PacketStatusCount = uint16(len(symbols))
	for len(symbols) > 0 {
		n := min(7, len(symbols))
		c := &rtcp.StatusVectorChunk{Type: rtcp.TypeTCCStatusVectorChunk, SymbolSize: rtcp.TypeTCCSymbolSizeTwoBit, SymbolList: make([]uint16, 7)}
		copy(c.SymbolList, symbols[:n])
		f.PacketChunks = append(f.PacketChunks, c)
		symbols = symbols[n:]
	}
	size := 20 + 2*len(f.PacketChunks)
	for _, d := range f.RecvDeltas {
		if size++; d.Type == rtcp.TypeTCCPacketReceivedLargeDelta {
			size++
		}
	}
	f.Header = rtcp.Header{
		Padding: size%4 != 0,
		Count:   rtcp.FormatTCC,
		Type:    rtcp.TypeTransportSpecificFeedback,
		Length:  uint16((size+3)/4 - 1),
	}
	return f
}
