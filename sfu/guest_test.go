package sfu

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// patience bounds every wait of these tests.
const patience = 45 * time.Second

// startServer runs a server on loopback until the test ends, and fails the test
// if it leaves goroutines behind.
func startServer(t *testing.T, hairpins ...net.PacketConn) *Server {
	t.Helper()
	before := runtime.NumGoroutine()
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(socks, Options{Hairpins: hairpins})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Fatalf("more goroutines than before:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
	return srv
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// A guest is a participant of a test: a pion client that speaks the data channel
// protocol and answers every offer.
type guest struct {
	o    guestOptions
	t    *testing.T
	name string
	sess *Session
	pc   *webrtc.PeerConnection
	dc   *webrtc.DataChannel

	answers chan wire.Description // to its own offers
	granted chan bool             // lock answers
	open    chan struct{}         // data channel
	closed  chan struct{}         // Signal.Closed
	ending  atomic.Bool           // the test is over: nothing is an error any longer

	mu      sync.Mutex // guards the following
	offers  int
	silent  bool // do not answer offers
	held    *wire.Description
	voice   []bool
	media   map[string]wire.Media
	heard   map[string]*heardTrack // by track ID
	pending []webrtc.ICECandidateInit
}

type heardTrack struct {
	track   *webrtc.TrackRemote
	media   wire.Media // from the map when the track event fired
	packets []rtp.Header
	payload int
}

type guestOptions struct {
	media   func(*webrtc.MediaEngine, *interceptor.Registry) // what else it can do
	rewrite func(string) string                              // applied to every description and candidate of the server
	packet  func(*webrtc.TrackRemote, *rtp.Packet)           // called with all it receives
	dc      bool                                             // signaling over the data channel
	tcp     bool
	av1     bool
	bot     bool // knows no video at all
	active  bool // be the DTLS client

	settings func(*webrtc.SettingEngine)
}

func (o guestOptions) seen(s string) string {
	if o.rewrite == nil {
		return s
	}
	return o.rewrite(s)
}

// join brings a guest into a call and waits for its data channel.
func join(t *testing.T, srv *Server, call, name string, o guestOptions) *guest {
	t.Helper()
	g := newGuest(t, name, o)
	g.enter(srv, call)
	g.accept(<-g.answers)
	select {
	case <-g.open:
	case <-time.After(patience):
		t.Fatalf("%s: data channel did not open; peer connection %s", name, g.pc.ConnectionState())
	}
	return g
}

// enter joins a call and makes the first offer.
func (g *guest) enter(srv *Server, call string) {
	g.t.Helper()
	sess, err := srv.Join(Member{Group: "group", Call: call, User: "user-" + g.name, Session: g.name, DCSignaling: g.o.dc, AV1: g.o.av1}, g)
	if err != nil {
		g.t.Fatal(err)
	}
	g.sess = sess
	offer, err := g.pc.CreateOffer(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.pc.SetLocalDescription(offer); err != nil {
		g.t.Fatal(err)
	}
	if g.o.active {
		offer.SDP = strings.ReplaceAll(offer.SDP, "a=setup:actpass", "a=setup:active")
	}
	sess.Describe(wire.Description{Type: "offer", SDP: offer.SDP})
}

func newGuest(t *testing.T, name string, o guestOptions) *guest {
	t.Helper()
	m := webrtc.MediaEngine{}
	if o.bot {
		if err := m.RegisterCodec(opusOnly(), webrtc.RTPCodecTypeAudio); err != nil {
			t.Fatal(err)
		}
	} else if err := registerCodecs(&m); err != nil {
		t.Fatal(err)
	}
	var e webrtc.SettingEngine
	e.SetIncludeLoopbackCandidate(true)
	e.SetInterfaceFilter(func(n string) bool { return n == "lo" })
	e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	if o.tcp {
		e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	e.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	e.LoggerFactory = pionLog{discard}
	if o.settings != nil {
		o.settings(&e)
	}
	chain := &interceptor.Registry{}
	if o.media != nil {
		o.media(&m, chain)
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(&m), webrtc.WithSettingEngine(e), webrtc.WithInterceptorRegistry(chain))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{
		t: t, name: name, pc: pc, o: o,
		answers: make(chan wire.Description, 16), granted: make(chan bool, 16),
		open: make(chan struct{}), closed: make(chan struct{}),
		heard: map[string]*heardTrack{},
	}
	t.Cleanup(func() {
		g.ending.Store(true)
		_ = pc.GracefulClose()
	})
	pc.OnTrack(g.onTrack)
	if g.dc, err = pc.CreateDataChannel("calls-dc", nil); err != nil {
		t.Fatal(err)
	}
	g.dc.OnOpen(func() { close(g.open) })
	g.dc.OnMessage(func(m webrtc.DataChannelMessage) { g.onMessage(m.Data) })
	return g
}

func (g *guest) onTrack(tr *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	h := &heardTrack{track: tr}
	g.mu.Lock()
	h.media = g.media[r.RTPTransceiver().Mid()]
	g.heard[tr.ID()] = h
	g.mu.Unlock()
	for {
		p, _, err := tr.ReadRTP()
		if err != nil {
			return
		}
		g.mu.Lock()
		h.packets = append(h.packets, p.Header)
		if g.o.packet != nil {
			g.o.packet(tr, p)
		}
		h.payload += len(p.Payload)
		g.mu.Unlock()
	}
}

func (g *guest) onMessage(b []byte) {
	m, err := wire.DecodeChannel(b)
	if err != nil {
		g.errorf("data channel: %v", err)
		return
	}
	switch m.Type {
	case wire.ChannelSDP:
		if m.SDP.Type == "offer" {
			g.Offer(m.SDP)
		} else {
			g.answers <- m.SDP
		}
	case wire.ChannelLock:
		g.granted <- *m.Granted
	case wire.ChannelMap:
		g.mu.Lock()
		g.media = m.Media
		g.mu.Unlock()
	}
}

func (g *guest) send(m wire.ChannelMessage) {
	b, err := m.Append(nil)
	if err == nil {
		err = g.dc.Send(b)
	}
	if err != nil {
		g.errorf("send: %v", err)
	}
}

func (g *guest) errorf(format string, args ...any) {
	if !g.ending.Load() {
		g.t.Errorf(g.name+": "+format, args...)
	}
}

// Answer implements Signal.
func (g *guest) Answer(d wire.Description) { g.answers <- d }

// Offer implements Signal: it answers on the road the session wants.
func (g *guest) Offer(d wire.Description) {
	g.mu.Lock()
	g.offers++
	if g.silent {
		g.held = &d
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	go g.reply(d)
}

func (g *guest) reply(d wire.Description) {
	if err := g.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: g.o.seen(d.SDP)}); err != nil {
		g.errorf("take offer: %v", err)
		return
	}
	a, err := g.pc.CreateAnswer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(a)
	}
	if err != nil {
		g.errorf("answer: %v", err)
		return
	}
	if g.sess.member.DCSignaling {
		g.send(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: wire.Description{Type: "answer", SDP: a.SDP}})
	} else {
		g.sess.Describe(wire.Description{Type: "answer", SDP: a.SDP})
	}
}

// Candidate implements Signal.
func (g *guest) Candidate(c wire.Candidate) {
	init := webrtc.ICECandidateInit{Candidate: g.o.seen(c.Candidate), SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pc.RemoteDescription() == nil {
		g.pending = append(g.pending, init)
		return
	}
	_ = g.pc.AddICECandidate(init)
}

// Voice implements Signal.
func (g *guest) Voice(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.voice = append(g.voice, on)
}

// Closed implements Signal.
func (g *guest) Closed() { close(g.closed) }

func (g *guest) accept(d wire.Description) {
	if err := g.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: g.o.seen(d.SDP)}); err != nil {
		g.t.Fatalf("%s: take answer: %v", g.name, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.pending {
		_ = g.pc.AddICECandidate(c)
	}
	g.pending = nil
}

// lock takes the signaling lock as clients do.
func (g *guest) lock() {
	g.t.Helper()
	until(g.t, "the lock", func() bool {
		g.send(wire.ChannelMessage{Type: wire.ChannelLock})
		select {
		case ok := <-g.granted:
			return ok
		case <-time.After(patience):
			return false
		}
	})
}

// negotiate changes the guest's tracks under the lock.
func (g *guest) negotiate(change func()) {
	g.t.Helper()
	g.lock()
	change()
	offer, err := g.pc.CreateOffer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(offer)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	d := wire.Description{Type: "offer", SDP: offer.SDP}
	if g.sess.member.DCSignaling {
		g.send(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: d})
	} else {
		g.sess.Describe(d)
	}
	select {
	case a := <-g.answers:
		g.accept(a)
	case <-time.After(patience):
		g.t.Fatalf("%s: no answer to its offer", g.name)
	}
	g.send(wire.ChannelMessage{Type: wire.ChannelUnlock})
}

// hears waits until g gets packets of a class from a publisher and returns the
// track.
func (g *guest) hears(class, from string) *heardTrack {
	g.t.Helper()
	var found *heardTrack
	until(g.t, g.name+" to get "+class+" of "+from, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		for id, h := range g.heard {
			if strings.HasPrefix(id, class+"_"+from+"_") && len(h.packets) > 5 {
				found = h
			}
		}
		return found != nil
	})
	return found
}

func (g *guest) count(h *heardTrack) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(h.packets)
}

func (g *guest) offered() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.offers
}

// sending returns what the media map says at the moment, by class and sender.
func (g *guest) sending() map[wire.Media]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[wire.Media]int{}
	for _, m := range g.media {
		out[m]++
	}
	return out
}

// heardOf lists the tracks of a class and publisher that g has ever got.
func (g *guest) heardOf(class, from string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for id := range g.heard {
		if strings.HasPrefix(id, class+"_"+from+"_") {
			out = append(out, id)
		}
	}
	return out
}
