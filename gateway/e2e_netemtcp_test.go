package gateway_test

import (
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// TestNetemTCP and TestNetemTURN: the same where the receiver's packets go over
// TCP, so that a full link holds them up and loses none. When it gets narrow, TCP
// has to find out for itself, and everything waits for what it sends again; then
// voice overtakes video.
func TestNetemTCP(t *testing.T) { testNarrowStream(t, peer.TCP) }

func TestNetemTURN(t *testing.T) { testNarrowStream(t, peer.TURNTLS) }

func testNarrowStream(t *testing.T, path peer.Path) {
	inNetwork(t, func(n *network) {
		a := n.stage(nil)
		b := n.audience(path, nil)
		n.cut(a, b, limits{down: 4 * time.Second, calm: 3 * time.Second, up: 5 * time.Second, voice: 0.02, freeze: time.Second})
	})
}
