package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// callPoll is how often a draining gateway looks whether calls have ended.
const callPoll = 250 * time.Millisecond

// shutLimit is how long handshakes under way are waited for when the door closes:
// silent connections would keep everybody else waiting.
const shutLimit = 500 * time.Millisecond

// firstRequest is the time from the end of a handshake to the request that it was
// made for.
const firstRequest = 200 * time.Millisecond

// A part is one thing that runs for as long as the gateway does.
type part struct {
	name string
	// run blocks until ctx ends and then ends in order, within a few seconds of
	// hard having ended.
	run func(ctx, hard context.Context) error
}

// A runner is a part that was started.
type runner struct {
	part
	cancel context.CancelFunc
	done   chan struct{}
}

// parts lists what runs, in the order in which it is stopped:
//
//	self-test   of no interest any more
//	websockets  closed, spread, while all else goes on
//	requests    finish, likewise
//	door        no new connections of any kind: they are the next process's
//	HTTP        lets the last requests finish, then closes the WebSockets opened since
//	port        what is not handed over ends; TURN's connections go on
//	TURN        allocations end
//	API         the Calls plugin's connections end
//	SFU         media ends
//	the rest    admin last, so that it can be asked until the end
func (g *Gateway) parts() []part {
	listen := func(s *site, ln net.Listener) func(ctx, hard context.Context) error {
		return func(ctx, hard context.Context) error {
			return s.run(ctx, hard, strictListener{ln, g.metrics.malformed})
		}
	}
	var parts []part
	if g.probe != nil {
		parts = append(parts, part{"self-test", simple(g.probe.run)})
	}
	parts = append(parts,
		part{"websockets", atTheEnd(g.dismissTunnels)},
		part{"requests", atTheEnd(g.secure.settle)},
		part{"door", atTheEnd(g.shut)},
		part{"https", listen(g.secure, g.port.HTTP())},
		part{"plain", listen(g.plain, g.port.Plain())})
	if g.http != nil {
		parts = append(parts, part{"http", listen(g.http, g.beside.Plain())}, part{"http port", simple(g.beside.Run)})
	}
	parts = append(parts, part{"port", simple(g.port.Run)})
	if g.turn != nil {
		parts = append(parts, part{"turn", simple(g.runTURN)})
	}
	if g.sfu != nil {
		parts = append(parts,
			part{"api", simple(func(ctx context.Context) error { return g.rtcd.Run(ctx, g.sockets.api) })},
			part{"sfu", simple(func(ctx context.Context) error { return g.sfu.Run(ctx, g.port.ICE()) })})
	}
	if g.sockets.commands != nil {
		parts = append(parts, part{"commands", simple(func(ctx context.Context) error { return g.admin.RunCommands(ctx, g.sockets.commands) })})
	}
	return append(parts,
		part{"certificates", simple(g.certs.Run)},
		part{"upstreams", simple(g.proxy.watch)},
		part{"admin", simple(func(ctx context.Context) error { return g.admin.Run(ctx, g.sockets.admin) })})
}

func simple(run func(context.Context) error) func(ctx, hard context.Context) error {
	return func(ctx, _ context.Context) error { return run(ctx) }
}

// atTheEnd is a part that has something to do when its turn to stop has come.
func atTheEnd(do func(hard context.Context)) func(ctx, hard context.Context) error {
	return func(ctx, hard context.Context) error {
		<-ctx.Done()
		do(hard)
		return nil
	}
}

func (g *Gateway) runTURN(ctx context.Context) error {
	var packets []net.PacketConn
	for _, c := range g.sockets.shared() {
		packets = append(packets, c)
	}
	return g.turn.Run(ctx, []net.Listener{g.port.TURN()}, packets)
}

// Run serves until Drain has run its course, ctx ends or a part fails, and
// returns when everything has stopped and every socket is closed: nil unless
// something failed. The end of ctx stops everything at once, in the same order
// as a drain. Run may be called once.
func (g *Gateway) Run(ctx context.Context) error {
	group, hard := errgroup.WithContext(ctx)
	g.refuseUnused()
	var runners []*runner
	for _, p := range g.parts() {
		runners = append(runners, start(group, hard, p))
	}
	group.Go(func() error {
		g.stopInOrder(hard, runners)
		return nil
	})
	return errors.Join(group.Wait(), g.Close())
}

