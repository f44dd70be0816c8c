package sfu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/srtp"
)

// Tests of participants that behave badly: nobody else may notice.

// A fault is one of the receivers of a camera.
type fault struct {
	name string
	// enter makes it, before a burst; act is what it does in the middle of that, when
	// the packet with a number has been sent. It may stay for several bursts.
	enter func(t *testing.T, s *speaker, n int) (d *down, act func(newest uint16))
}

var faults = []fault{
	{"does not read", func(t *testing.T, s *speaker, n int) (*down, func(uint16)) {
		l := addLeg(t, s.srv, srtp.AEADAES128GCM, fmt.Sprint("fault", n))
		if err := l.conn.SetReadBuffer(1); err != nil {
			t.Fatal(err)
		}
		return l.watches(s, 100, 0), nil
	}},
	{"does not read TCP", func(t *testing.T, s *speaker, n int) (*down, func(uint16)) {
		name := fmt.Sprint("fault", n)
		l := addLeg(t, s.srv, srtp.AEADAES128GCM, name)
		l.overTCP(name, 1)
		return l.watches(s, 100, 0), nil
	}},
	{"vanishes", func(t *testing.T, s *speaker, n int) (*down, func(uint16)) {
		l := nextLeg(t, s, n)
		return l.watches(s, 100, 0), func(uint16) { _ = l.conn.Close() }
	}},
	{"leaves", func(t *testing.T, s *speaker, n int) (*down, func(uint16)) {
		l := nextLeg(t, s, n)
		d := l.watches(s, 100, 0)
		return d, func(uint16) {
			_ = l.conn.Close()
			l.media.close()
			d.fan().remove(d)
		}
	}},
	{"asks for everything", func(t *testing.T, s *speaker, n int) (*down, func(uint16)) {
		d := addLeg(t, s.srv, srtp.AEADAES128GCM, fmt.Sprint("fault", n)).watches(s, 100, 0)
		return d, func(newest uint16) {
			var all []uint16
			for i := range uint16(100) {
				all = append(all, newest-80+i) // and for what is not there yet
			}
			for range 2 {
				d.answer(nackOf(all...))
			}
		}
	}},
}

// nextLeg makes a receiver and forgets the one of the last burst but one, whose port
// it may have got.
func nextLeg(t *testing.T, s *speaker, n int) *leg {
	s.srv.mux.RemoveConnByUfrag(fmt.Sprint("fault", n-2))
	return addLeg(t, s.srv, srtp.AEADAES128GCM, fmt.Sprint("fault", n))
}

// brief tells the faults of which there is a new one for each burst.
func (f *fault) brief() bool { return f.name == "vanishes" || f.name == "leaves" }

// TestFaultsConcernNobodyElse: bursts of a camera reach three receivers, every other
// one of them while there is a fourth one at fault, who is served first. They miss
// nothing, and wait no longer.
func TestFaultsConcernNobodyElse(t *testing.T) {
	for way, o := range socketWays {
		for _, f := range faults {
			t.Run(way+"/"+f.name, func(t *testing.T) {
				s := newCamera(t, newStage(t, o), srtp.AEADAES128GCM)
				var good []*leg
				for i := range 3 {
					l := addLeg(t, s.srv, srtp.AEADAES128GCM, fmt.Sprint("good", i))
					l.watches(s, uint32(200+i), 0)
					good = append(good, l)
				}
				alone, beside := compareBursts(t, s, f, good)
				t.Logf("a burst takes %v, with the other one %v", alone, beside)
				if beside > 2*alone+2*time.Millisecond {
					t.Errorf("a burst takes %v, without the other one %v", beside, alone)
				}
			})
		}
	}
}

// compareBursts returns the times of the fastest bursts without and with the fault: of
// the others a busy machine makes what it will, and what waits for somebody waits
// always.
func compareBursts(t *testing.T, s *speaker, f fault, good []*leg) (alone, beside time.Duration) {
	t.Helper()
	const bursts = 40
	var d *down
	var act func(uint16)
	var took [2][]time.Duration
	for i := range 2 * bursts {
		if i%2 == 0 {
			took[0] = append(took[0], burst(t, s, good, nil))
			continue
		}
		if d == nil || f.brief() {
			d, act = f.enter(t, s, i)
			s.up.fan.remove(d)
		}
		s.up.fan.replace(func(all []*down) []*down { return append([]*down{d}, all...) })
		took[1] = append(took[1], burst(t, s, good, act))
		s.up.fan.remove(d)
	}
	return slices.Min(took[0]), slices.Min(took[1])
}

