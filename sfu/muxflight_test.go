package sfu

import (
	"testing"
	"time"
)

// handshakeRecord is a DTLS record that holds the beginning of a handshake message.
func handshakeRecord(epoch byte, kind byte, number byte) []byte {
	return []byte{contentHandshake, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 0, 9, 0, 12, kind, 0, 0, 0, 0, number, 0, 0, 0, 0, 0, 0}
}

func TestRepeatedFlightsAreSpacedOut(t *testing.T) {
	hello, cookie, certificate := handshakeRecord(0, 1, 0), handshakeRecord(0, 1, 1), handshakeRecord(0, 11, 2)
	server, finished := handshakeRecord(0, 2, 1), handshakeRecord(1, 20, 6)
	steps := []struct {
		at   int // ms
		p    []byte
		want bool
	}{
		{0, hello, true}, {99, hello, false}, {100, hello, true}, {200, hello, false}, {300, hello, true}, {600, hello, false}, {700, hello, true},
		{710, cookie, true}, {810, cookie, true}, // another message begins anew
		{820, certificate, true}, {920, certificate, false}, {1300, certificate, false}, {1320, certificate, true}, {2300, certificate, false}, {2320, certificate, true},
		{2330, finished, true}, {2331, finished, true}, // encrypted: not looked at
		{4320, certificate, true}, {8320, certificate, true}, {16320, certificate, true}, {24320, certificate, true}, {32320, certificate, true}, // at least every 8 s
	}
	var f flightPace
	begin := time.Now()
	for _, s := range steps {
		if got := f.due(s.p, begin.Add(time.Duration(s.at)*time.Millisecond)); got != s.want {
			t.Errorf("at %d ms message %d: due %t, want %t", s.at, s.p[13], got, s.want)
		}
	}
	f = flightPace{}
	for range 3 { // a server answers at once, each time
		if !f.due(server, begin) {
			t.Error("an answer of a server was held back")
		}
	}
	for n := range hello {
		if !f.due(hello[:n], begin) && n < 19 {
			t.Errorf("%d bytes held back", n)
		}
	}
}
