package gateway_test

import (
	"net"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// TestVanishedBehindRelay: of a participant whose allocation is gone, and who
// says nothing, the session does not wait for ICE to give up, after 30 s.
func TestVanishedBehindRelay(t *testing.T) {
	x, g := startHere(t, nil)
	x.dialPlugin(x.API)
	x.call = peer.NewID()
	var lines []net.Conn
	c := x.participant(peer.TURNTLS)
	dial := c.DialTURN
	c.DialTURN = func(network, address string) (net.Conn, error) {
		line, err := dial(network, address)
		lines = append(lines, line)
		return line, err
	}
	p, err := peer.Join(within(t), x.plugin, c)
	must(t, err)
	if n := g.Status().Media.Sessions; n != 1 {
		t.Fatalf("%d sessions, want 1", n)
	}
	for _, line := range lines { // cut: from now on nothing can be said
		_ = line.Close()
	}
	must(t, p.Close())
	began := time.Now()
	for g.Status().Media.Sessions > 0 {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the session is still there after 20 s")
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("the session ended after %s", time.Since(began))
}
