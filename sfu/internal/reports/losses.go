package reports

import (
	"slices"
	"time"
)

const (
	// missingMost is how many packets are asked for at a time: of a loss greater
	// than that a key frame is the better remedy, which the receivers ask for.
	missingMost = 256
	// firstAsk is how long a packet may be late before it is asked for, askAgain
	// the time between two requests, askFor how long it is worth asking: a second
	// is more than a jitter buffer waits.
	firstAsk = 15 * time.Millisecond
	askAgain = 80 * time.Millisecond
	askFor   = time.Second
)

// Losses knows which packets of a stream are missing. The zero Losses has seen
// nothing. It allocates nothing once it has seen a loss.
type Losses struct {
	begun   bool
	newest  uint16
	missing []missing // in the order of their numbers
	due     []uint16
}

type missing struct {
	seq       uint16
	next, end time.Time
}

// Push notes a packet.
func (l *Losses) Push(seq uint16, now time.Time) {
	if !l.begun {
		l.begun, l.newest = true, seq
		return
	}
	gap := int16(seq - l.newest)
	switch {
	case gap <= 0:
		if i := slices.IndexFunc(l.missing, func(m missing) bool { return m.seq == seq }); i >= 0 {
			l.missing = slices.Delete(l.missing, i, i+1)
		}
		return
	case int(gap)-1 > missingMost-len(l.missing):
		l.missing = l.missing[:0] // too much to repair
	default:
		for n := l.newest + 1; n != seq; n++ {
			l.missing = append(l.missing, missing{n, now.Add(firstAsk), now.Add(askFor)})
		}
	}
	l.newest = seq
}

// Missing reports whether anything is.
func (l *Losses) Missing() bool { return len(l.missing) > 0 }

// Due returns the packets to ask for now. The result is valid until the next call.
func (l *Losses) Due(now time.Time) []uint16 {
	l.due = l.due[:0]
	l.missing = slices.DeleteFunc(l.missing, func(m missing) bool { return !now.Before(m.end) })
	for i := range l.missing {
		if m := &l.missing[i]; !now.Before(m.next) {
			m.next = now.Add(askAgain)
			l.due = append(l.due, m.seq)
		}
	}
	return l.due
}
