package main

import (
	"context"
	"time"

	"sallyport/sfu/peer"
)

// of returns those who send in a direction, and how many get each packet.
func (s *subject) of(way direction) (senders []*peer.Peer, each uint64) {
	if way == up {
		return s.speakers, 1
	}
	return s.audience[:1], uint64(len(s.audience) - 1)
}

// burst sends for a while, and returns what it cost.
func (s *subject) burst(ctx context.Context, way direction, f peer.Flow) (b burst, err error) {
	senders, each := s.of(way)
	sent := count(senders)
	before, err := spentBy(s.server.pids)
	if err != nil {
		return b, err
	}
	for _, p := range senders {
		p.SetFlow(f)
	}
	sleep(ctx, relayTime)
	s.hush(senders)
	sleep(ctx, relayDrain)
	after, err := spentBy(s.server.pids)
	return burst{cpu: after - before, packets: each * (count(senders) - sent)}, err
}

// delay sends for a while, and returns how long it took the packets.
func (s *subject) delay(ctx context.Context, f peer.Flow) Spread {
	track := s.duo[1].Tracks()[0]
	before := track.Stats().Latency
	s.duo[0].SetFlow(f)
	sleep(ctx, delayTime)
	s.duo[0].SetFlow(peer.Flow{})
	sleep(ctx, relayDrain)
	after := track.Stats().Latency
	passed := after.Less(&before)
	return spread(&passed)
}

// A delivery is what was sent so far, and what of it came.
type delivery struct{ sent, came uint64 }

func (d delivery) since(before delivery) delivery {
	return delivery{d.sent - before.sent, d.came - before.came}
}

func count(senders []*peer.Peer) (n uint64) {
	for _, p := range senders {
		n += p.Sent("voice").Packets
	}
	return n
}

// delivered tells of speakers what the server reports, which it does once a second,
// and of the audience what it has counted.
func (s *subject) delivered(way direction) (d delivery) {
	senders, each := s.of(way)
	d.sent = each * count(senders)
	if way == up {
		for _, p := range senders {
			n := p.Sent("voice")
			d.came += n.Acknowledged - min(n.Lost, n.Acknowledged)
		}
		return d
	}
	for _, p := range s.audience[1:] {
		for _, t := range p.Tracks() {
			d.came += t.Stats().Packets
		}
	}
	return d
}

// settled is what has been delivered since an earlier delivery, when nothing more
// comes.
func (s *subject) settled(ctx context.Context, way direction, before delivery) delivery {
	last, since := s.delivered(way), time.Now()
	for ctx.Err() == nil && time.Since(since) < settleTime {
		if d := last.since(before); d.came >= d.sent {
			break
		}
		sleep(ctx, pollInterval)
		if d := s.delivered(way); d != last {
			last, since = d, time.Now()
		}
	}
	return last.since(before)
}

// settleTime is for how long nothing must have come: reports come once a second.
const settleTime = 1300 * time.Millisecond
