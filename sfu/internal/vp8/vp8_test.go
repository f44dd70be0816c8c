package vp8

import (
	"bytes"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		want Descriptor
		ok   bool
	}{
		{"nothing", nil, Descriptor{}, false},
		{"plain key frame", []byte{0x10, 0x00}, Descriptor{Start: true, KeyFrame: true}, true},
		{"plain delta frame", []byte{0x10, 0x01}, Descriptor{Start: true}, true},
		{"middle of a frame", []byte{0x00, 0x00}, Descriptor{}, true},
		{"second partition", []byte{0x11, 0x00}, Descriptor{}, true},
		{"no payload", []byte{0x10}, Descriptor{Start: true}, false},
		{"extension cut", []byte{0x90}, Descriptor{Start: true}, false},
		{"7 bits", []byte{0x90, 0x80, 0x7F, 0x00}, Descriptor{Start: true, KeyFrame: true, Picture: 127, picture: 2}, true},
		{"15 bits", []byte{0x90, 0x80, 0xFF, 0xFE, 0x01}, Descriptor{Start: true, Picture: 0x7FFE, picture: 2, wide: true}, true},
		{"everything", []byte{0x90, 0xF0, 0x81, 0x02, 0x09, 0x20, 0x00}, Descriptor{Start: true, KeyFrame: true, Picture: 0x102, Base: 9, picture: 2, base: 4, wide: true}, true},
		{"only base", []byte{0x90, 0x40, 0x09, 0x00}, Descriptor{Start: true, KeyFrame: true, Base: 9, base: 2}, true},
		{"cut in the picture number", []byte{0x90, 0x80, 0x81}, Descriptor{Start: true}, false},
		{"cut before TID", []byte{0x90, 0xF0, 0x01, 0x09}, Descriptor{Start: true, Picture: 1, Base: 9, picture: 2, base: 3}, false},
	} {
		if got, ok := Parse(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %+v %v, want %+v %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestRewriteKeepsTheWidth(t *testing.T) {
	for _, tt := range []struct{ in, want []byte }{
		{[]byte{0x90, 0xF0, 0x81, 0x02, 0x09, 0x20, 0x01}, []byte{0x90, 0xF0, 0xFA, 0xBC, 0x77, 0x20, 0x01}},
		{[]byte{0x90, 0x80, 0x05, 0x01}, []byte{0x90, 0x80, 0x3C, 0x01}},
		{[]byte{0x10, 0x01}, []byte{0x10, 0x01}},
	} {
		d, _ := Parse(tt.in)
		d.Rewrite(tt.in, 0x7ABC, 0x77)
		if !bytes.Equal(tt.in, tt.want) {
			t.Errorf("rewritten to %x, want %x", tt.in, tt.want)
		}
	}
}

// FuzzRewrite: nothing panics, nothing but the two numbers changes.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte{0x90, 0xF0, 0x81, 0x02, 0x09, 0x20, 0x00}, uint16(77), uint8(3))
	f.Add([]byte{0x90, 0x80, 0x05, 0x01}, uint16(300), uint8(0))
	f.Fuzz(func(t *testing.T, p []byte, picture uint16, base uint8) {
		d, ok := Parse(p)
		if !ok {
			return
		}
		was := bytes.Clone(p)
		d.Rewrite(p, picture, base)
		e, ok := Parse(p)
		if !ok || e.Start != d.Start || e.KeyFrame != d.KeyFrame {
			t.Fatalf("%x became %x", was, p)
		}
		d.Rewrite(p, d.Picture, d.Base)
		if !bytes.Equal(p, was) {
			t.Fatalf("%x did not come back, but %x", was, p)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := []byte{0x90, 0xF0, 0x81, 0x02, 0x09, 0x20, 0x00}
	for i := range b.N {
		d, _ := Parse(p)
		d.Rewrite(p, uint16(i), uint8(i))
	}
}
