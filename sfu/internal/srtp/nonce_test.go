package srtp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// TestNoNumberIsSealedTwice: whatever is asked of a Sealer, no two different
// packets leave under one index, and therefore under one nonce.
func TestNoNumberIsSealedTwice(t *testing.T) {
	for _, p := range profiles {
		k := newKeys(t, p)
		s := newSealer(t, k, 5, 300)
		r := rand.New(rand.NewPCG(1, uint64(p)))
		given := map[uint64][]byte{} // by index
		var repeated, refused int
		for i := range 60_000 {
			seq := uint16(i/2 + r.IntN(100) - r.IntN(300))
			payload := []byte{byte(r.IntN(6) / 5), 1, 2, 3}
			h := header(5, seq)
			h[4] = byte(r.IntN(6) / 5) // a timestamp that changes now and then
			seal := s.Seal
			if r.IntN(3) == 0 {
				seal = s.Repeat
			}
			out, err := seal(h, payload)
			if err != nil {
				refused++
				continue
			}
			index, ok := s.past.estimate(seq)
			if !ok {
				t.Fatal("sealed under no index")
			}
			if before, again := given[index]; again {
				repeated++
				if !bytes.Equal(before, out) {
					t.Fatalf("profile %d: two packets under index %d", p, index)
				}
			}
			given[index] = bytes.Clone(out)
		}
		if repeated < 100 || refused < 1000 || len(given) < 10_000 {
			t.Errorf("profile %d: %d repeated, %d refused, %d sealed: the test is too tame", p, repeated, refused, len(given))
		}
	}
}

func TestRepeat(t *testing.T) {
	for _, p := range profiles {
		k := newKeys(t, p)
		s := newSealer(t, k, 5, 100)
		first := map[uint16][]byte{}
		for seq := range uint16(200) {
			out, err := s.Seal(header(5, seq), []byte{byte(seq)})
			if err != nil {
				t.Fatal(err)
			}
			first[seq] = out
		}
		other := header(5, 150)
		other[17]++ // another number in the header extension, as of transport-cc
		buffer := header(5, 160)
		for _, test := range []struct {
			name    string
			header  []byte
			payload byte
			want    error
		}{
			{"the same", header(5, 150), 150, nil},
			{"once more", header(5, 150), 150, nil},
			{"newest", header(5, 199), 199, nil},
			{"oldest that is remembered", header(5, 100), 100, nil},
			{"forgotten", header(5, 99), 99, ErrOld},
			{"never sealed", header(5, 200), 200, ErrUnknown},
			{"another payload", header(5, 150), 151, ErrDifferent},
			{"another header", other, 150, ErrDifferent},
			{"another length of memory", buffer, 161, ErrDifferent},
			{"another SSRC", header(6, 150), 150, ErrSource},
		} {
			out, err := s.Repeat(test.header, []byte{test.payload})
			if !errors.Is(err, test.want) {
				t.Errorf("profile %d, %s: %v, want %v", p, test.name, err, test.want)
			}
			if err == nil && !bytes.Equal(out, first[uint16(test.header[2])<<8|uint16(test.header[3])]) {
				t.Errorf("profile %d, %s: other bytes than the first time", p, test.name)
			}
			if err != nil && out != nil {
				t.Errorf("profile %d, %s: gave out %x all the same", p, test.name, out)
			}
		}
		if rest := buffer[len(buffer) : len(buffer)+1+p.Overhead()]; !bytes.Equal(rest, make([]byte, len(rest))) {
			t.Errorf("profile %d: a refused packet stays in the buffer: %x", p, rest)
		}
		if _, err := s.Seal(header(5, 150), []byte{150}); !errors.Is(err, ErrSealed) {
			t.Errorf("profile %d: sealed again: %v", p, err)
		}
	}
}

func TestOneSealerForAnSSRC(t *testing.T) {
	k := newKeys(t, AEADAES128GCM)
	newSealer(t, k, 5, 0)
	newSealer(t, k, 6, 0)
	if _, err := k.Sealer(5, 0); !errors.Is(err, ErrTaken) {
		t.Errorf("a second sealer: %v", err)
	}
}

func TestSealersAreBounded(t *testing.T) {
	k := newKeys(t, AEADAES128GCM)
	for ssrc := range uint32(maxTaken - 1) {
		k.taken[ssrc] = struct{}{}
	}
	newSealer(t, k, maxTaken, 0)
	if _, err := k.Sealer(maxTaken+1, 0); !errors.Is(err, ErrSpent) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := k.Sealer(5, 0); !errors.Is(err, ErrTaken) {
		t.Errorf("one of those: %v", err)
	}
}

func TestNumbersEnd(t *testing.T) {
	k := newKeys(t, AEADAES128GCM)
	s := newSealer(t, k, 5, 0)
	s.past.add(lastIndex - 1)
	if _, err := s.Seal(header(5, 0xFFFF), nil); err != nil {
		t.Errorf("the last number: %v", err)
	}
	if _, err := s.Seal(header(5, 0), nil); !errors.Is(err, ErrSpent) {
		t.Errorf("beyond the last number: %v", err)
	}
	s = newSealer(t, k, 6, 0)
	if _, err := s.Seal(header(6, 5), nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Seal(header(6, 0xFFF0), nil); !errors.Is(err, ErrOld) {
		t.Errorf("before the first rollover: %v", err)
	}
}

// A header that is longer than the slice says, or shorter, would leave part of it
// unencrypted or encrypt part of it.
func TestHeaderMustBeWhole(t *testing.T) {
	s := newSealer(t, newKeys(t, AEADAES128GCM), 5, 0)
	h := header(5, 1)
	for _, bad := range [][]byte{h[:11], h[:12], h[:16], append(bytes.Clone(h), 0), {}} {
		if out, err := s.Seal(bad, []byte{1}); err == nil {
			t.Errorf("sealed %x behind %x", out, bad)
		}
	}
	h[0] = 0x50
	if _, err := s.Seal(h, nil); !errors.Is(err, ErrVersion) {
		t.Error("sealed another version of RTP")
	}
}
