package peer

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// stampSize is the length of a stamp: magic, source, sequence (4 bytes each),
// nanoseconds since 1970 (8), measured (1).
const stampSize = 21

// stampMagic begins a stamp, so that foreign packets are told apart.
const stampMagic = 0x53_61_6c_79

// A stamp is the last part of every payload a Source makes. Opus and video
// decoders alike ignore it there.
type stamp struct {
	source   uint32 // random, so that a new source on an old SSRC is noticed
	sequence uint32 // counts the packets really sent
	sent     int64  // nanoseconds since 1970, of the sender's clock
	measured bool
}

// put writes the stamp into the last stampSize bytes of payload.
func (s stamp) put(payload []byte) {
	b := payload[len(payload)-stampSize:]
	binary.BigEndian.PutUint32(b, stampMagic)
	binary.BigEndian.PutUint32(b[4:], s.source)
	binary.BigEndian.PutUint32(b[8:], s.sequence)
	binary.BigEndian.PutUint64(b[12:], uint64(s.sent))
	b[20] = 0
	if s.measured {
		b[20] = 1
	}
}

// readStamp finds the stamp at the end of a packet or payload.
func readStamp(b []byte) (stamp, bool) {
	if len(b) < stampSize {
		return stamp{}, false
	}
	b = b[len(b)-stampSize:]
	if binary.BigEndian.Uint32(b) != stampMagic {
		return stamp{}, false
	}
	return stamp{
		source:   binary.BigEndian.Uint32(b[4:]),
		sequence: binary.BigEndian.Uint32(b[8:]),
		sent:     int64(binary.BigEndian.Uint64(b[12:])),
		measured: b[20] == 1,
	}, true
}

// A Window is the time during which packets are measured. Sources mark what
// they send while it is open, and tracks count the marked packets whenever they
// arrive, so that what is on its way when the window closes is not lost to the
// statistics. The zero Window is closed.
type Window struct{ open atomic.Bool }

// Open begins to mark packets.
func (w *Window) Open() { w.open.Store(true) }

// Close ends marking. Wait for the packets on their way before reading counts.
func (w *Window) Close() { w.open.Store(false) }

// marks reports whether packets sent now are measured; with no window all are.
func (w *Window) marks() bool { return w == nil || w.open.Load() }

// now is the sender's and receiver's clock.
func now() int64 { return time.Now().UnixNano() }
