package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/gateway/admin"
)

var (
	errLastUpstream = errors.New("no other upstream would be left to answer; with -last it is drained all the same")
	errAllDrained   = errors.New("every upstream is drained")
)

// drains is the upstreams that commands have drained. The mark is in the upstream,
// so a reload that keeps an upstream keeps it.
type drains struct {
	changed chan struct{} // holds one element if watch has something to do

	mu sync.Mutex // held to mark an upstream
}

// setDrained marks the upstream that is called name. A drained one gets nothing new
// and loses its WebSockets. Only with last may it be the last that was not.
func (p *proxy) setDrained(name string, drained, last bool) error {
	p.drains.mu.Lock()
	defer p.drains.mu.Unlock()
	all := p.settings.Load().pool.upstreams
	var found *upstream
	others := 0
	var names []string
	for _, u := range all {
		names = append(names, u.url.String())
		if u.is(name) {
			found = u
		} else if !u.drained.Load() {
			others++
		}
	}
	switch {
	case found == nil:
		return fmt.Errorf("%q is not an upstream: there are %s", name, strings.Join(names, ", "))
	case drained && others == 0 && !last:
		return fmt.Errorf("%s: %w", name, errLastUpstream)
	}
	if found.drained.Swap(drained) != drained {
		p.logger.Info("upstream drained by command", "upstream", found.name, "drained", drained)
		p.tellMaintenance()
		select {
		case p.drains.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// tellMaintenance tells the administrator if nobody is left to ask, which a reload
// may bring about, too.
func (p *proxy) tellMaintenance() {
	if p.settings.Load().pool.allDrained() {
		p.logger.Warn("every upstream is drained: users are told that Mattermost is under maintenance")
	}
}

// allDrained reports whether nobody is left to ask, by command.
func (p *pool) allDrained() bool {
	return !slices.ContainsFunc(p.upstreams, func(u *upstream) bool { return !u.drained.Load() })
}

// is reports whether somebody who writes name means u.
func (u *upstream) is(name string) bool {
	return name == u.name || strings.TrimSuffix(name, "/") == strings.TrimSuffix(u.url.String(), "/")
}

// emptyDrained begins to close the WebSockets of the upstreams that are drained, in
// goroutines of wait that end with ctx. It may be called again at any time.
func (p *proxy) emptyDrained(ctx context.Context, s *settings, wait *sync.WaitGroup) {
	for _, u := range s.pool.upstreams {
		if u.drained.Load() && u.emptied.CompareAndSwap(false, true) {
			wait.Go(func() {
				defer u.emptied.Store(false)
				p.empty(ctx, u, s.spread)
			})
		}
	}
}

// empty closes the WebSockets that u has now, evenly over spread, unless u is put
// back meanwhile.
func (p *proxy) empty(ctx context.Context, u *upstream, spread time.Duration) {
	all := p.tunnels.to(u)
	begin := time.Now()
	for i, t := range all {
		due := begin.Add(spread * time.Duration(i+1) / time.Duration(len(all)))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		if !u.drained.Load() {
			return
		}
		t.end(endedByDrain)
	}
}

// upstreams is the status of those in use.
func (p *proxy) upstreams() []admin.Upstream {
	var all []admin.Upstream
	for _, u := range p.settings.Load().pool.upstreams {
		word, why := u.state()
		all = append(all, admin.Upstream{
			URL: u.url.String(), State: word, Up: u.level() == healthy, Error: why,
			Requests: int(u.busy.Load()), WebSockets: int(u.open.Load()),
		})
	}
	return all
}
