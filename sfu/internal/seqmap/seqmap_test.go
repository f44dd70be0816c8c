package seqmap

import (
	"testing"
)

// send maps one packet of a source whose numbers all derive from n.
func send(m *Map, source int, n uint32) (Position, bool) {
	return m.Map(source, at(source, n))
}

// at gives each source numbers of its own, near their wraps.
func at(source int, n uint32) Position {
	return Position{Seq: 65530 + uint16(source)*1000 + uint16(n), Time: ^uint32(0) - 5000 + uint32(source)*1e6 + n*3000, Picture: 0x7FFE + uint16(source)*500 + uint16(n), Base: uint8(254 + uint32(source)*40 + n)}
}

func TestContinuousAcrossSwitches(t *testing.T) {
	var m Map
	m.Switch(0, at(0, 0), 99)
	last, ok := send(&m, 0, 0)
	if !ok || last != at(0, 0) {
		t.Fatalf("first packet %+v, want the source's own numbers %+v", last, at(0, 0))
	}
	source, n := 0, [3]uint32{1, 0, 0}
	for i := 1; i < 300_000; i++ {
		step := uint32(3000)
		if i%977 == 0 {
			source = (source + 1) % 3
			n[source] += 40 // what was not sent
			m.Switch(source, at(source, n[source]), 1234)
			step = 1234
		}
		got, ok := send(&m, source, n[source])
		want := Position{Seq: last.Seq + 1, Time: last.Time + step, Picture: last.Picture + 1, Base: last.Base + 1}
		if !ok || got != want {
			t.Fatalf("packet %d: %+v %v, want %+v", i, got, ok, want)
		}
		last = got
		n[source]++
	}
}

func TestGapsStayAndLatePacketsFillThem(t *testing.T) {
	var m Map
	m.Switch(0, at(0, 0), 0)
	send(&m, 0, 0)
	newest, _ := send(&m, 0, 3)
	if newest.Seq != at(0, 3).Seq {
		t.Fatalf("a gap was closed: %+v", newest)
	}
	m.Switch(1, at(1, 50), 90)
	first, _ := send(&m, 1, 50)
	if first.Seq != newest.Seq+1 {
		t.Fatalf("switch at %d, want %d", first.Seq, newest.Seq+1)
	}
	if late, ok := send(&m, 0, 2); !ok || late.Seq != newest.Seq-1 {
		t.Errorf("late packet of the old source: %+v %v, want number %d", late, ok, newest.Seq-1)
	}
	if p, ok := send(&m, 0, 4); ok {
		t.Errorf("packet of the old source after the switch became %+v", p)
	}
	if p, ok := send(&m, 1, 49); ok {
		t.Errorf("packet before the switch became %+v", p)
	}
	if m.Newest() != first {
		t.Errorf("newest %+v, want %+v", m.Newest(), first)
	}
}

func TestInsertedPacketsGetNumbersOfTheirOwn(t *testing.T) {
	var m Map
	m.Switch(0, at(0, 0), 0)
	send(&m, 0, 0)
	a, _ := send(&m, 0, 2)
	if first := m.Insert(5); first != a.Seq+1 {
		t.Fatalf("inserted at %d, want %d", first, a.Seq+1)
	}
	b, _ := send(&m, 0, 3)
	if b.Seq != a.Seq+6 || b.Picture != a.Picture+1 || b.Time != a.Time+3000 {
		t.Errorf("after the insertion %+v, before %+v", b, a)
	}
	if late, ok := send(&m, 0, 1); !ok || late.Seq != a.Seq-1 {
		t.Errorf("late packet from before the insertion: %+v %v, want number %d", late, ok, a.Seq-1)
	}
}

func TestOldStretchesAreForgotten(t *testing.T) {
	var m Map
	m.Switch(0, at(0, 0), 0)
	send(&m, 0, 0)
	for range 100 {
		m.Insert(1)
	}
	if p, ok := send(&m, 0, 0); ok {
		t.Errorf("a packet of long ago became %+v", p)
	}
}

func TestMapDoesNotAllocate(t *testing.T) {
	var m Map
	m.Switch(0, at(0, 0), 0)
	n := uint32(0)
	if a := testing.AllocsPerRun(1000, func() { send(&m, 0, n); n++; m.Insert(1) }); a != 0 {
		t.Errorf("%v allocations per packet", a)
	}
}

// FuzzMap: whatever comes in whatever order, two different packets never get the
// same number while it is remembered.
func FuzzMap(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x80, 1, 2, 0x41, 1, 2, 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		var m Map
		type packet struct {
			source int
			seq    uint16
		}
		given := map[uint16]packet{}
		source, seq := 0, [2]uint16{65500, 100}
		m.Switch(0, Position{Seq: seq[0]}, 0)
		if len(in) > 2000 {
			in = in[:2000]
		}
		for _, b := range in {
			p := packet{source, seq[source] + uint16(b&7) - 2}
			switch {
			case b&0x80 != 0:
				source = 1 - source
				seq[source] += 20
				p = packet{source, seq[source]}
				m.Switch(source, Position{Seq: p.seq}, 1)
			case b&0x40 != 0:
				first := m.Insert(uint16(b & 7))
				for i := range uint16(b & 7) {
					if q, ok := given[first+i]; ok {
						t.Fatalf("inserted packet has the number of %+v", q)
					}
					given[first+i] = packet{source: -1}
				}
				continue
			}
			out, ok := m.Map(p.source, Position{Seq: p.seq})
			if !ok {
				continue
			}
			if q, ok := given[out.Seq]; ok && q != p {
				t.Fatalf("%+v has the number %d of %+v", p, out.Seq, q)
			}
			given[out.Seq] = p
			if before(seq[source], p.seq) {
				seq[source] = p.seq
			}
		}
	})
}

func BenchmarkMap(b *testing.B) {
	var m Map
	m.Switch(0, at(0, 0), 0)
	for i := range b.N {
		send(&m, 0, uint32(i))
	}
}
