package turn

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	challengeSlots = 4096
	// challengeRate is per second and /32 or /64. Our answers are hardly larger
	// than what provokes them, so this many to a forged address (about 10 kB/s)
	// hurt nobody, while an office of hundreds behind one address, each phone
	// asking several times for one call, must not wait for its retransmissions.
	challengeRate  = 100
	challengeBurst = 500
)

// challenges limits the answers to unproven UDP sources, so that nobody can
// use us to flood an address he forges. Its memory is a fixed table: networks
// that fall into the same slot share a budget.
type challenges struct {
	seed maphash.Seed

	mu    sync.Mutex // guards the following
	slots [challengeSlots]struct {
		tokens float64
		seen   time.Time
	}
}

func newChallenges() *challenges { return &challenges{seed: maphash.MakeSeed()} }

// allow spends one answer to the network of a.
func (c *challenges) allow(a netip.Addr, now time.Time) bool {
	i := maphash.Comparable(c.seed, network(a)) % challengeSlots
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.slots[i]
	if s.seen.IsZero() {
		s.tokens = challengeBurst
	} else if passed := now.Sub(s.seen).Seconds(); passed > 0 {
		s.tokens = min(challengeBurst, s.tokens+passed*challengeRate)
	}
	s.seen = now
	if s.tokens < 1 {
		return false
	}
	s.tokens--
	return true
}

// network returns the part of an address one party is likely to control.
func network(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

const (
	lobbySize       = 8192 // connections without an allocation, all together
	lobbyPerNetwork = 2048 // and from one address: an office of 500 sits behind one, four connections each
)

// A lobby counts the connections that have not allocated yet, in all and by
// network; the zero Addr counts in all only. Those that have allocated are
// limited by the quota of their user instead: many people share one address.
type lobby struct {
	mu       sync.Mutex // guards the following
	total    int
	networks map[netip.Addr]int
}

func newLobby() *lobby { return &lobby{networks: make(map[netip.Addr]int)} }

// enter counts a new connection of a network and tells whether there was room
// for it.
func (l *lobby) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= lobbySize || a.IsValid() && l.networks[a] >= lobbyPerNetwork {
		return false
	}
	l.total++
	l.networks[a]++
	return true
}

// rejoin counts a connection whose allocation ended; there is room for it.
func (l *lobby) rejoin(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	l.networks[a]++
}

func (l *lobby) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.networks[a]--; l.networks[a] <= 0 {
		delete(l.networks, a)
	}
}
