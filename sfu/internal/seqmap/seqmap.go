// Package seqmap renumbers packets of several sources so that a receiver takes
// them for one stream: sequence numbers, timestamps and VP8 picture numbers go
// on without a gap when the source changes.
//
//	source l   10 11 12 .  .  .  .       88 89
//	source h            70 71 .  73 74
//	            │  │  │  │  │     │  │    │  │
//	receiver   10 11 12 13 14 .. 16 17   18 19
//
// A gap within a source stays a gap (the receiver asks for the packet again, and
// gets it if it arrives late). Packets of our own can be put in between.
package seqmap

// kept is how many stretches are remembered for packets that come late: a switch
// and a few insertions, all within the second in which a packet is still wanted.
const kept = 8

// A Position is what numbers a packet. Picture (15 or 7 bits) and Base (VP8's
// TL0PICIDX) are 0 where a stream has none.
type Position struct {
	Seq     uint16
	Time    uint32
	Picture uint16
	Base    uint8
}

// A stretch is a run of packets of one source that are moved by the same amount.
type stretch struct {
	source      int
	first, last uint16 // sequence numbers of the source; last is the newest so far
	move        Position
}

// A Map renumbers for one receiver. The zero Map is empty: the first Switch
// begins with the source's own numbers. It allocates nothing and is not safe for
// concurrent use.
type Map struct {
	stretches [kept]stretch // ring; n-1 is the current one
	n         int
	newest    Position // the packet with the highest number sent so far
}

func (m *Map) current() *stretch { return &m.stretches[(m.n-1)%kept] }

// Newest returns the position of the packet with the highest number given out.
func (m *Map) Newest() Position { return m.newest }

// Switch makes source the one that is sent from its packet at in on, which has to
// begin a key frame. elapsed is the time since the newest packet in units of the
// RTP clock; at least 1 is taken. Call Map for the packet itself.
func (m *Map) Switch(source int, in Position, elapsed uint32) {
	move := Position{}
	if m.n == 0 {
		m.newest = Position{Seq: in.Seq - 1, Time: in.Time, Picture: in.Picture - 1, Base: in.Base - 1}
	} else {
		move = Position{
			Seq:     m.newest.Seq + 1 - in.Seq,
			Time:    m.newest.Time + max(elapsed, 1) - in.Time,
			Picture: m.newest.Picture + 1 - in.Picture,
			Base:    m.newest.Base + 1 - in.Base,
		}
	}
	m.push(stretch{source: source, first: in.Seq, last: in.Seq - 1, move: move})
}

func (m *Map) push(s stretch) {
	m.n++
	if m.n >= 2*kept {
		m.n -= kept // the ring stays where it is
	}
	*m.current() = s
}

// Map renumbers one packet. ok is false if it does not belong: it is of another
// source, older than the switch to this one, or older than what is remembered.
func (m *Map) Map(source int, in Position) (out Position, ok bool) {
	for i := range min(m.n, kept) {
		s := &m.stretches[(m.n-1-i)%kept]
		if s.source != source || before(in.Seq, s.first) || i > 0 && before(s.last, in.Seq) {
			continue
		}
		out = Position{Seq: in.Seq + s.move.Seq, Time: in.Time + s.move.Time, Picture: in.Picture + s.move.Picture, Base: in.Base + s.move.Base}
		if i == 0 && !before(in.Seq, s.last) {
			s.last, m.newest = in.Seq, out
		}
		return out, true
	}
	return Position{}, false
}

// Insert reserves n sequence numbers behind the newest packet for packets of our
// own, which share its timestamp, and returns the first of them. There must
// have been a Switch.
func (m *Map) Insert(n uint16) (first uint16) {
	s := *m.current()
	first = m.newest.Seq + 1
	m.newest.Seq += n
	s.first, s.move.Seq = s.last+1, s.move.Seq+n
	m.push(s)
	return first
}

// before reports whether sequence number a comes before b (RFC 1982).
func before(a, b uint16) bool { return int16(a-b) < 0 }
