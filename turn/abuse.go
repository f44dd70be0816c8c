package turn

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sharedFrom is from how many addresses a credential must be used to be
	// counted as shared. A phone on the road has a handful in a call.
	sharedFrom = 8

	// astrayFrom is how many bytes nobody must have answered for a credential to be
	// told of: clients check a dozen ways, with a hundred bytes each time.
	astrayFrom = 1 << 20

	maxWatched  = 4096      // credentials watched at once
	maxSources  = 64        // addresses remembered of each
	maxSuspects = 20        // credentials told of
	watchFor    = time.Hour // after its last allocation a credential is forgotten
)

// A watch notices credentials that allocate from many addresses, which one
// person's do not: they have leaked or are being sold; and those by which much is
// relayed that nobody answers. It refuses nothing, for quotas do. Its memory is
// bounded; when there are too many credentials some are forgotten.
type watch struct {
	mu    sync.Mutex // guards the following, and users' fields that are not atomic
	users map[string]*watched
}

// A watched is what is known of a credential. Its allocations keep it.
type watched struct {
	unanswered atomic.Int64 // bytes

	sources map[netip.Addr]struct{}
	held    int       // allocations
	last    time.Time // when one began or ended
}

// A Suspect is a credential that is used as it should not be. What is known is of
// the time since it was forgotten, an hour after its last allocation.
type Suspect struct {
	Credential  string    `json:"credential"`       // the user name, with its expiry
	Addresses   int       `json:"addresses"`        // it has allocated from: IPv4, or /64; counted up to 64
	Unanswered  int64     `json:"unanswered_bytes"` // relayed to a media server that had said nothing for 30 s
	Allocations int       `json:"allocations"`      // it holds
	Last        time.Time `json:"last"`             // when one of them began or ended
}

func newWatch() *watch { return &watch{users: make(map[string]*watched)} }

// hold notes that a credential gets an allocation, which ends with release.
func (w *watch) hold(username string, now time.Time) (u *watched, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u = w.of(username, now)
	u.held++
	return u, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		u.held--
		u.last = time.Now()
	}
}

// of needs w.mu.
func (w *watch) of(username string, now time.Time) *watched {
	u := w.users[username]
	if u == nil {
		w.makeRoom(now)
		u = &watched{sources: make(map[netip.Addr]struct{})}
		w.users[username] = u
	}
	u.last = now
	return u
}

// saw notes where an allocation is from. It returns from how many addresses (IPv4,
// or /64) the credential has been used by now, and whether this one is new.
func (w *watch) saw(username string, from netip.Addr, now time.Time) (sources int, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.of(username, now)
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
		if u.held == 0 && now.Sub(u.last) > watchFor {
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

// suspects returns those that stand out, the worst first: as many of those with
// many addresses as of those with much that nobody answered, if there are.
func (w *watch) suspects() []Suspect {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgetOld(time.Now())
	var all []Suspect
	for name, u := range w.users {
		s := Suspect{Credential: name, Addresses: len(u.sources), Unanswered: u.unanswered.Load(), Allocations: u.held, Last: u.last}
		if s.Addresses >= sharedFrom || s.Unanswered >= astrayFrom {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(b.Unanswered, a.Unanswered), b.Addresses-a.Addresses)
	})
	if len(all) > maxSuspects {
		slices.SortStableFunc(all[maxSuspects/2:], func(a, b Suspect) int { return b.Addresses - a.Addresses })
		all = all[:maxSuspects]
	}
	return all
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
