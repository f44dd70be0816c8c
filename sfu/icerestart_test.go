package sfu

import (
	"testing"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// TestICERestart: the participant begins ICE anew, as after a change of its
// network, and the media it sends and gets goes on, without a new session.
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

// TestICERestartOverTCP: after a restart the agent of these guests now and then
// sends no check over its new TCP connection; then it begins anew once more.
func TestICERestartOverTCP(t *testing.T) {
	srv := startServer(t)
	a, b := join(t, srv, "call", "alpha", guestOptions{tcp: true}), join(t, srv, "call", "beta", guestOptions{})
	a.publish(webrtc.MimeTypeOpus, "a")
	b.publish(webrtc.MimeTypeOpus, "b")
	atA, atB := a.hears(classVoice, "beta"), b.hears(classVoice, "alpha")
	goesOn := func() bool {
		n, m := a.count(atA), b.count(atB)
		for deadline := time.Now().Add(patience / 5); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if a.count(atA) > n+20 && b.count(atB) > m+20 {
				return true
			}
		}
		return false
	}
	before := a.sess.media.way.Load()
	tries := 1
	for ; ; tries++ {
		a.offerRestart()
		if goesOn() && a.sess.media.way.Load() != before {
			break
		}
		if tries == 5 {
			t.Fatalf("no media both ways after %d restarts", tries)
		}
	}
	t.Logf("%d restarts", tries)
	if w := a.sess.media.way.Load(); w.tcp == nil || w.remote == before.remote {
		t.Errorf("media goes on over %v, before over %v", w, before)
	}
	srv.tcp.mu.Lock()
	conns := len(srv.tcp.conns)
	srv.tcp.mu.Unlock()
	if conns != 2 {
		t.Errorf("TCP candidates of %d ICE agents for two sessions", conns)
	}
}

// restartICE negotiates with new ICE credentials.
func (g *guest) restartICE() {
	g.t.Helper()
	g.lock()
	g.offerRestart()
	until(g.t, "the lock to be free", func() bool {
		return g.dc.ReadyState() == webrtc.DataChannelStateOpen && g.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected
	})
	g.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
}

// offerRestart is the part of restartICE that needs no connection.
func (g *guest) offerRestart() {
	g.t.Helper()
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
}
