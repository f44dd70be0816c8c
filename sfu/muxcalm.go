package sfu

import (
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// calmAfter is how long nothing urgent must have been read until readers rest.
	calmAfter = time.Second
	// calmRest is how long they rest after each batch: the most by which the first
	// packet of a voice after silence everywhere is late, and what signs of life
	// wait at most.
	calmRest = 10 * time.Millisecond
)

// A calm moderates how often the readers wake up while all that comes are signs
// of life: ICE checks on paths that are known, RTCP without RTP, the pings and
// acknowledgements of data channels. Each wakes a dozen goroutines of its session
// one after the other, on a processor that has gone to sleep since the last;
// several at once cost much less. As soon as there is anything else anywhere
// (voice, a handshake, a check from a new address, TURN), no reader rests.
type calm struct{ urgent atomic.Int64 } // when something urgent was read, in ns since 1970

// after is called at the end of a batch, which had something urgent in it or not,
// and returns how long to rest now.
func (c *calm) after(urgent bool) time.Duration {
	now, last := time.Now().UnixNano(), c.urgent.Load()
	switch {
	case urgent:
		if now-last > int64(calmAfter)/10 { // all readers write here: not for each batch
			c.urgent.Store(now)
		}
	case now-last > int64(calmAfter):
		return calmRest
	}
	return 0
}

// urgent tells whether a datagram is more than a sign of life.
func (s *muxSocket) urgent(p []byte, from netip.AddrPort) bool {
	if len(p) > 0 && p[0] < 4 { // STUN: of a session, or on a new path, or for the TURN server
		return s.routes.get(from) == nil
	}
	return isUrgent(p)
}

// isUrgent is urgent of what comes on a path that is known.
func isUrgent(p []byte) bool {
	const application = 23 // begins a DTLS record that is no handshake and no alert (RFC 6347 §4.1)
	switch {
	case len(p) < 2 || p[0] < 4:
		return false
	case p[0]>>6 == 2: // RTP and RTCP (RFC 5761 §4)
		return p[1] < 192 || p[1] > 223
	}
	return p[0] != application
}
