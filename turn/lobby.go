package turn

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	challengeSlots = 4096

	// challengeRate and challengeBurst are the answers to one /32 or /64, per
	// second and at once. They are for the honest: an office of 500 behind one
	// address, where each client asks four times to join a call and, on two
	// interfaces, every ten seconds for its address, must not wait for its
	// retransmissions. (coturn's limit is 10 a second.) To a forged address
	// it is some 40 kB/s, and as much as a third of that the forger must send
	// himself.
	challengeRate  = 400
	challengeBurst = 2000

	// answerRate and answerBurst are the same for all networks together, so that
	// a flood from addresses made up costs neither our CPU nor our line more than
	// this: some 2 MB/s. Whoever asks meanwhile asks again, or comes over TCP.
	answerRate  = 20000
	answerBurst = 20000
)

// A bucket is a token bucket; the zero value is full.
type bucket struct {
	tokens float64
	seen   time.Time
}

// take spends one token of a bucket that gets rate of them per second and
// holds burst.
func (b *bucket) take(rate, burst float64, now time.Time) bool {
	if b.seen.IsZero() {
		b.tokens = burst
	} else if passed := now.Sub(b.seen).Seconds(); passed > 0 {
		b.tokens = min(burst, b.tokens+passed*rate)
	}
	b.seen = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// challenges limits the answers to unproven UDP sources, so that nobody can
// use us to flood an address he forges. Its memory is a fixed table: networks
// that fall into the same slot share a budget.
type challenges struct {
	seed        maphash.Seed
	rate, burst float64 // of one network

	mu    sync.Mutex // guards the following
	all   bucket
	slots [challengeSlots]bucket
}

func newChallenges() *challenges {
	return &challenges{seed: maphash.MakeSeed(), rate: challengeRate, burst: challengeBurst}
}

// allow spends one answer to the network of a. What a network may not have is
// not taken from the others.
func (c *challenges) allow(a netip.Addr, now time.Time) bool {
	i := maphash.Comparable(c.seed, network(a)) % challengeSlots
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[i].take(c.rate, c.burst, now) && c.all.take(answerRate, answerBurst, now)
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
