package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"sallyport/sfu/peer"
)

const (
	relayRate  = 20_000                 // packets a second of each load
	relayTime  = 600 * time.Millisecond // that one burst of them takes
	delayTime  = time.Second            // the same, when latency is measured
	relayDrain = 30 * time.Millisecond  // for the last packets to be done with
	relayFlows = 100                    // of the loads of many
	relayIdle  = 5_000                  // allocations that nobody uses
)

// relaySuiteName is what -suite calls a relayBench.
const relaySuiteName = "relay"

// A relaySuite is which of its loads are wanted: those whose names contain one of
// the patterns; all without.
type relaySuite struct{ patterns []string }

func (r *relaySuite) wants(name string) bool {
	return len(r.patterns) == 0 || matches(name, r.patterns)
}

// relayPaths are the ways through TURN.
var relayPaths = []peer.Path{peer.TURNUDP, peer.TURNTCP, peer.TURNTLS}

// relaySizes are the bytes of payload of the packets: 20 ms of voice, and video.
var relaySizes = []int{160, 1000}

// A relayBench measures what it costs to relay packets: through each of two servers,
// and through a third one, to which clients send directly. All three run all the
// time, and bursts of packets go through them in turn.
type relayBench struct {
	options
	stderr   io.Writer
	subjects []*subject
	out      *Relays
}

// measureRelays does it all. An interrupt or an error ends it with what has been
// measured until then.
func measureRelays(ctx context.Context, o options, stderr io.Writer) (_ *Relays, err error) {
	b := &relayBench{options: o, stderr: stderr, out: &Relays{Machine: machine(), Names: o.names, Rate: relayRate, Repeated: o.runs}}
	defer func() { err = errors.Join(err, b.end()) }()
	for i, t := range o.targets {
		s, err := newSubject(ctx, o, t)
		if err != nil {
			return b.out, err
		}
		s.direct = i == len(o.targets)-1
		b.subjects = append(b.subjects, s)
		b.out.Targets = append(b.out.Targets, t.name)
	}
	sleep(ctx, o.warm) // they choose how many processors they use
	for _, path := range relayPaths {
		if err := b.path(ctx, path); err != nil || ctx.Err() != nil {
			return b.out, err
		}
	}
	return b.out, b.idle(ctx)
}

func (b *relayBench) end() (err error) {
	for _, s := range b.subjects {
		err = errors.Join(err, s.end())
	}
	return err
}

