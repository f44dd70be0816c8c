package sfu

import (
	"fmt"
	"strings"
	"sync"
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
	// probePackets is the length of a probe train: about 5 kB on the wire, 65 ms
	// of a link of 600 kbit/s.
	probePackets = 16
	// reportTime is after how long without a report the receiver reports nothing.
	reportTime = time.Second
)

// A congestion is the congestion control of one connection to a receiver: it
// numbers outgoing video for the whole transport, retransmissions included, and
// learns from the receiver's reports. Audio passes by: it is never held back, and
// a connection without outgoing video has no estimator at all.
//
//	down ─> NACK buffer ─> stampedStream (number, account) ─> SRTP
//	receiver's transport-cc report ─> feedback.Path, gcc ─> sample ─> chooser
type congestion struct {
	interceptor.NoOp

	mu        sync.Mutex // guards the following
	path      *feedback.Path
	estimator *gcc.SendSideBWE
	streams   map[uint32]*stampedStream // by SSRC
	closed    bool
}

// NewInterceptor implements interceptor.Factory, for the one connection.
func (c *congestion) NewInterceptor(string) (interceptor.Interceptor, error) { return c, nil }

// BindRTCPReader implements interceptor.Interceptor: it looks for reports.
func (c *congestion) BindRTCPReader(next interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := next.Read(b, a)
		if err != nil {
			return n, a, err
		}
		if a == nil {
			a = interceptor.Attributes{}
		}
		packets, err := a.GetRTCPPackets(b[:n])
		if err != nil {
			return n, a, err
		}
		for _, p := range packets {
			if r, ok := p.(*rtcp.TransportLayerCC); ok {
				c.report(r)
			}
		}
		return n, a, nil
	})
}

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

// BindLocalStream implements interceptor.Interceptor: video for which the receiver
// agreed to transport-cc is accounted for.
func (c *congestion) BindLocalStream(info *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	id := 0
	for _, e := range info.RTPHeaderExtensions {
		if e.URI == sdp.TransportCCURI {
			id = e.ID
		}
	}
	if id == 0 || !strings.HasPrefix(strings.ToLower(info.MimeType), "video/") {
		return next
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.estimator == nil && !c.closed {
		if err := c.start(); err != nil {
			return next
		}
	}
	if c.closed {
		return next
	}
	// The estimator hands its writer to the pacer; ours only keeps it.
	through := c.estimator.AddStream(info, next).(*unpaced).last
	s := &stampedStream{congestion: c, next: through, id: uint8(id)}
	c.streams[info.SSRC] = s
	return s
}

// UnbindLocalStream implements interceptor.Interceptor.
func (c *congestion) UnbindLocalStream(info *interceptor.StreamInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, info.SSRC)
}

// flush ends the retransmission of what a stream has sent so far: it is of a layer
// that was too much for the way, and nobody will look at it.
func (c *congestion) flush(ssrc uint32) {
	c.mu.Lock()
	s := c.streams[ssrc]
	c.mu.Unlock()
	if s != nil {
		s.flush()
	}
}

// start makes the estimator. It needs mu.
func (c *congestion) start() error {
	e, err := gcc.NewSendSideBWE(gcc.SendSideBWEInitialBitrate(leastEstimate), gcc.SendSideBWEMinBitrate(leastEstimate),
		gcc.SendSideBWEMaxBitrate(mostEstimate), gcc.SendSideBWEPacer(&unpaced{}))
	if err != nil {
		return fmt.Errorf("make bandwidth estimator: %w", err)
	}
	c.path, c.estimator, c.streams = &feedback.Path{}, e, map[uint32]*stampedStream{}
	return nil
}

// Close implements interceptor.Interceptor.
func (c *congestion) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.estimator == nil {
		return nil
	}
	return c.estimator.Close()
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
