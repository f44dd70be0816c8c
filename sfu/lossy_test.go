package sfu

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestEveryoneJoinsOverALossyPath: a tenth of all packets is lost both ways, those
// of ICE, DTLS and SCTP handshakes among them. Nobody may be left without a data
// channel for good, which is what happens when both sides have lost their patience in
// the wrong order.
func TestEveryoneJoinsOverALossyPath(t *testing.T) {
	srv := startServer(t)
	var all sync.WaitGroup
	for i := range 40 {
		n := newNarrow(t, srv)
		n.lose(rand.New(rand.NewPCG(1, uint64(i))), 0.1)
		g := newGuest(t, fmt.Sprint("guest", i), guestOptions{rewrite: n.rewrite})
		g.enter(srv, "call"+g.name)
		all.Go(func() {
			g.accept(<-g.answers)
			select {
			case <-g.open:
			case <-time.After(2 * time.Minute):
				t.Errorf("%s: no data channel; peer connection %s, SCTP %s", g.name, g.pc.ConnectionState(), g.pc.SCTP().State())
			}
		})
	}
	all.Wait()
}
