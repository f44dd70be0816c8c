package gateway

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// The size of a table of buckets: 16,384 clients in half a megabyte.
const (
	bucketSets = 2048
	bucketWays = 8
)

// A buckets is a table of token buckets, one for each client address that has
// used some of its allowance lately. It has a fixed size: strangers with many
// addresses cannot make it grow. Where it is full, the bucket that is nearest to
// being full again gives way, which loses least; the one that is nearly empty,
// which is whom the limit is for, stays.
//
// A bucket is one number, the time at which it will be full (as in the generic
// cell rate algorithm), so that a bucket nobody takes from needs no care.
type buckets struct {
	seed maphash.Seed
	sets [bucketSets]bucketSet
}

type bucketSet struct {
	mu sync.Mutex // guards the following
	of [bucketWays]bucket
}

type bucket struct {
	client [16]byte
	full   time.Duration // when it will be; in the past: it is
}

// An allowance is what a bucket holds. The zero allowance has no bounds.
type allowance struct {
	every time.Duration // in which one token comes
	most  time.Duration // in which an empty bucket fills up
}

// newAllowance is for rate tokens a second and burst at once.
func newAllowance(rate, burst int) allowance {
	if rate == 0 {
		return allowance{}
	}
	every := time.Second / time.Duration(rate)
	return allowance{every: every, most: every * time.Duration(burst)}
}

func newBuckets() *buckets { return &buckets{seed: maphash.MakeSeed()} }

// take takes one token from the bucket of a client, now being the time since
// some fixed moment. If there is none, wait is how long it takes to come.
func (b *buckets) take(client netip.Addr, of allowance, now time.Duration) (wait time.Duration, ok bool) {
	if of.every == 0 {
		return 0, true
	}
	key := client.As16()
	set := &b.sets[maphash.Bytes(b.seed, key[:])%bucketSets]
	set.mu.Lock()
	defer set.mu.Unlock()
	mine := set.find(key)
	full := max(mine.full, now) + of.every
	if mine.client != key {
		full = now + of.every
	}
	if wait = full - of.most - now; wait > 0 {
		return wait, false
	}
	mine.client, mine.full = key, full
	return 0, true
}

// find returns the bucket of a client, or the one to make it of.
func (s *bucketSet) find(client [16]byte) *bucket {
	fullest := &s.of[0]
	for i := range s.of {
		b := &s.of[i]
		if b.client == client {
			return b
		}
		if b.full < fullest.full {
			fullest = b
		}
	}
	return fullest
}

// limitKey is what stands for a client in limits: its IPv4 address, or the /64
// of its IPv6 address, which one customer usually has whole.
func limitKey(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
