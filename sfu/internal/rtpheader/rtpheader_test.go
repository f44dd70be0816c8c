package rtpheader

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pion/rtp"
)

// TestAppend: pion reads what we write, and so do we.
func TestAppend(t *testing.T) {
	for _, h := range []Header{
		{Type: 111, Seq: 1, Time: 2, SSRC: 3},
		{Marker: true, Type: 96, Seq: 0xFFFF, Time: 0xFFFFFFFF, SSRC: 0xFFFFFFFF},
		{Type: 111, LevelID: 1, Level: 0x85},
		{Type: 96, Marker: true, NumberID: 14, Number: 0xABCD},
		{Type: 96, LevelID: 3, Level: 7, NumberID: 5, Number: 1},
		{Type: 96, Padding: true, NumberID: 5, Number: 1},
	} {
		payload := []byte{1, 2, 3, 2}
		b := append(h.Append([]byte{}), payload...)
		if n := len(b) - len(payload); n != h.Length() {
			t.Errorf("%+v: %d bytes, want %d", h, n, h.Length())
		}
		var p rtp.Packet
		if err := p.Unmarshal(b); err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		if h.Padding {
			payload = payload[:2]
		}
		if p.Marker != h.Marker || p.PayloadType != h.Type || p.SequenceNumber != h.Seq || p.Timestamp != h.Time || p.SSRC != h.SSRC || !bytes.Equal(p.Payload, payload) {
			t.Errorf("%+v: pion reads %+v", h, p)
		}
		ours, ok := Parse(b)
		want := Packet{Marker: h.Marker, Type: h.Type, Seq: h.Seq, Time: h.Time, SSRC: h.SSRC, Payload: payload}
		if diff := cmp.Diff(want, ours, cmpopts.IgnoreUnexported(Packet{})); !ok || diff != "" {
			t.Errorf("%+v: %v %s", h, ok, diff)
		}
		for id, value := range map[uint8][]byte{h.LevelID: {h.Level}, h.NumberID: {byte(h.Number >> 8), byte(h.Number)}} {
			if id == 0 {
				value = nil
			}
			if got := ours.Extension(id); !bytes.Equal(got, value) || !bytes.Equal(p.GetExtension(id), value) {
				t.Errorf("%+v: extension %d is %x", h, id, got)
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	h := Header{Type: 96, LevelID: 3, Level: 7, NumberID: 5, Number: 1}
	b := make([]byte, 0, 100)
	if a := testing.AllocsPerRun(100, func() {
		x, ok := Parse(append(h.Append(b), 1, 2, 3))
		if !ok || x.Extension(5) == nil {
			t.Fatal("cannot read it back")
		}
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// FuzzParse: no input panics, and what pion can read we read alike.
func FuzzParse(f *testing.F) {
	for _, h := range []Header{{}, {LevelID: 3, NumberID: 5, Padding: true}} {
		f.Add(append(h.Append(nil), 1, 2, 3, 2))
	}
	f.Add([]byte{0x91, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x10, 0x01, 0, 1, 5, 2, 1, 2, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, ok := Parse(b)
		for id := range 256 {
			if v := x.Extension(uint8(id)); !bytes.Contains(b, v) {
				t.Fatalf("extension %d is no part of the packet", id)
			}
		}
		var p rtp.Packet
		if err := p.Unmarshal(bytes.Clone(b)); err != nil || !ok {
			return
		}
		if b[0]&0x10 != 0 { // pion lets an extension reach into the payload
			p.Payload = x.Payload
		}
		if p.Version == 2 && (p.SequenceNumber != x.Seq || p.Timestamp != x.Time || p.SSRC != x.SSRC || p.Marker != x.Marker || p.PayloadType != x.Type || !bytes.Equal(p.Payload, x.Payload)) {
			t.Fatalf("read as %+v, by pion as %+v", x, p)
		}
	})
}
