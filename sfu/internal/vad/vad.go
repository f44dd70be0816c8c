// Package vad tells from the audio levels of RTP packets (RFC 6464) whether
// somebody speaks. Its arithmetic is fixed by the rtcd protocol (§4.14), so that
// the speaking indicators of a Mattermost call move as its users know them.
package vad

import (
	"math"
	"time"
)

const (
	window     = 50              // levels looked at: one second of 20 ms packets
	onAbove    = 10              // deviation above which speech begins
	offBelow   = 4               // deviation below which it ends
	minimumOn  = 2 * time.Second // speech lasts at least so long
	maximumLvl = 127             // RFC 6464: -127 dBov, digital silence
)

// A Monitor follows the levels of one voice track. The zero Monitor is ready to
// use. It is not safe for concurrent use.
type Monitor struct {
	levels [window]uint8
	next   int // where the next level goes
	count  int // levels stored, at most window
	on     bool
	since  time.Time // when on became true
}

// Push adds the level of one packet, 0 (loudest) to 127 (silence), received at
// now. changed reports that on, the new state, differs from the one before.
func (m *Monitor) Push(level uint8, now time.Time) (on, changed bool) {
	if level > maximumLvl {
		level = maximumLvl
	}
	full := m.count == window // the decision begins with the level after the first full window
	m.levels[m.next] = level
	m.next = (m.next + 1) % window
	if !full {
		m.count++
		return m.on, false
	}
	switch dev := m.deviation(); {
	case !m.on && dev > onAbove:
		m.on, m.since = true, now
		return true, true
	case m.on && dev < offBelow && now.Sub(m.since) >= minimumOn:
		m.on = false
		return false, true
	}
	return m.on, false
}

// Reset forgets everything: a whole window is needed again.
func (m *Monitor) Reset() { *m = Monitor{} }

// deviation is the sample standard deviation of the window around its rounded
// mean, rounded.
func (m *Monitor) deviation() int {
	sum := 0
	for _, l := range m.levels {
		sum += int(l)
	}
	mean := int(math.Round(float64(sum) / window))
	squares := 0
	for _, l := range m.levels {
		d := int(l) - mean
		squares += d * d
	}
	return int(math.Round(math.Sqrt(float64(squares) / (window - 1))))
}
