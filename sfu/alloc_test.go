package sfu

import (
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/sfu/internal/srtp"
)

// TestForwardingAllocatesNothing: the whole way of a packet, from the publisher's
// socket through the mux, decryption, the fan-out, encryption and the outbox to the
// sockets of several receivers, of which one is behind TCP.
func TestForwardingAllocatesNothing(t *testing.T) {
	for way, o := range socketWays {
		for _, profile := range []srtp.Profile{srtp.AEADAES128GCM, srtp.AES128CMSHA1x80} {
			for _, x := range []struct {
				name    string
				publish func(testing.TB, *Server, srtp.Profile) *speaker
				receive func(l *leg, s *speaker, ssrc uint32)
				most    float64 // allocations for a packet that goes out
			}{
				{"voice", func(t testing.TB, srv *Server, p srtp.Profile) *speaker { return newSpeaker(t, srv, p, classVoice) },
					func(l *leg, s *speaker, ssrc uint32) { l.hears(s, ssrc) }, 0},
				{"video", newCamera, func(l *leg, s *speaker, ssrc uint32) { l.watches(s, ssrc, 0) }, 0},
				{"layer", newLayer, func(l *leg, s *speaker, ssrc uint32) { l.watches(s, ssrc, 0) }, 0},
				// The library's bandwidth estimator notes each packet in a list, and more now and then.
				{"layer with congestion control", newLayer, func(l *leg, s *speaker, ssrc uint32) { l.watches(s, ssrc, 5) }, 2.1},
			} {
				if profile != srtp.AEADAES128GCM && x.name != "voice" {
					continue // one is enough to try the other cipher
				}
				t.Run(fmt.Sprintf("%s/%v/%s", way, profile, x.name), func(t *testing.T) {
					s := x.publish(t, newStage(t, o), profile)
					if a := allocationsOf(t, s, func(l *leg, ssrc uint32) { x.receive(l, s, ssrc) }); a > x.most+ofRace() {
						t.Errorf("%v allocations for a packet that goes out, want %v", a, x.most)
					}
				})
			}
		}
	}
}

// ofRace is what the race detector costs: it makes pools forget a quarter of what
// they are given, and what waits for the TCP connection is pooled.
func ofRace() float64 {
	if raceEnabled {
		return 0.2
	}
	return 0
}

// allocationsOf forwards the packets of s to five receivers and returns how many
// allocations that takes for one that goes out.
func allocationsOf(t *testing.T, s *speaker, receive func(l *leg, ssrc uint32)) float64 {
	t.Helper()
	var conns []net.Conn
	for i := range 4 {
		l := addLeg(t, s.srv, s.media.in.Profile(), fmt.Sprint("receiver", i))
		receive(l, uint32(100+i))
		conns = append(conns, l.conn)
	}
	behind := addLeg(t, s.srv, s.media.in.Profile(), "behind TCP")
	stream := behind.overTCP("behind TCP", 0)
	receive(behind, 200)
	var came atomic.Int64
	var reading sync.WaitGroup
	reading.Go(func() { // it may miss some: nobody waits for TCP
		for buf := make([]byte, 64<<10); ; came.Add(1) {
			if _, err := stream.Read(buf); err != nil {
				return
			}
		}
	})
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	}
	buf := make([]byte, 2*maxDatagram)
	const together = 8 // packets of the publisher: one allocation for forty that go out is found
	round := func() {
		s.shows(t, together)
		for _, c := range conns {
			for range together {
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	round()
	s.delta()
	n := math.Inf(1)
	for range 3 { // a collection in between empties the pools
		n = min(n, testing.AllocsPerRun(10, round))
	}
	_ = stream.Close()
	reading.Wait()
	if came.Load() == 0 {
		t.Error("nothing came over TCP")
	}
	return n / float64(5*together)
}
