package sfu

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// frames makes an RTP packet of a stream.
func frames(ssrc uint32, seq uint16, size int) []byte {
	p := make([]byte, size)
	p[0], p[1] = 0x80, 111
	binary.BigEndian.PutUint16(p[2:], seq)
	binary.BigEndian.PutUint32(p[8:], ssrc)
	return p
}

// drain takes all that waits and returns the sequence numbers by SSRC, and the
// order in which streams came.
func drain(t *testing.T, q *tcpQueue) (numbers map[uint32][]uint16, order []uint32) {
	t.Helper()
	numbers = map[uint32][]uint16{}
	for q.urgent.count+q.video.count > 0 {
		b, ok := q.next(nil, tcpBatch)
		if !ok || len(b) == 0 || len(b) > tcpBatch+maxDatagram {
			t.Fatalf("%d bytes, %v", len(b), ok)
		}
		for len(b) > 0 {
			n := int(binary.BigEndian.Uint16(b))
			p := b[2 : 2+n]
			b = b[2+n:]
			ssrc := binary.BigEndian.Uint32(p[8:])
			numbers[ssrc] = append(numbers[ssrc], binary.BigEndian.Uint16(p[2:]))
			order = append(order, ssrc)
		}
	}
	return numbers, order
}

func TestVoiceOvertakesVideo(t *testing.T) {
	var lost int
	q := newTCPQueue(func(string) { lost++ })
	const voice, video = 1, 2
	for i := range uint16(20) {
		size := 1100
		if i%4 == 3 { // the end of a frame
			size = 90
		}
		q.push(frames(video, i, size), nil)
		q.push(frames(voice, i, 100), nil)
	}
	numbers, order := drain(t, q)
	for _, ssrc := range []uint32{voice, video} {
		if n := numbers[ssrc]; len(n) != 20 || !slices.IsSorted(n) {
			t.Errorf("stream %d: %d", ssrc, n)
		}
	}
	if slices.Index(order, video) != 20 || lost != 0 {
		t.Errorf("order %v, %d lost", order, lost)
	}
}

func TestSlowConnectionLosesOldVideoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost int
		q := newTCPQueue(func(string) { lost++ })
		for i := range uint16(10) {
			q.push(frames(2, i, 1100), nil)
			q.push(frames(1, i, 100), nil)
			q.push([]byte{20, 254, 253, byte(i), 0, 0, 0, 0, 0, 0, 0, 9}, nil) // DTLS
			time.Sleep(100 * time.Millisecond)
		}
		numbers, _ := drain(t, q)
		if n := numbers[2]; len(n) != 5 || n[0] != 5 {
			t.Errorf("video %d, want that of the last half second", n)
		}
		if len(numbers[1]) != 10 || lost != 5 {
			t.Errorf("voice %d, %d lost", numbers[1], lost)
		}
		for i := range uint16(3 * tcpFrames) {
			if q.push(frames(2, i, 1100), nil) != (i < tcpFrames) {
				t.Fatalf("packet %d", i)
			}
		}
		if n, _ := drain(t, q); len(n[2]) != tcpFrames || n[2][0] != 2*tcpFrames {
			t.Errorf("%d packets from %d", len(n[2]), n[2][0])
		}
		q.push(frames(1, 0, 100), nil)
		q.close()
		if _, ok := q.next(nil, tcpBatch); ok || q.push(frames(1, 1, 100), nil) {
			t.Error("the queue works after its close")
		}
	})
}

func TestManyStreamsAreNotRememberedForEver(t *testing.T) {
	q := newTCPQueue(func(string) {})
	for i := range uint32(1000) {
		q.push(frames(i, 0, 1100), nil)
		if len(q.bulks) > tcpStreams {
			t.Fatalf("%d streams remembered", len(q.bulks))
		}
		drain(t, q)
	}
}
