package srtp

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestNothingIsAllocated(t *testing.T) {
	for _, p := range profiles {
		k := newKeys(t, p)
		s, o := newSealer(t, k, 5, 100), k.Opener(5)
		h, payload, seq := header(5, 0), make([]byte, 1100), uint16(0)
		if a := testing.AllocsPerRun(1000, func() {
			seq++
			binary.BigEndian.PutUint16(h[2:], seq)
			out, err := s.Seal(h, payload)
			if err == nil {
				_, err = s.Repeat(h, payload)
			}
			if err == nil {
				_, err = o.Open(out)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); a != 0 {
			t.Errorf("profile %d: %v allocations for a packet", p, a)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, p := range profiles {
		for _, size := range []int{80, 1100} {
			b.Run(fmt.Sprintf("%d/%d", p, size), func(b *testing.B) {
				s := newSealer(b, newKeys(b, p), 5, 0)
				h, payload, seq := header(5, 0), make([]byte, size), uint16(0)
				b.ReportAllocs()
				for b.Loop() {
					seq++
					binary.BigEndian.PutUint16(h[2:], seq)
					if _, err := s.Seal(h, payload); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, p := range profiles {
		for _, size := range []int{80, 1100} {
			b.Run(fmt.Sprintf("%d/%d", p, size), func(b *testing.B) {
				k := newKeys(b, p)
				o := k.Opener(5)
				packet, err := newSealer(b, k, 5, 0).Seal(header(5, 0), make([]byte, size))
				if err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, len(packet))
				b.ReportAllocs()
				for b.Loop() {
					o.past = history{}
					copy(buf, packet)
					if _, err := o.Open(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// FuzzOpen: no input panics, and nothing is opened that was not sealed.
func FuzzOpen(f *testing.F) {
	for _, p := range profiles {
		packet, err := newSealer(f, newKeys(f, p), 5, 0).Seal(header(5, 77), []byte("payload"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(p), packet)
		f.Add(uint16(p), packet[:13])
	}
	f.Fuzz(func(t *testing.T, profile uint16, packet []byte) {
		p := Profile(profile)
		if p.KeyLength() == 0 {
			return
		}
		k := newKeys(t, p)
		genuine, err := newSealer(t, k, 5, 0).Seal(header(5, 77), []byte("payload"))
		if err != nil {
			t.Fatal(err)
		}
		same := string(genuine) == string(packet)
		if _, err := k.Opener(5).Open(packet); (err == nil) != same {
			t.Fatalf("opened: %v, genuine: %v", err, same)
		}
	})
}