// each calls f for all subjects at the same time.
func (b *relayBench) each(f func(*subject) error) error {
	var all sync.WaitGroup
	failed := make([]error, len(b.subjects))
	for i, s := range b.subjects {
		all.Go(func() { failed[i] = f(s) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// path measures one way through TURN. Few are connected at a time, as those who are
// cost something when they are silent, too.
func (b *relayBench) path(ctx context.Context, path peer.Path) error {
	for _, s := range b.subjects {
		if s.road = path; s.direct {
			s.road = peer.UDP
		}
	}
	defer func() { _ = b.each(func(s *subject) error { s.leave(&s.duo, &s.speakers, &s.audience); return nil }) }()
	for _, step := range []struct {
		loads []Relayed
		ready func(*subject) error
		load  func(context.Context, Relayed) error
	}{
		{[]Relayed{{Path: path.String(), Direction: bothWays, Bytes: relaySizes[0], Flows: 1}}, func(s *subject) error { return s.meet(ctx) }, b.latency},
		{relayLoads(path, up, 1), func(s *subject) error { return s.speak(ctx, 1) }, b.cost},
		{relayLoads(path, up, relayFlows), func(s *subject) error { return s.speak(ctx, relayFlows) }, b.cost},
		{relayLoads(path, down, 1), func(s *subject) error { return s.hear(ctx, 1) }, b.cost},
		{relayLoads(path, down, relayFlows), func(s *subject) error { return s.hear(ctx, relayFlows) }, b.cost},
	} {
		loads := slices.DeleteFunc(step.loads, func(l Relayed) bool { return !b.relay.wants(l.name()) })
		if len(loads) == 0 {
			continue
		}
		if err := b.each(step.ready); err != nil {
			return err
		}
		for _, l := range loads {
			if err := step.load(ctx, l); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

// relayLoads are the loads of all sizes.
func relayLoads(path peer.Path, way direction, flows int) (all []Relayed) {
	for _, size := range relaySizes {
		all = append(all, Relayed{Path: path.String(), Direction: way, Bytes: size, Flows: flows})
	}
	return all
}

// A burst is what one burst cost.
type burst struct {
	cpu     time.Duration
	packets uint64 // that were to be relayed
}

// cost measures what the packets of one load cost.
func (b *relayBench) cost(ctx context.Context, c Relayed) error {
	bursts := make([][]burst, len(b.subjects))
	before := make([]delivery, len(b.subjects))
	for i, s := range b.subjects {
		before[i] = s.delivered(c.Direction)
	}
	err := b.inTurn(ctx, func(i int, s *subject) error {
		x, err := s.burst(ctx, c.Direction, peer.Flow{PerSecond: relayRate / c.Flows, Size: c.Bytes})
		bursts[i] = append(bursts[i], x)
		return err
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	for i, s := range b.subjects {
		c.Subjects = append(c.Subjects, spent(bursts[i], s.settled(ctx, c.Direction, before[i])))
	}
	c.conclude()
	b.out.Loads = append(b.out.Loads, c)
	fmt.Fprintln(b.stderr, c.line(b.names))
	return nil
}

// inTurn calls f for each subject in turn, several times.
func (b *relayBench) inTurn(ctx context.Context, f func(int, *subject) error) error {
	for run := range b.runs {
		for i := range b.subjects {
			i = (i + run) % len(b.subjects)
			if err := f(i, b.subjects[i]); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

// latency measures how long packets of one flow take from one client to another, at
// half of the rate.
func (b *relayBench) latency(ctx context.Context, l Relayed) error {
	c := Delayed{Path: l.Path, Rate: relayRate / 2}
	spreads := make([][]Spread, len(b.subjects))
	err := b.inTurn(ctx, func(i int, s *subject) error {
		spreads[i] = append(spreads[i], s.delay(ctx, peer.Flow{PerSecond: relayRate / 2, Size: l.Bytes}))
		return nil
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	for _, all := range spreads {
		c.Subjects = append(c.Subjects, Delay{
			P50: middle(all, func(s Spread) float64 { return float64(s.P50) }),
			P99: middle(all, func(s Spread) float64 { return float64(s.P99) }),
		})
	}
	b.out.Latency = append(b.out.Latency, c)
	fmt.Fprintln(b.stderr, c.line(b.names))
	return nil
}

// idle measures what allocations cost that nobody uses, at the servers that have TURN.
func (b *relayBench) idle(ctx context.Context) error {
	for i, s := range b.subjects {
		if s.direct || !b.relay.wants("idle") {
			continue
		}
		x, err := s.idle(ctx, relayIdle)
		if err != nil {
			return err
		}
		x.Server = b.names[i]
		b.out.Idle = append(b.out.Idle, x)
		fmt.Fprintln(b.stderr, x.line())
	}
	return nil
}

// spent works out what bursts cost for each packet that arrived.
func spent(bursts []burst, d delivery) Spent {
	arrived := float64(min(d.came, d.sent)) / float64(max(d.sent, 1))
	s := Spent{Loss: 100 * (1 - arrived)}
	for _, x := range bursts {
		s.Runs = append(s.Runs, float64(x.cpu)/float64(time.Microsecond)/max(float64(x.packets)*arrived, 1))
		s.PerSecond = append(s.PerSecond, float64(x.packets)/relayTime.Seconds())
	}
	s.CPU = middle(s.Runs, func(x float64) float64 { return x })
	return s
}

// middle returns the median of a figure.
func middle[T any](all []T, figure func(T) float64) float64 {
	values := make([]float64, 0, len(all))
	for _, x := range all {
		values = append(values, figure(x))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
