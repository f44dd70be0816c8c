package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// tunnels is the set of open WebSockets. They outlive http.Server.Shutdown, so
// somebody has to know them.
type tunnels struct {
	metrics  *metrics
	logger   *slog.Logger // nil: tells nothing
	standing crowd

	mu   sync.Mutex // guards the following
	live map[*tunnel]struct{}
}

func newTunnels(m *metrics) *tunnels {
	return &tunnels{metrics: m, live: map[*tunnel]struct{}{}}
}

func (s *tunnels) add(t *tunnel) {
	s.mu.Lock()
	s.live[t] = struct{}{}
	s.mu.Unlock()
	s.standing.enter()
	s.metrics.wsOpened.Inc()
	s.metrics.wsOpen.Inc()
}

func (s *tunnels) remove(t *tunnel) {
	s.mu.Lock()
	delete(s.live, t)
	s.mu.Unlock()
	s.metrics.wsOpen.Dec()
	s.metrics.wsClosed.WithLabelValues(t.reason()).Inc()
	if s.logger != nil && t.node != nil {
		t.visit.tell(s.logger, t.reason(), t.node.name)
	}
	s.standing.leave()
}

// count is how many tunnels stand.
func (s *tunnels) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// to lists the tunnels to u, or all if u is nil.
func (s *tunnels) to(u *upstream) []*tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*tunnel, 0, len(s.live))
	for t := range s.live {
		if u == nil || t.node == u {
			all = append(all, t)
		}
	}
	return all
}

// end closes all tunnels, evenly over spread so that the clients do not come
// back in one rush; at once when hard ends. It returns when they are gone.
func (s *tunnels) end(hard context.Context, spread time.Duration) {
	s.dismiss(hard, spread)
	grace, cancel := graceful(hard, 3*goodbyeLimit)
	defer cancel()
	if s.standing.wait(grace) {
		return
	}
	for _, t := range s.to(nil) {
		t.cut()
	}
}

// dismiss begins to close the tunnels that stand now, in the same way.
func (s *tunnels) dismiss(hard context.Context, spread time.Duration) {
	all := s.to(nil)
	begin := time.Now()
	for i, t := range all {
		due := begin.Add(spread * time.Duration(i+1) / time.Duration(len(all)))
		select {
		case <-hard.Done():
		case <-time.After(time.Until(due)):
		}
		t.end(endedByDrain)
	}
}
