package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"sallyport/sfu/peer"
)

// A direction is the one that clients behind TURN send packets in, or get them.
type direction string

const (
	up       direction = "up"      // from clients
	down     direction = "down"    // to them
	bothWays direction = "latency" // from one to another
)

// A subject is a server that relays, or does without, and its clients. Speakers are
// alone in calls of their own: what they send is decrypted and goes nowhere. The
// audience hears one who is not behind TURN.
type subject struct {
	options
	server *server
	direct bool      // clients do without TURN
	road   peer.Path // theirs
	link   *peer.Mux
	bulk   *peer.Bulk // counts for the audience; nil where that cannot be
	ended  func()

	duo      []*peer.Peer // one who sends and one who measures, both behind TURN
	speakers []*peer.Peer
	audience []*peer.Peer // the first is whom they hear
	call     string       // of the audience
}

func newSubject(ctx context.Context, o options, t target) (_ *subject, err error) {
	s := &subject{options: o}
	if s.server, err = t.start(ctx); err != nil {
		return nil, err
	}
	o.link.URL = s.server.url
	if s.link, err = peer.DialMux(ctx, o.link); err != nil {
		return nil, errors.Join(err, s.server.stop())
	}
	s.ended = func() {}
	if s.bulk, err = peer.NewBulk(); err == nil {
		var running sync.WaitGroup
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		running.Go(func() { _ = s.bulk.Run(ctx) })
		s.ended = func() {
			cancel()
			running.Wait()
		}
	}
	return s, nil
}

func (s *subject) end() error {
	s.leave(&s.duo, &s.speakers, &s.audience)
	s.ended()
	return errors.Join(s.link.Close(), s.server.stop())
}

// join lets somebody into a call.
func (s *subject) join(ctx context.Context, call string, road peer.Path, bulk *peer.Bulk) (*peer.Peer, error) {
	servers, err := s.turn.servers(road, s.server.announced)
	if err != nil {
		return nil, err
	}
	p, err := peer.Join(ctx, s.link, peer.Config{
		Call: call, Channel: call, Path: road, ICEServers: servers, SRTP: s.srtp, Bulk: bulk, DialTURN: dialers[road], NoPings: true,
	})
	if err == nil {
		sleep(ctx, s.ramp)
	}
	return p, err
}

// dialers connect to TURN servers. With them peers can count what comes there.
var dialers = map[peer.Path]func(network, address string) (net.Conn, error){
	peer.TURNTCP: net.Dial,
	peer.TURNTLS: func(network, address string) (net.Conn, error) { return tls.Dial(network, address, nil) },
}

// leave takes everybody out of the given calls.
func (s *subject) leave(calls ...*[]*peer.Peer) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	var all sync.WaitGroup
	for _, members := range calls {
		for _, p := range *members {
			all.Go(func() { _ = p.Leave(ctx) })
		}
		*members = nil
	}
	all.Wait()
}

// prelude is what is sent until all have heard of a stream.
var prelude = peer.Flow{PerSecond: 50, Size: 160}

// begin makes somebody send a little until ready.
func (s *subject) begin(ctx context.Context, p *peer.Peer, ready func() bool) error {
	if err := p.Stream(ctx); err != nil {
		return err
	}
	p.SetFlow(prelude)
	return s.until(ctx, "a stream is heard", ready)
}

func (s *subject) until(ctx context.Context, what string, met func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.settle)
	defer cancel()
	for !met() {
		sleep(ctx, pollInterval)
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// meet brings two together who measure latency.
func (s *subject) meet(ctx context.Context) error {
	call := peer.NewID()
	for range 2 {
		p, err := s.join(ctx, call, s.road, nil)
		if err != nil {
			return err
		}
		s.duo = append(s.duo, p)
	}
	defer s.duo[0].SetFlow(peer.Flow{})
	return s.begin(ctx, s.duo[0], func() bool { return len(s.duo[1].Tracks()) > 0 })
}

// speak makes it n speakers. Those who measured latency leave.
func (s *subject) speak(ctx context.Context, n int) error {
	s.leave(&s.duo)
	for len(s.speakers) < n {
		p, err := s.join(ctx, peer.NewID(), s.road, nil)
		if err != nil {
			return err
		}
		s.speakers = append(s.speakers, p)
		if err := s.begin(ctx, p, func() bool { return true }); err != nil {
			return err
		}
	}
	err := s.until(ctx, "all speakers are heard", func() bool {
		for _, p := range s.speakers {
			if p.Sent("voice").Acknowledged == 0 {
				return false
			}
		}
		return true
	})
	s.hush(s.speakers)
	s.settled(ctx, up, delivery{})
	return err
}

// hear makes it an audience of n. The speakers leave.
func (s *subject) hear(ctx context.Context, n int) error {
	s.leave(&s.speakers)
	first := len(s.audience) == 0
	if first {
		s.call = peer.NewID()
		p, err := s.join(ctx, s.call, peer.UDP, nil)
		if err != nil {
			return err
		}
		s.audience = append(s.audience, p)
	}
	for len(s.audience) <= n {
		p, err := s.join(ctx, s.call, s.road, s.bulk)
		if err != nil {
			return err
		}
		s.audience = append(s.audience, p)
	}
	heard := func() bool {
		for _, p := range s.audience[1:] {
			if len(p.Tracks()) == 0 {
				return false
			}
		}
		return true
	}
	var err error
	if first {
		err = s.begin(ctx, s.audience[0], heard)
	} else {
		s.audience[0].SetFlow(prelude)
		err = s.until(ctx, "the audience hears", heard)
	}
	s.hush(s.audience[:1])
	sleep(ctx, inFlight)
	return err
}

func (s *subject) hush(all []*peer.Peer) {
	for _, p := range all {
		p.SetFlow(peer.Flow{})
	}
}
