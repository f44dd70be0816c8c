// Package packetcache keeps what is needed to send packets of a video track
// again: one copy of each payload, shared by all receivers, and for each receiver
// a short record of how the packet went to it.
//
//	track ──> Cache: the payloads of the last packets, by Ref
//	                      ^
//	receiver a ──> Log ───┤  sequence number ─> Ref, numbers
//	receiver b ──> Log ───┘
package packetcache

import (
	"sync"
	"time"
)

// A Ref names a packet of a Cache. The zero Ref names none.
type Ref uint64

// A Cache is a ring of the last payloads of one track. It is safe for concurrent
// use. The zero Cache keeps nothing; New makes one.
type Cache struct {
	mu      sync.Mutex // guards the following
	bytes   []byte     // a ring; a payload is never split
	size    int        // of bytes, which are allocated by the first Put
	at      int        // where the next one goes
	entries []entry    // a ring, by Ref
	last    Ref
	oldest  Ref // those before are overwritten
}

// An entry is where a payload is.
type entry struct{ at, n int }

// New makes a Cache of so many bytes and packets, which takes its memory with the
// first packet.
func New(bytes, packets int) *Cache {
	return &Cache{size: bytes, entries: make([]entry, packets), oldest: 1}
}

// Put copies a payload into the cache and returns its name. A payload that does
// not fit at all has none.
func (c *Cache) Put(payload []byte) Ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(payload) > c.size || len(c.entries) == 0 {
		return 0
	}
	if c.bytes == nil {
		c.bytes = make([]byte, c.size)
	}
	end := c.at + len(payload)
	if end > len(c.bytes) {
		c.forget(c.at, len(c.bytes)) // what lies behind is older than what is overwritten next
		c.at, end = 0, len(payload)
	}
	c.forget(c.at, end)
	copy(c.bytes[c.at:], payload)
	c.last++
	if c.last-c.oldest >= Ref(len(c.entries)) {
		c.oldest = c.last - Ref(len(c.entries)) + 1
	}
	c.entries[c.last%Ref(len(c.entries))] = entry{c.at, len(payload)}
	c.at = end
	return c.last
}

// forget drops the oldest payloads as far as they lie between two offsets. An
// empty one lies nowhere, and must not hide those behind it.
func (c *Cache) forget(from, to int) {
	for ; c.oldest <= c.last; c.oldest++ {
		if e := c.entries[c.oldest%Ref(len(c.entries))]; e.n > 0 && (e.at >= to || e.at+e.n <= from) {
			return
		}
	}
}

// Get appends a copy of a payload to dst. ok is false if it is gone; a nil Cache
// has none.
func (c *Cache) Get(ref Ref, dst []byte) (payload []byte, ok bool) {
	if c == nil {
		return dst, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ref < c.oldest || ref > c.last || ref == 0 {
		return dst, false
	}
	e := c.entries[ref%Ref(len(c.entries))]
	return append(dst, c.bytes[e.at:e.at+e.n]...), true
}

// logLength is how many packets a Log remembers, a power of two: about two
// seconds of a screen share at 3 Mbit/s.
const logLength = 512

// A Sent is how a packet went to one receiver: everything that, with the payload,
// makes the very same packet again.
type Sent struct {
	Ref      Ref    // in the Cache of Layer; 0 = nothing to send again
	Time     uint32 // RTP timestamp
	Seq      uint16
	Number   uint16 // transport-wide sequence number, if Numbered
	Picture  uint16 // VP8's numbers, as sent
	Base     uint8
	Layer    uint8 // which of the caches of the source
	Marker   bool
	Numbered bool
	Again    time.Time // when it was last sent again; zero = never
}

// A Log remembers the last packets that went to one receiver. The zero Log is
// empty and takes its memory with the first packet. It is not safe for concurrent
// use.
type Log struct{ ring []Sent }

// Memory is how many of the last sequence numbers a Log can know.
const Memory = logLength

// Add notes a packet.
func (l *Log) Add(s Sent) {
	if l.ring == nil {
		l.ring = make([]Sent, logLength)
	}
	l.ring[s.Seq%logLength] = s
}

// Repeated notes that a packet which Find knows was sent again.
func (l *Log) Repeated(seq uint16, now time.Time) { l.ring[seq%logLength].Again = now }

// Find returns the packet that was sent under a sequence number.
func (l *Log) Find(seq uint16) (s Sent, ok bool) {
	if l.ring == nil {
		return s, false
	}
	s = l.ring[seq%logLength]
	return s, s.Seq == seq && s.Ref != 0
}
