package turn

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// sharedFrom is from how many addresses a credential must be used to be
	// counted as shared. A phone on the road has a handful in a call.
	sharedFrom = 8

	maxWatched = 4096      // credentials watched at once
	maxSources = 64        // addresses remembered of each
	watchFor   = time.Hour // after its last allocation a credential is forgotten
)

// A watch notices credentials that allocate from many addresses, which one
// person's do not: they have leaked or are being sold. It refuses nothing, for
// quotas do. Its memory is bounded; when there are too many credentials some are
// forgotten.
type watch struct {
	mu    sync.Mutex // guards the following
	users map[string]*watched
}

type watched struct {
	sources map[netip.Addr]struct{}
	last    time.Time
}

func newWatch() *watch { return &watch{users: make(map[string]*watched)} }

// saw notes an allocation. It returns from how many addresses (IPv4, or /64)
// the credential has been used by now, and whether this one is new.
func (w *watch) saw(username string, from netip.Addr, now time.Time) (sources int, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[username]
	if u == nil {
		w.makeRoom(now)
		u = &watched{sources: make(map[netip.Addr]struct{})}
		w.users[username] = u
	}
	u.last = now
	from = network(from)
	if _, known := u.sources[from]; known || len(u.sources) >= maxSources {
		return len(u.sources), false
	}
	u.sources[from] = struct{}{}
	return len(u.sources), true
}

// makeRoom forgets credentials if there are too many: old ones, or else any.
func (w *watch) makeRoom(now time.Time) {
	if len(w.users) < maxWatched {
		return
	}
	w.forgetOld(now)
	for name := range w.users {
		if len(w.users) < maxWatched {
			return
		}
		delete(w.users, name)
	}
}

func (w *watch) forgetOld(now time.Time) {
	for name, u := range w.users {
		if now.Sub(u.last) > watchFor {
			delete(w.users, name)
		}
	}
}

// most is the number of addresses of the credential that has most.
func (w *watch) most() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgetOld(time.Now())
	most := 0
	for _, u := range w.users {
		most = max(most, len(u.sources))
	}
	return float64(most)
}

// watchUse counts and reports a credential that turns out to be shared.
func (s *Server) watchUse(username string, from netip.Addr) {
	sources, fresh := s.watch.saw(username, from, time.Now())
	if !fresh || sources < sharedFrom {
		return
	}
	if sources == sharedFrom {
		s.metrics.shared.Inc()
	}
	s.report(slog.LevelWarn, "credential used from many addresses", "user", username, "addresses", sources)
}
