package gateway

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestFrames(t *testing.T) {
	frame := func(n int, masked bool) []byte {
		b := []byte{0x82, 0}
		switch {
		case n < 126:
			b[1] = byte(n)
		case n < 1<<16:
			b[1] = 126
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		default:
			b[1] = 127
			b = binary.BigEndian.AppendUint64(b, uint64(n))
		}
		if masked {
			b[1] |= 0x80
			b = append(b, 1, 2, 3, 4)
		}
		return append(b, make([]byte, n)...)
	}
	var stream []byte
	ends := map[int]bool{0: true}
	for _, n := range []int{0, 1, 125, 126, 127, 4000, 1 << 16, 70000, 0} {
		for _, masked := range []bool{false, true} {
			stream = append(stream, frame(n, masked)...)
			ends[len(stream)] = true
		}
	}
	for range 50 { // in pieces of every size
		var f frames
		for at := 0; at < len(stream); {
			if f.between() != ends[at] {
				t.Fatalf("at byte %d: between frames = %v", at, f.between())
			}
			n := min(1+rand.IntN(300), len(stream)-at)
			f.pass(stream[at : at+n])
			at += n
		}
		if !f.between() {
			t.Fatal("not between frames at the end")
		}
	}
}
