package peer

import (
	"encoding/binary"
	"testing"
)

// rtp returns a packet of 40 bytes.
func rtpPacket(ssrc uint32, number uint16) []byte {
	b := make([]byte, 40)
	b[0], b[1] = 0x80, 111
	binary.BigEndian.PutUint16(b[2:], number)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

func TestCounterJudgesOrder(t *testing.T) {
	for _, x := range []struct {
		name                         string
		numbers                      []uint16
		lost, duplicates, late, seen uint64
	}{
		{"in order", []uint16{5, 6, 7}, 0, 0, 0, 3},
		{"gap", []uint16{5, 9}, 3, 0, 0, 2},
		{"late", []uint16{5, 7, 6}, 0, 0, 1, 3},
		{"duplicate", []uint16{5, 6, 6}, 0, 1, 0, 2},
		{"around zero", []uint16{65534, 65535, 0, 2}, 1, 0, 0, 4},
		{"another stream", []uint16{5, 6, 30000, 30001}, 0, 0, 0, 4},
	} {
		tally := newTally(nil)
		c := tally.take(7)
		for _, n := range x.numbers {
			if !tally.count(rtpPacket(7, n)) {
				t.Fatalf("%s: packet not taken", x.name)
			}
		}
		s := c.stats()
		if s.Lost != x.lost || s.Missing != x.lost || s.Duplicates != x.duplicates || s.Late != x.late || s.Measured != x.seen {
			t.Errorf("%s: %+v, want lost and missing %d, duplicates %d, late %d, measured %d", x.name, s, x.lost, x.duplicates, x.late, x.seen)
		}
	}
}

// What comes when the window is closed is counted apart, and a gap then is not
// among what was missing.
func TestCounterObeysWindow(t *testing.T) {
	var w Window
	tally := newTally(&w)
	c := tally.take(7)
	tally.count(rtpPacket(7, 1))
	w.Open()
	tally.count(rtpPacket(7, 2))
	tally.count(rtpPacket(7, 4))
	w.Close()
	tally.count(rtpPacket(7, 9))
	if s := c.stats(); s.Measured != 2 || s.Missing != 1 || s.After != 1 || s.Lost != 5 || s.Packets != 4 {
		t.Errorf("%+v", s)
	}
}

func TestTallyTakesKnownTracksOnly(t *testing.T) {
	tally := newTally(nil)
	c := tally.take(7)
	channel := append([]byte{0x40, 1, 0, 40}, rtpPacket(7, 1)...)
	rtcp := rtpPacket(7, 1)
	rtcp[1] = 201
	for _, x := range []struct {
		name     string
		datagram []byte
		taken    bool
	}{
		{"known", rtpPacket(7, 1), true},
		{"unknown", rtpPacket(8, 1), false},
		{"in ChannelData", channel, true},
		{"in cut ChannelData", channel[:40], false},
		{"RTCP", rtcp, false},
		{"STUN", make([]byte, 40), false},
		{"DTLS", append([]byte{22}, make([]byte, 40)...), false},
		{"short", rtpPacket(7, 1)[:11], false},
		{"empty", nil, false},
	} {
		if got := tally.count(x.datagram); got != x.taken {
			t.Errorf("%s: taken %v, want %v", x.name, got, x.taken)
		}
	}
	newer := tally.take(7)
	tally.drop(7, c) // the older track of the SSRC ends late
	if !tally.count(rtpPacket(7, 3)) || newer.stats().Packets != 1 {
		t.Error("the end of an old track ended the new one")
	}
	tally.drop(7, newer)
	if tally.count(rtpPacket(7, 4)) {
		t.Error("an ended track takes packets")
	}
}

func FuzzTally(f *testing.F) {
	f.Add(rtpPacket(7, 1))
	f.Add(append([]byte{0x40, 1, 0, 40}, rtpPacket(7, 1)...))
	tally := newTally(nil)
	tally.take(7)
	f.Fuzz(func(_ *testing.T, b []byte) { tally.count(b) })
}

func BenchmarkTally(b *testing.B) {
	tally := newTally(nil)
	tally.take(7)
	packet := rtpPacket(7, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint16(packet[2:], uint16(i))
		tally.count(packet)
	}
}

// A picture counts when all of it has come, and one that is late is a freeze.
func TestScreening(t *testing.T) {
	const frame = int64(50e6)
	var m meter
	at := int64(1e18)
	show := func(key bool) { m.picture(key, true, true, at) }
	for range 40 {
		at += frame
		show(false)
	}
	if m.Freezes != 0 || m.LastPicture != at {
		t.Fatalf("steady video: %+v", m.TrackStats)
	}
	at += 5 * frame
	show(false)
	if m.Freezes != 1 || m.Frozen != 250e6 {
		t.Errorf("a pause of 250 ms: %d freezes, %v", m.Freezes, m.Frozen)
	}
	m.Lost = 1 // nothing can be shown until the next key frame
	for range 10 {
		at += frame
		show(false)
	}
	at += frame
	show(true)
	if m.Freezes != 2 || m.Frozen != 800e6 {
		t.Errorf("a packet lost for 11 frames: %d freezes, %v", m.Freezes, m.Frozen)
	}
	m.Lost = 2
	at += frame
	show(false)
	m.Lost = 1 // it came late after all
	at += frame
	show(false)
	if m.Freezes != 2 {
		t.Errorf("a late packet counts as freeze: %+v", m.TrackStats)
	}
}