// refuseUnused closes the ways out of the ports that no part takes, so that
// what comes for them ends instead of waiting.
func (g *Gateway) refuseUnused() {
	if g.turn == nil {
		_ = g.port.TURN().Close()
		for _, c := range g.sockets.shared() {
			_ = c.Close()
		}
	}
	if g.sfu == nil {
		_ = g.port.ICE().Close()
	}
}

// start runs p with a context of its own, so that it ends when its turn has
// come and not when hard ends.
func start(group *errgroup.Group, hard context.Context, p part) *runner {
	ctx, cancel := context.WithCancel(context.WithoutCancel(hard))
	r := &runner{part: p, cancel: cancel, done: make(chan struct{})}
	group.Go(func() error {
		defer close(r.done)
		err := p.run(ctx, hard)
		switch {
		case ctx.Err() != nil && errors.Is(err, net.ErrClosed): // the part before it took its listener along
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", p.name, err)
		case ctx.Err() == nil:
			return fmt.Errorf("%s: ended by itself", p.name)
		}
		return nil
	})
	return r
}

// stopInOrder waits for a reason to stop, then stops the parts one by one.
func (g *Gateway) stopInOrder(hard context.Context, runners []*runner) {
	g.phase.CompareAndSwap(starting, serving) // unless Drain was quicker
	g.logListening()
	select {
	case <-g.draining:
		g.waitForCalls(hard)
	case <-hard.Done():
	}
	g.beginDrain()
	g.logger.Info("stopping")
	for _, r := range runners {
		r.cancel()
		<-r.done
		g.logger.Debug("part stopped", "part", r.name)
	}
	g.proxy.settings.Load().pool.closeIdle()
	g.logger.Info("stopped")
}

// Drain begins an orderly stop: /readyz answers 503, the Calls plugin is told
// to go elsewhere, new participants are refused. When the last one has left, or
// drain.timeout has passed, the parts stop and Run returns nil. It returns at
// once and may be called more than once.
func (g *Gateway) Drain() {
	g.drain.Do(func() {
		g.beginDrain()
		close(g.draining)
	})
}

// DrainLimit is how long Run can take to return after Drain.
func (g *Gateway) DrainLimit() time.Duration {
	d := g.config().Drain
	return d.Timeout + d.WebsocketSpread + requestLimit + time.Minute
}

func (g *Gateway) beginDrain() {
	g.phase.Store(stopping)
	if g.sfu != nil {
		g.rtcd.Drain()
		g.sfu.Drain()
	}
}

// waitForCalls returns when no call is left, drain.timeout has passed, or hard
// has ended.
func (g *Gateway) waitForCalls(hard context.Context) {
	if g.sfu == nil {
		return
	}
	limit := g.config().Drain.Timeout
	g.logger.Info("draining", "sessions", g.sfu.Count(), "timeout", limit)
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(callPoll)
	defer tick.Stop()
	for g.sfu.Count() > 0 {
		select {
		case <-hard.Done():
			return
		case <-late.C:
			g.logger.Warn("drain timeout: ending calls", "sessions", g.sfu.Count())
			return
		case <-tick.C:
		}
	}
}

// dismissTunnels closes the WebSockets to Mattermost that are open now.
func (g *Gateway) dismissTunnels(hard context.Context) {
	g.proxy.tunnels.dismiss(hard, g.config().Drain.WebsocketSpread)
}

// endTunnels closes those that have been opened since, all at once: nothing else
// is served any more.
func (g *Gateway) endTunnels(hard context.Context) { g.proxy.tunnels.end(hard, 0) }

// shut lets nobody in any more, and those who stand in the door pass.
func (g *Gateway) shut(hard context.Context) {
	limit, cancel := context.WithTimeout(hard, shutLimit)
	defer cancel()
	g.port.Shut(limit)
	if g.beside != nil {
		g.beside.Shut(limit)
	}
	// A connection of HTTP/2 counts as idle, and is closed, until its first request
	// has come.
	select {
	case <-hard.Done():
	case <-time.After(firstRequest):
	}
}

func (g *Gateway) config() Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cfg
}

func (g *Gateway) logListening() {
	a := g.Addrs()
	g.logger.Info("serving", "domain", g.config().Domain, "https", a.HTTPS, "http", a.HTTP, "udp", a.UDP,
		"media_udp", a.MediaUDP, "media_tcp", a.MediaTCP, "api", a.API, "admin", a.Admin, "commands", a.Commands)
}
