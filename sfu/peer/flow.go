package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// flowTick is the shortest time between two looks at a clock: of a flow of more
// than 1,000 packets a second several leave at once, as from a network card.
const flowTick = time.Millisecond

// flowBehind is what a flow makes up for: more at once is not how media comes.
const flowBehind = 5 * time.Millisecond

// A Flow is how a stream runs. The zero Flow is silence.
type Flow struct {
	PerSecond int // packets
	Size      int // bytes of payload in each, at least those of a stamp
}

// Stream publishes a voice that says nothing and may be of any size and rate, to
// measure what carries it. It begins silent: see SetFlow.
func (p *Peer) Stream(ctx context.Context) error {
	return p.exclusively(ctx, func() error {
		s := newSource(webrtc.MimeTypeOpus, NewID(), NewID())
		s.setLevels(Silent)
		s.flows = make(chan Flow, 1)
		if err := p.publish(ctx, voice, s); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		return p.rtc(wire.KindUnmute, nil)
	})
}

// SetFlow changes how the stream runs, from now on.
func (p *Peer) SetFlow(f Flow) {
	f.Size = max(f.Size, stampSize)
	for _, s := range p.published(voice) {
		select {
		case <-s.flows: // one that has not begun
		default:
		}
		s.flows <- f
	}
}

// run sends what the flows say until stop. Each begins at a random moment, so that
// many are not in step. What one was kept from sending in time it sends at once, as
// far as it is of the last flowBehind.
func (w *writer) run(stop <-chan struct{}, flows <-chan Flow) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	tick.Stop()
	var f Flow
	var payload []byte
	var every time.Duration
	var start time.Time
	done := 0
	for {
		select {
		case <-stop:
			return
		case f = <-flows:
			tick.Stop()
			if f.PerSecond > 0 {
				payload, start, done = make([]byte, f.Size), time.Time{}, 0
				every = max(time.Second/time.Duration(f.PerSecond), flowTick)
				tick.Reset(1 + rand.N(every))
			}
			continue
		case now := <-tick.C:
			if start.IsZero() {
				start = now
				tick.Reset(every)
			}
		}
		due := 1 + int(time.Since(start).Seconds()*float64(f.PerSecond))
		for done = max(done, due-1-int(flowBehind.Seconds()*float64(f.PerSecond))); done < due; done++ {
			w.say(payload, 960)
		}
	}
}

// acknowledge notes what a receiver report says of the source's packets. It needs
// s.mu.
func (s *source) acknowledge(r *rtcp.ReceiverReport) {
	for _, report := range r.Reports {
		if report.SSRC == s.ssrc {
			s.sent.Acknowledged = uint64(report.LastSequenceNumber - uint32(s.first) + 1)
			s.sent.Lost = uint64(report.TotalLost)
		}
	}
}
