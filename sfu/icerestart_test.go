package sfu

import (
	"testing"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// TestICERestart: the participant begins ICE anew, as after a change of its
// network, and the media it sends and gets goes on, without a new session. Over
// UDP only: after a restart the agent of these guests now and then sends no
// check over its new TCP connection.
func TestICERestart(t *testing.T) {
	for name, o := range map[string]guestOptions{"signaling through the front door": {}, "signaling on the data channel": {dc: true}} {
		t.Run(name, func(t *testing.T) { testICERestart(t, o) })
	}
}

func testICERestart(t *testing.T, o guestOptions) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", o), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	b.publish(webrtc.MimeTypeOpus, "b")
	atA, atB := a.hears(classVoice, "beta"), b.hears(classVoice, "alpha")
	for range 2 {
		before, _ := sdpCredentials(a.pc.RemoteDescription().SDP)
		a.restartICE()
		after, ok := sdpCredentials(a.pc.RemoteDescription().SDP)
		if !ok || after.ufrag == before.ufrag || after.password == before.password {
			t.Errorf("the server's credentials stay %q after a restart", after.ufrag)
		}
		until(t, "ICE to connect again", func() bool { return a.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected })
		n, m := a.count(atA), b.count(atB)
		until(t, "media both ways", func() bool { return a.count(atA) > n+20 && b.count(atB) > m+20 })
	}
	srv.mux.mu.RLock()
	conns := len(srv.mux.conns)
	srv.mux.mu.RUnlock()
	if conns != 2 {
		t.Errorf("%d connections of two sessions", conns)
	}
	srv.keys.mu.RLock()
	defer srv.keys.mu.RUnlock()
	if n := len(srv.keys.pairs); n != 2 {
		t.Errorf("credentials of %d sessions, want 2", n)
	}
}

// restartICE negotiates with new ICE credentials.
func (g *guest) restartICE() {
	g.t.Helper()
	g.lock()
	offer, err := g.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	gathered := webrtc.GatheringCompletePromise(g.pc)
	if err == nil {
		err = g.pc.SetLocalDescription(offer)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-gathered:
	case <-time.After(patience):
		g.t.Fatal("gathering does not end")
	}
	// The data channel is on the transport that restarts: clients without
	// another road could not do this.
	g.sess.Describe(wire.Description{Type: "offer", SDP: g.pc.LocalDescription().SDP})
	select {
	case a := <-g.answers:
		g.accept(a)
	case <-time.After(patience):
		g.t.Fatalf("%s: no answer to its offer", g.name)
	}
	until(g.t, "the lock to be free", func() bool {
		return g.dc.ReadyState() == webrtc.DataChannelStateOpen && g.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected
	})
	g.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
}
