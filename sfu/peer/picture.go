package peer

import "time"

// freezeAfter is how much longer than usual a picture may take before it counts
// as frozen, as in the webrtc-stats of browsers (freezeCount).
const freezeAfter = 150 * time.Millisecond

// A screening follows what a decoder could have shown of a video track. A
// picture counts when its last packet has come and none has been missing since
// the last key frame.
type screening struct {
	broken bool
	whole  uint64 // what meter.Lost was when nothing was missing
	usual  float64
}

// picture looks at a packet that the meter has added: whether it begins a key
// frame, ends a picture, and is measured.
func (m *meter) picture(keyFrame, last, measured bool, arrived int64) {
	s := &m.screening
	if keyFrame {
		s.whole = m.Lost
	}
	s.broken = m.Lost > s.whole
	if !last || s.broken {
		return
	}
	took := time.Duration(arrived - m.LastPicture)
	first := m.LastPicture == 0
	m.LastPicture = arrived
	if first {
		return
	}
	if s.usual > 0 && float64(took) > max(3*s.usual, s.usual+float64(freezeAfter)) {
		if measured {
			m.Freezes++
			m.Frozen += took
		}
		return
	}
	if s.usual == 0 {
		s.usual = float64(took)
	}
	s.usual += (float64(took) - s.usual) / 16
}
