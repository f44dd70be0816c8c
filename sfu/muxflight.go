package sfu

import (
	"encoding/binary"
	"sync"
	"time"
)

// DTLS handshake messages that begin a flight of the client (RFC 6347 §4.2.4).
const helloClient = 1

const (
	// firstHello is how long a ClientHello may go unanswered before it is sent
	// again: the first often comes before the participant's ICE agent is done, and
	// is lost. Browsers begin with 50 ms.
	firstHello = dtlsFlight
	// firstRepeat is that of the client's other flights. They are lost by accident
	// only, and repeating one too early costs: pion as DTLS server deals with one
	// repeated flight a second and delivers nothing meanwhile.
	firstRepeat = 500 * time.Millisecond
	// longestRepeat bounds the doubling.
	longestRepeat = 8 * time.Second
)

// A flightPace spaces out how often a DTLS client repeats what is not answered:
// the time doubles with each repetition (RFC 6347 §4.2.4.1), where the library's is
// always the same. The zero flightPace has seen nothing.
type flightPace struct {
	mu     sync.Mutex // guards the following
	client bool       // a ClientHello has been sent
	flight uint32     // type and number of the message that begins it
	wait   time.Duration
	next   time.Time // no repetition before
}

// due reports whether a datagram that begins with a handshake record is to be sent:
// always if it is not a repetition.
func (f *flightPace) due(p []byte, now time.Time) bool {
	const record = 13 // bytes of a record header; the epoch is at 3
	if len(p) < record+6 || p[3] != 0 || p[4] != 0 {
		return true
	}
	message := p[record:]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.client = f.client || message[0] == helloClient
	if !f.client {
		return true // a server answers what it is asked
	}
	if flight := uint32(message[0])<<16 | uint32(binary.BigEndian.Uint16(message[4:])); flight != f.flight || f.next.IsZero() {
		f.flight, f.wait = flight, firstRepeat
		if message[0] == helloClient {
			f.wait = firstHello
		}
		f.next = now.Add(f.wait)
		return true
	}
	if now.Before(f.next) {
		return false
	}
	f.wait = min(2*f.wait, longestRepeat)
	f.next = now.Add(f.wait)
	return true
}
