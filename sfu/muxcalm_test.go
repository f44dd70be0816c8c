package sfu

import (
	"net/netip"
	"testing"
	"time"
)

func TestWhatIsUrgent(t *testing.T) {
	s, known := &muxSocket{}, netip.MustParseAddrPort("192.0.2.1:1")
	s.routes.put(known, &muxRoute{})
	for _, test := range []struct {
		name   string
		packet []byte
		known  bool
		want   bool
	}{
		{"check from a known address", []byte{0, 1, 0, 0}, true, false},
		{"check from a new address", []byte{0, 1, 0, 0}, false, true},
		{"answer to a check", []byte{1, 1, 0, 0}, true, false},
		{"voice", []byte{0x80, 111}, true, true},
		{"voice with marker", []byte{0x90, 0x80 | 111}, true, true},
		{"video with marker", []byte{0x90, 0x80 | 96}, true, true},
		{"sender report", []byte{0x80, 200}, true, false},
		{"transport-wide feedback", []byte{0x8f, 205}, true, false},
		{"data channel", []byte{23, 0xfe, 0xfd}, true, false},
		{"handshake", []byte{22, 0xfe, 0xfd}, true, true},
		{"alert", []byte{21, 0xfe, 0xfd}, true, true},
		{"TURN channel", []byte{0x40, 0}, false, true},
		{"one byte", []byte{0x80}, true, false},
		{"nothing", nil, false, false},
	} {
		from := known
		if !test.known {
			from = netip.MustParseAddrPort("192.0.2.1:2")
		}
		if got := s.urgent(test.packet, from); got != test.want {
			t.Errorf("%s: urgent %t, want %t", test.name, got, test.want)
		}
	}
}

func TestReadersRestTogether(t *testing.T) {
	var c calm
	if got := c.after(false); got != calmRest {
		t.Errorf("at first: rest %v, want %v", got, calmRest)
	}
	if got := c.after(true); got != 0 {
		t.Errorf("after something urgent: rest %v", got)
	}
	if got := c.after(false); got != 0 {
		t.Errorf("soon after something urgent, perhaps elsewhere: rest %v", got)
	}
	c.urgent.Store(time.Now().Add(-calmAfter - time.Millisecond).UnixNano())
	if got := c.after(false); got != calmRest {
		t.Errorf("long after something urgent: rest %v, want %v", got, calmRest)
	}
}

func TestAReaderKnowsWhatWasUrgent(t *testing.T) {
	m := &mux{}
	r := &reader{calm: &m.calm}
	if rest := r.rest(); rest != calmRest {
		t.Errorf("calm: rest %v, want %v", rest, calmRest)
	}
	r.urgent = true
	if rest := r.rest(); rest != 0 || r.urgent {
		t.Errorf("urgent: rest %v, still urgent %t", rest, r.urgent)
	}
	if rest := (&reader{calm: &m.calm}).rest(); rest != 0 {
		t.Errorf("another reader: rest %v", rest)
	}
}
