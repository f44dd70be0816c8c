package gateway_test

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/sfu/peer"
)

// TestLeavingFreesEverything: three times twenty participants come over every
// path and go again, and nothing of them stays.
func TestLeavingFreesEverything(t *testing.T) {
	x, g := startHere(t, nil)
	x.dialPlugin(x.API)
	x.meeting(g, 3) // what is made once is made now: pools, buffers, connections
	goroutines, heap := settledAt(0)
	for range 3 {
		x.meeting(g, 20)
	}
	gNow, hNow := settledAt(goroutines)
	t.Logf("goroutines %d, before %d; heap %d KiB, before %d KiB", gNow, goroutines, hNow>>10, heap>>10)
	if gNow > goroutines {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", gNow, goroutines, buf[:runtime.Stack(buf, true)])
	}
	// The client halves of 60 participants, kept, were measured as 9.6 MiB.
	if hNow > heap+4<<20 {
		t.Errorf("%d KiB of heap, %d before", hNow>>10, heap>>10)
	}
}

// meeting lets n participants come, four of them speak, all hear them, and all
// leave; some of them without a word.
func (x *target) meeting(g *gateway.Gateway, n int) {
	x.t.Helper()
	paths := []peer.Path{peer.UDP, peer.TCP, peer.TURNUDP, peer.TURNTCP, peer.TURNTLS}
	x.call = peer.NewID()
	peers := make([]*peer.Peer, n)
	var all sync.WaitGroup
	for i := range peers {
		all.Go(func() {
			var err error
			if peers[i], err = peer.Join(within(x.t), x.plugin, x.participant(paths[i%len(paths)])); err != nil {
				x.t.Error(err)
			}
		})
	}
	all.Wait()
	if x.t.Failed() {
		x.t.FailNow()
	}
	speakers := peers[:min(n, 4)]
	for _, p := range speakers {
		must(x.t, p.Unmute(within(x.t)))
	}
	for _, p := range peers {
		for _, from := range speakers {
			if p == from {
				continue
			}
			track, err := p.WaitTrack(within(x.t), "voice", from.Session())
			must(x.t, err)
			must(x.t, track.WaitPackets(within(x.t), 5))
		}
	}
	if s := g.Status(); s.Media.Sessions != n || s.Media.Calls != 1 {
		x.t.Errorf("%d sessions in %d calls, want %d in one", s.Media.Sessions, s.Media.Calls, n)
	}
	for i, p := range peers {
		all.Go(func() {
			// A relay is gone before its last packets are; what they would have
			// said shows only when ICE gives up.
			leave := p.Leave
			if paths[i%len(paths)] < peer.TURNUDP && i%2 == 0 {
				leave = func(context.Context) error { return p.Close() }
			}
			if err := leave(within(x.t)); err != nil {
				x.t.Error(err)
			}
		})
	}
	all.Wait()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s := g.Status()
		a := s.TURN.Allocations
		if s.Media.Sessions+s.Media.Calls+a["udp"]+a["tcp"]+a["tls"] == 0 {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("still there: %+v, %+v", s.Media, s.TURN)
		}
	}
}

// settledAt counts goroutines and bytes of heap, once there are no more than
// want of the former, or with 0 as many as the last time it looked.
func settledAt(want int) (goroutines int, heap uint64) {
	last := 0
	for end := time.Now().Add(patience / 3); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		http.DefaultClient.CloseIdleConnections()
		goroutines = runtime.NumGoroutine()
		if goroutines <= want || want == 0 && goroutines == last {
			break
		}
		last = goroutines
	}
	for range 3 { // what is pooled, or has a finalizer, survives the first
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return goroutines, m.HeapAlloc
}
