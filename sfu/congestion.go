package sfu

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/gcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"

	"sallyport/sfu/internal/feedback"
	"sallyport/sfu/internal/steer"
)

const (
	// What the congestion controller starts with and stays between, bit/s (rtcd
	// protocol §4.12).
	leastEstimate = 250_000
	mostEstimate  = 3_750_000
	// probePackets is the length of the first probe train: about 5 kB on the wire,
	// 65 ms of a link of 600 kbit/s. Further ones last as long on the link that the
	// last one found, up to mostPackets: TCP that has just been slow lets no more
	// through than its window, and only grows with what is sent.
	probePackets = 16
	mostPackets  = 48
	probeBytes   = 300 // of one packet on the wire
	probeTime    = 65 * time.Millisecond
	// probeRecent is how old the last train may be.
	probeRecent = 2 * time.Second
	// reportTime is after how long without a report the receiver reports nothing.
	reportTime = time.Second
)

// A congestion is the congestion control of one connection to a receiver: it
// numbers outgoing video for the whole transport and learns from the receiver's
// reports. It is off until there is something to choose: a source in several
// layers. Audio passes by: it is never held back. A retransmission has the number
// of the first time, because it is the same packet to the last bit.
//
//	outgoing ─> send (number, account) ─> header
//	receiver's transport-cc report ─> feedback.Path, gcc ─> sample ─> chooser
type congestion struct {
	on atomic.Bool // packets are numbered

	mu        sync.Mutex // guards the following
	path      *feedback.Path
	estimator *gcc.SendSideBWE
	account   estimatorInput
	closed    bool
}

// An estimatorInput is what the estimator is told of a packet, reused.
type estimatorInput struct {
	write  interceptor.RTPWriter
	header rtp.Header
	number [2]byte
	attr   interceptor.Attributes
}

// begin turns it on.
func (c *congestion) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.path != nil {
		return
	}
	e, err := gcc.NewSendSideBWE(gcc.SendSideBWEInitialBitrate(leastEstimate), gcc.SendSideBWEMinBitrate(leastEstimate),
		gcc.SendSideBWEMaxBitrate(mostEstimate), gcc.SendSideBWEPacer(&unpaced{}))
	if err != nil {
		return // it refuses options only
	}
	c.path, c.estimator = &feedback.Path{}, e
	c.account = estimatorInput{header: rtp.Header{Version: 2}, attr: interceptor.Attributes{}}
	c.on.Store(true)
}

// send accounts for a packet that is about to be sent and returns its number.
func (c *congestion) send(o *outgoing, x *sending) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return 0
	}
	n := c.path.Send(time.Now(), 20+len(x.payload))
	a := &c.account
	if a.write == nil {
		// The estimator hands its writer to the pacer; ours only keeps it.
		info := &interceptor.StreamInfo{RTPHeaderExtensions: []interceptor.RTPHeaderExtension{{URI: sdp.TransportCCURI, ID: int(o.number)}}}
		a.write = c.estimator.AddStream(info, unsent{}).(*unpaced).last
	}
	binary.BigEndian.PutUint16(a.number[:], n)
	a.header.SSRC, a.header.SequenceNumber = o.ssrc, x.seq
	if a.header.SetExtension(o.number, a.number[:]) == nil {
		_, _ = a.write.Write(&a.header, x.payload, a.attr) // it is only told
	}
	return n
}

// report takes a report of the receiver.
func (c *congestion) report(r *rtcp.TransportLayerCC) {
	c.mu.Lock()
	e := c.estimator
	if c.path != nil {
		c.path.Report(time.Now(), r)
	}
	c.mu.Unlock()
	if e != nil {
		// It refuses reports that contradict themselves, and any after the end.
		_ = e.WriteRTCP([]rtcp.Packet{r}, nil)
	}
}

func (c *congestion) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.on.Store(false)
	if c.estimator != nil {
		_ = c.estimator.Close() // what it closes cannot fail
	}
}

// probe begins and ends a train: what is sent between is part of it.
func (c *congestion) probe(begin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.path == nil:
	case begin:
		c.path.BeginTrain(time.Now())
	default:
		c.path.EndTrain()
	}
}

// queue is what stands on the way to the receiver, as far as that is known.
func (c *congestion) queue(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return 0
	}
	return c.path.Queue(now)
}

// delivered is how fast the newest packets arrived, bit/s; 0 = unknown.
func (c *congestion) delivered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return 0
	}
	return c.path.Delivered()
}

// trainLength is how many packets the next train should have.
func (c *congestion) trainLength(now time.Time) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return probePackets
	}
	return trainPackets(c.path.LastTrain(), now)
}

func trainPackets(last feedback.Train, now time.Time) uint16 {
	if now.Sub(last.At) > probeRecent {
		return probePackets
	}
	most := min(last.Capacity, mostEstimate) // before it is multiplied
	return uint16(min(max(most/8*int(probeTime/time.Millisecond)/1000/probeBytes, probePackets), mostPackets))
}

// sample fills in what is known of the way to the receiver.
func (c *congestion) sample(now time.Time) steer.Sample {
	s := steer.Sample{Now: now}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == nil {
		return s
	}
	train := c.path.LastTrain()
	s.Reported = now.Sub(c.path.Reported()) < reportTime
	s.Sent, s.Loss, s.Queue, s.Overdue = c.path.Sent(now), c.path.Loss(now), c.path.Queue(now), c.path.Overdue(now)
	s.Capacity, s.Probed = train.Capacity, train.At
	s.Delay, s.Delivered = c.path.Delay(now), c.path.Delivered()
	// Of the estimator only the delay-based half is of use: its loss-based half
	// counts the unused symbols of a report as lost packets.
	s.Estimate, _ = c.estimator.GetStats()["delayTargetBitrate"].(int)
	return s
}

// unpaced is the pacer that does not pace: packets go out as they come in, for the
// publisher has paced them. It only keeps the writer it was given last.
type unpaced struct{ last interceptor.RTPWriter }

// AddStream implements gcc.Pacer.
func (u *unpaced) AddStream(_ uint32, w interceptor.RTPWriter) { u.last = w }

// SetTargetBitrate implements gcc.Pacer.
func (*unpaced) SetTargetBitrate(int) {}

// Close implements gcc.Pacer.
func (*unpaced) Close() error { return nil }

// Write implements gcc.Pacer. Nothing is written through the pacer.
func (u *unpaced) Write(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
	return u.last.Write(h, payload, a)
}

// unsent is where the estimator's packets end: it is only told of them.
type unsent struct{}

// Write implements interceptor.RTPWriter.
func (unsent) Write(_ *rtp.Header, payload []byte, _ interceptor.Attributes) (int, error) {
	return len(payload), nil
}
