package peer_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"sallyport/sfu/peer"
)

// bulk runs one until the test ends.
func bulk(t *testing.T) *peer.Bulk {
	t.Helper()
	b, err := peer.NewBulk()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return b
}

// A peer that counts gets as many packets as one that decrypts them, with either
// encryption, and publishes like any other.
func TestBulkCountsWhatOthersVerify(t *testing.T) {
	for _, srtp := range []peer.SRTP{peer.GCM, peer.AESCM} {
		t.Run(srtp.String(), func(t *testing.T) {
			h := newHouse(t)
			b := bulk(t)
			var window peer.Window
			speaker := h.join(peer.Config{Path: peer.UDP, SRTP: srtp, Window: &window, Bulk: b})
			verifier := h.join(peer.Config{Path: peer.UDP, SRTP: srtp, Window: &window})
			counter := h.join(peer.Config{Path: peer.UDP, SRTP: srtp, Window: &window, Bulk: b})
			if err := speaker.Unmute(soon(t)); err != nil {
				t.Fatal(err)
			}
			if err := speaker.ShareScreen(soon(t), peer.Video{Bitrate: 2_000_000, FPS: 25}); err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"voice", "screen"} {
				sure, err := verifier.WaitTrack(soon(t), kind, speaker.Session())
				if err != nil {
					t.Fatal(err)
				}
				counted, err := counter.WaitTrack(soon(t), kind, speaker.Session())
				if err != nil {
					t.Fatal(err)
				}
				window.Open()
				if err := sure.WaitPackets(soon(t), sure.Stats().Packets+100); err != nil {
					t.Fatal(err)
				}
				window.Close()
				if err := sure.WaitPackets(soon(t), sure.Stats().Packets+10); err != nil { // and all on its way
					t.Fatal(err)
				}
				want, got := sure.Stats(), counted.Stats()
				if !got.Counted || want.Counted {
					t.Errorf("%s: counted %v and %v", kind, got.Counted, want.Counted)
				}
				if all := got.Measured + got.After; got.Lost != 0 || got.Missing != 0 || got.Duplicates != 0 || got.Measured == 0 || all < want.Measured {
					t.Errorf("%s: counted %+v where %d were verified", kind, got, want.Measured)
				}
			}
			if s := speaker.Sent("screen"); s.KeyFrames < 1 {
				t.Errorf("the screen of a peer with a Bulk: %+v", s)
			}
		})
	}
}

// A socket of a Bulk does what ICE asks of one.
func TestBulkSocketCloses(t *testing.T) {
	h := newHouse(t)
	b := bulk(t)
	for range 3 {
		p := h.join(peer.Config{Path: peer.UDP, Bulk: b})
		if err := p.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if n := b.Sockets(); n != 0 {
			t.Errorf("%d sockets are left of a closed peer", n)
		}
	}
}
