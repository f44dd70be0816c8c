package gateway

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// offer has do ask one upstream after the other, as choose names them, until one
// has answered: do returned nil. An error for which again returns false ends it.
// When there is nobody left to ask, it waits and begins anew, up to hold; but not if
// all are drained: a restart takes seconds, maintenance as long as it takes.
func (p *pool) offer(ctx context.Context, choose func(tried []*upstream) *upstream, again func(error) bool, do func(*upstream) error) error {
	end := time.Now().Add(p.hold)
	waits := false
	defer func() {
		if waits && p.metrics != nil {
			p.metrics.heldNow.Dec()
		}
	}()
	var tried []*upstream
	var failure error = errAllDown
	for {
		for u := choose(tried); u != nil; u = choose(tried) {
			err := do(u)
			if err == nil || ctx.Err() != nil || !again(err) {
				return err
			}
			failure, tried = err, append(tried, u)
			if m := u.meter.Load(); m != nil {
				m.retries.Inc()
			}
		}
		if p.allDrained() {
			if p.metrics != nil {
				p.metrics.maintained.Inc()
			}
			return errAllDrained
		}
		wait := min(retryEvery, time.Until(end))
		if wait <= 0 {
			return failure
		}
		if !waits && p.metrics != nil {
			waits = true
			p.metrics.held.Inc()
			p.metrics.heldNow.Inc()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		tried = tried[:0]
	}
}

// best lists, in all, the upstreams of the best health there is among those not
// tried and not drained, all of one.
func (p *pool) best(tried, all []*upstream) []*upstream {
	level := away
	for _, u := range p.upstreams {
		l := u.level()
		if l > level || u.drained.Load() || slices.Contains(tried, u) {
			continue
		}
		if l < level {
			level, all = l, all[:0]
		}
		all = append(all, u)
	}
	return all
}

// claim counts one more thing at u and reports whether the caller may have u.
// While requests wait, many of them, for one that is away, only one of them dials
// it at a time.
func (p *pool) claim(u *upstream, count *atomic.Int32) bool {
	if p.hold > 0 && u.health.Load() == away && !u.myTurn() {
		return false
	}
	count.Add(1)
	if u.drained.Load() { // since it was looked at: who drains it and sees a count of 0 may rely on it
		count.Add(-1)
		return false
	}
	return true
}

// inTurn chooses the next upstream for a request, and counts it as busy: each gets
// the same share, also of what one that is down leaves. It returns nil if there is
// none.
func (p *pool) inTurn(tried []*upstream) *upstream {
	var room [8]*upstream
	for all := p.best(tried, room[:0]); len(all) > 0; {
		i := int(p.next.Add(1) % uint32(len(all)))
		if u := all[i]; p.claim(u, &u.busy) {
			return u
		}
		all = slices.Delete(all, i, i+1)
	}
	return nil
}

// leastOpen chooses the upstream with the fewest WebSockets and counts one more
// there. It returns nil if there is none.
func (p *pool) leastOpen(tried []*upstream) *upstream {
	p.choosing.Lock() // or many that come at once would all find the same one
	defer p.choosing.Unlock()
	var room [8]*upstream
	for all := p.best(tried, room[:0]); len(all) > 0; {
		first := int(p.next.Add(1) % uint32(len(all)))
		least := first
		for n := range all { // from the one whose turn it is, so that equals share
			if i := (first + n) % len(all); all[i].open.Load() < all[least].open.Load() {
				least = i
			}
		}
		if u := all[least]; p.claim(u, &u.open) {
			return u
		}
		all = slices.Delete(all, least, least+1)
	}
	return nil
}

// webSocket has do open a WebSocket to the upstream with the fewest of them; to
// another one if it cannot be reached or breaks off before it answers; and waits up
// to hold while none can be reached. do returns nil as soon as the upstream has
// answered anything.
//
// The WebSocket counts as open from the moment do is called. When it has ended, or
// was refused, leave must be called, and may be called again. After an error leave
// is nil.
func (p *pool) webSocket(ctx context.Context, do func(*upstream) error) (leave func(), err error) {
	resends := 0
	again := func(err error) bool {
		resends++
		return isDial(err) || resends <= maxResends && !timedOut(err)
	}
	var on *upstream
	err = p.offer(ctx, p.leastOpen, again, func(u *upstream) error {
		err := do(u)
		if err == nil || ctx.Err() == nil {
			u.learn(err)
		}
		if err != nil {
			u.open.Add(-1)
		}
		on = u
		return err
	})
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { on.open.Add(-1) }), nil
}