// burst sends twelve packets and returns after what time everybody has them all. act
// happens meanwhile.
func burst(t *testing.T, s *speaker, good []*leg, act func(uint16)) time.Duration {
	t.Helper()
	const half = 6
	began, first := time.Now(), s.seq+1
	s.shows(t, half)
	var acting sync.WaitGroup
	if act != nil {
		newest := s.seq
		acting.Go(func() { act(newest) })
	}
	s.shows(t, half)
	for _, l := range good {
		for i := range uint16(2 * half) {
			l.wants(first + i)
		}
	}
	took := time.Since(began)
	acting.Wait()
	return took
}

// wants reads the next packet, which must have a number.
func (l *leg) wants(seq uint16) {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	n, err := l.conn.Read(l.buf)
	if err != nil {
		l.t.Fatalf("packet %d: %v", seq, err)
	}
	x, ok := rtpheader.Parse(l.buf[:n])
	if !ok || x.Seq != seq {
		l.t.Fatalf("packet %d of %d, %v; want %d", x.Seq, x.SSRC, ok, seq)
	}
	if l.opens[x.SSRC] == nil {
		l.opens[x.SSRC] = l.keys.Opener(x.SSRC)
	}
	if _, err := l.opens[x.SSRC].Open(l.buf[:n]); err != nil {
		l.t.Fatalf("packet %d: %v", seq, err)
	}
}

// TestRepairsOfOneHoldUpNobody: in a call one receiver asks for every packet again
// and again, one loses a third and never asks, and one who publishes loses a fifth
// and never answers. Another receiver misses nothing of who publishes well.
func TestRepairsOfOneHoldUpNobody(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	a.sess.VideoOn("camera")
	defer a.publish(webrtc.MimeTypeVP8, "camera").end()
	defer a.publish(webrtc.MimeTypeOpus, "mic").end()

	bad := newNarrow(t, srv)
	mute := join(t, srv, "call", "mute", guestOptions{rewrite: bad.rewrite})
	mute.sess.VideoOn("camera")
	defer mute.publish(webrtc.MimeTypeVP8, "camera").end()

	greedy := join(t, srv, "call", "greedy", guestOptions{})
	lossy := newNarrow(t, srv)
	deaf := join(t, srv, "call", "deaf", guestOptions{rewrite: lossy.rewrite})
	good := join(t, srv, "call", "good", guestOptions{})
	wanted := greedy.hears(classVideo, "alpha").track
	deaf.hears(classVideo, "alpha")
	heard := []*heardTrack{good.hears(classVideo, "alpha"), good.hears(classVoice, "alpha")}
	broken := good.hears(classVideo, "mute")

	bad.lose(rand.New(rand.NewPCG(1, 2)), 0.2)
	lossy.dropIn.Store(3)
	from := []int{good.count(heard[0]), good.count(heard[1]), good.count(broken)}
	var asked int
	until(t, "the good one to get 300 packets", func() bool {
		good.mu.Lock()
		last := heard[0].packets[len(heard[0].packets)-1].SequenceNumber
		good.mu.Unlock()
		var all []uint16
		for i := range uint16(100) {
			all = append(all, last-i)
		}
		_ = greedy.pc.WriteRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: uint32(wanted.SSRC()), Nacks: rtcp.NackPairsFromSequenceNumbers(all)}})
		asked++
		return good.count(heard[0]) > from[0]+300 && good.count(heard[1]) > from[1]+300 && good.count(broken) > from[2]+100
	})
	good.mu.Lock()
	defer good.mu.Unlock()
	for i, h := range heard {
		for k := from[i] + 1; k < len(h.packets); k++ {
			if before, now := h.packets[k-1].SequenceNumber, h.packets[k].SequenceNumber; now != before+1 {
				t.Fatalf("%s: packet %d after %d", h.media.Type, now, before)
			}
		}
	}
	if lossy.dropped.Load() < 100 || asked < 100 {
		t.Errorf("%d packets were lost, %d times all was asked for: the test tests nothing", lossy.dropped.Load(), asked)
	}
}
