package gateway

import (
	"fmt"
	"sync/atomic"
	"time"
)

// aliveLimit is how long the parts have to answer, all together. It is for a lock
// that is never released; nothing that they are asked takes a millisecond.
const aliveLimit = 4 * time.Second

// A pulse asks the parts, one caller at a time: those who ask while one hangs
// leave no more of them behind.
type pulse struct {
	turn  chan struct{}
	asked atomic.Pointer[string] // whose answer is awaited
}

func newPulse() *pulse { return &pulse{turn: make(chan struct{}, 1)} }

// A question has an answer that a part gives unless it is locked up.
type question struct {
	part string
	ask  func()
}

// alive returns an error if a part does not answer in time. That does not mend
// itself: somebody has to restart the process.
func (g *Gateway) alive() error { return g.pulse.take(g.questions(), aliveLimit) }

func (g *Gateway) questions() []question {
	all := []question{
		{"configuration", func() { g.config() }},
		{"proxy", func() { g.proxy.tunnels.count() }},
		{"certificates", func() { g.certs.Status() }},
	}
	if g.turn != nil {
		all = append(all, question{"TURN", func() { g.turn.Status() }})
	}
	if g.sfu != nil {
		all = append(all, question{"media server", func() { g.sfu.Count() }})
	}
	return all
}

func (p *pulse) take(all []question, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case p.turn <- struct{}{}:
	case <-late.C:
		return p.fault()
	}
	done := make(chan struct{})
	go func() {
		for _, q := range all {
			p.asked.Store(&q.part)
			q.ask()
		}
		<-p.turn
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-late.C:
		return p.fault()
	}
}

func (p *pulse) fault() error { return fmt.Errorf("no answer from: %s", *p.asked.Load()) }
