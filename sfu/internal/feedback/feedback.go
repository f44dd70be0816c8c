// Package feedback keeps the account of what was sent to a receiver and what of
// it the receiver says arrived, and when (transport-wide congestion control,
// draft-holmer-rmcat-transport-wide-cc-extensions-01).
package feedback

import (
	"time"

	"github.com/pion/rtcp"

	"sallyport/sfu/internal/rate"
)

const (
	history = 1024 // packets whose report is still awaited; a power of two
	// moments are the spans over which the least delay is taken.
	moments = 4
	moment  = 100 * time.Millisecond
	// baseFor is how long the usual delay is remembered.
	baseFor = 20 * time.Second
	// trainWait is how long the report of a train may take.
	trainWait = time.Second
	// unlimited is the capacity of a way on which a train did not spread at all.
	unlimited = 1 << 30
	// overhead is what a packet carries below RTP: IPv4, UDP, SRTP.
	overhead = 20 + 8 + 10
	// smallTrain is fewer packets than tell anything.
	smallTrain = 8
)

// A packet is one that was sent.
type packet struct {
	number  uint16
	known   bool
	counted bool // as lost or arrived
	train   bool
	bytes   int
	sent    time.Time
}

// A Path is the account of one connection. The zero Path is ready to use. It is
// not safe for concurrent use.
type Path struct {
	packets  [history]packet
	next     uint16
	sent     rate.Window
	arrived  rate.Window // packets, as "bytes", so that loss is a quotient
	lost     rate.Window
	reported time.Time // last report
	newest   uint16    // highest number in any report
	waits    least     // from sending a packet to its report

	start    time.Time // of our clock in reports
	clock    int64     // reference time of the last report, 64 ms units, unwrapped
	clocked  bool
	delays   delays
	arrivals arrivals
	train    train
	result   Train
}

// A Train is what a train of packets sent at once measured: the capacity of the
// way in bits per second, and when that became known.
type Train struct {
	Capacity int
	At       time.Time
}

// Send counts a packet that is about to be sent and returns its number. Packets of
// a train are those sent between BeginTrain and EndTrain.
func (p *Path) Send(now time.Time, bytes int) uint16 {
	n := p.next
	p.next++
	if p.start.IsZero() {
		p.start = now
	}
	p.packets[n%history] = packet{number: n, known: true, bytes: bytes + overhead, sent: now, train: p.train.open}
	if p.train.open {
		p.train.sent++
	}
	p.sent.Add(now, bytes)
	return n
}

// BeginTrain makes the packets that follow a train.
func (p *Path) BeginTrain(now time.Time) {
	for i := range p.packets {
		p.packets[i].train = false // of one whose report never came
	}
	p.train = train{open: true, begun: now}
}

// EndTrain ends it.
func (p *Path) EndTrain() { p.train.open = false }

// Report takes a report of the receiver. One that contradicts itself is used as
// far as it goes.
func (p *Path) Report(now time.Time, r *rtcp.TransportLayerCC) {
	first := p.reported.IsZero()
	p.reported = now
	if r.PacketStatusCount > 0 {
		p.know(now, first, r.BaseSequenceNumber+r.PacketStatusCount-1)
	}
	at := p.unwrap(r.ReferenceTime)
	number, left, deltas := r.BaseSequenceNumber, int(r.PacketStatusCount), r.RecvDeltas
	one := func(symbol uint16) bool {
		if left == 0 {
			return false
		}
		left--
		arrived := symbol == rtcp.TypeTCCPacketReceivedSmallDelta || symbol == rtcp.TypeTCCPacketReceivedLargeDelta
		if arrived {
			if len(deltas) == 0 {
				return false
			}
			at += time.Duration(deltas[0].Delta) * time.Microsecond
			deltas = deltas[1:]
		}
		p.account(now, number, arrived, at)
		number++
		return true
	}
	for _, c := range r.PacketChunks {
		switch c := c.(type) {
		case *rtcp.RunLengthChunk:
			for i := uint16(0); i < c.RunLength && one(c.PacketStatusSymbol); i++ {
			}
		case *rtcp.StatusVectorChunk:
			for _, s := range c.SymbolList {
				if !one(s) {
					break
				}
			}
		}
	}
	p.finishTrain(now)
}

// know notes that everything up to a number has been reported.
func (p *Path) know(now time.Time, first bool, last uint16) {
	k := &p.packets[last%history]
	if !k.known || k.number != last || !first && int16(last-p.newest) <= 0 {
		return
	}
	p.newest = last
	p.waits.add(now, now.Sub(k.sent))
}

// Overdue returns by how much longer the oldest packet without a report has waited
// for it than packets usually do. It grows as soon as nothing arrives any more,
// when there is no delay and no loss to be measured.
func (p *Path) Overdue(now time.Time) time.Duration {
	oldest := p.newest + 1
	if p.reported.IsZero() || oldest == p.next {
		return 0
	}
	since := p.reported // the history does not reach back to it
	if k := &p.packets[oldest%history]; k.known && k.number == oldest {
		since = k.sent
	}
	return max(0, now.Sub(since)-p.waits.get())
}

// unwrap makes a continuous time of the 24-bit reference time of a report.
func (p *Path) unwrap(ref uint32) time.Duration {
	if !p.clocked {
		p.clock, p.clocked = int64(ref), true
	} else {
		step := (int64(ref) - p.clock) & 0xFFFFFF
		if step >= 1<<23 {
			step -= 1 << 24 // reports overtook each other
		}
		p.clock += step
	}
	return time.Duration(p.clock) * 64 * time.Millisecond
}

// account counts what a report says of one packet. at is the receiver's clock.
func (p *Path) account(now time.Time, number uint16, arrived bool, at time.Duration) {
	k := &p.packets[number%history]
	if !k.known || k.number != number || k.counted {
		return
	}
	if k.train {
		p.train.add(k.bytes, arrived, at)
	}
	k.counted = true
	if !arrived {
		p.lost.Add(now, 1)
		return
	}
	p.arrived.Add(now, 1)
	p.arrivals.add(at, k.bytes-overhead)
	if !k.train { // a train makes a queue of its own
		p.delays.add(now, at-k.sent.Sub(p.start))
	}
}

// finishTrain evaluates the train once all of it is reported, or should be.
func (p *Path) finishTrain(now time.Time) {
	t := &p.train
	if t.open || t.sent == 0 || t.arrived+t.lost < t.sent && now.Sub(t.begun) < trainWait {
		return
	}
	p.result = Train{Capacity: t.capacity(), At: now}
	p.train = train{}
}

// Sent returns the bit rate of the last second.
func (p *Path) Sent(now time.Time) int { return p.sent.Rate(now) }

// Reported returns when the last report came; the zero time if none did.
func (p *Path) Reported() time.Time { return p.reported }

// Loss returns the share of packets lost, of those reported in the last second.
// Of fewer than 20 packets nothing is said.
func (p *Path) Loss(now time.Time) float64 {
	lost, arrived := p.lost.Rate(now), p.arrived.Rate(now)
	if lost+arrived < 20*8 {
		return 0
	}
	return float64(lost) / float64(lost+arrived)
}

// Queue returns the least delay of the last moments over the least of the last 20
// to 40 seconds: the queue that has stood on the way all the while.
func (p *Path) Queue(now time.Time) time.Duration { return p.delays.standing(now) }

// LastTrain returns what the last train measured.
func (p *Path) LastTrain() Train { return p.result }
