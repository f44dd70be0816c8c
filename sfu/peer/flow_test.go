package peer_test

import (
	"context"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// A stream runs as it is told to, its receiver gets all of it, and the server reports
// all of it as received.
func TestStream(t *testing.T) {
	h := newHouse(t)
	speaker, listener := h.join(peer.Config{}), h.join(peer.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := speaker.Stream(ctx); err != nil {
		t.Fatal(err)
	}
	speaker.SetFlow(peer.Flow{PerSecond: 50})
	track, err := listener.WaitTrack(ctx, "voice", speaker.Session())
	if err != nil {
		t.Fatal(err)
	}
	speaker.SetFlow(peer.Flow{PerSecond: 500, Size: 1000}) // what a socket holds while its reader waits for a processor
	if err := track.WaitPackets(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	speaker.SetFlow(peer.Flow{})
	wait(ctx, t, "the server has reported everything", func() bool {
		s := speaker.Sent("voice")
		return s.Packets > 1000 && s.Acknowledged == s.Packets
	})
	if s := speaker.Sent("voice"); s.Lost > 0 || s.Bytes < 900*1000 {
		t.Errorf("sent %+v", s)
	}
	if s := track.Stats(); s.Lost > 0 || s.Foreign > 0 || s.Packets > speaker.Sent("voice").Packets {
		t.Errorf("received %+v", s)
	}
}

// wait polls until met.
func wait(ctx context.Context, t *testing.T, what string, met func() bool) {
	t.Helper()
	for !met() {
		select {
		case <-ctx.Done():
			t.Fatalf("wait until %s: %v", what, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
