package peer

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

const rigKey = "0123456789abcdef0123456789abcdef"

// A rig is the server's side as far as a peer can see it: the link, and for
// each session a pion connection that answers what a peer offers. Tests tell
// it what else to say.
type rig struct {
	t    *testing.T
	http *httptest.Server
	wg   sync.WaitGroup

	mu         sync.Mutex // guards the following
	registered bool
	registers  int
	conn       *websocket.Conn
	linked     chan struct{} // hears of each new conn
	seats      map[string]*seat
	envelopes  chan wire.Envelope // all that came
}

// A seat is the rig's side of one session.
type seat struct {
	rig     *rig
	session string
	join    wire.Join
	pc      *webrtc.PeerConnection

	mu      sync.Mutex // guards the following
	dc      *webrtc.DataChannel
	open    chan struct{}
	locked  bool
	refuse  int  // lock requests still to be refused
	glare   bool // offer something before answering the peer's next offer
	unlocks int
	locks   int
	answers chan wire.Description
	tracks  chan *webrtc.TrackRemote
}

func newRig(t *testing.T) *rig {
	t.Helper()
	noLeak(t)
	r := &rig{t: t, registered: true, seats: map[string]*seat{}, envelopes: make(chan wire.Envelope, 1000), linked: make(chan struct{}, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /register", r.register)
	mux.HandleFunc("/ws", r.link)
	r.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		r.http.Close()
		r.mu.Lock()
		for _, s := range r.seats {
			if err := s.pc.GracefulClose(); err != nil {
				t.Log(err)
			}
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *rig) config() LinkConfig {
	return LinkConfig{URL: r.http.URL, ClientID: "client", AuthKey: rigKey}
}

func (r *rig) register(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registers++
	if r.registered {
		http.Error(w, `{"code":"400","error":"registration failed: already registered"}`, http.StatusBadRequest)
		return
	}
	r.registered = true
	w.WriteHeader(http.StatusCreated)
}

func (r *rig) link(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	user, key, _ := q.BasicAuth()
	ok := r.registered && user == "client" && key == rigKey
	r.mu.Unlock()
	if !ok {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	conn, err := websocket.Accept(w, q, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	r.mu.Lock()
	r.conn = conn
	r.mu.Unlock()
	r.linked <- struct{}{}
	r.send(wire.Envelope{Type: wire.TypeHello, ClientID: user, ConnID: NewID()})
	for {
		_, frame, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		e, err := wire.Decode(frame)
		if err != nil {
			r.t.Errorf("peer sent %x: %v", frame, err)
			return
		}
		r.envelopes <- e
		r.obey(e)
	}
}

func (r *rig) send(e wire.Envelope) {
	frame, err := e.Append(nil)
	if err != nil {
		r.t.Error(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.conn.Write(context.Background(), websocket.MessageBinary, frame)
}

func (r *rig) obey(e wire.Envelope) {
	switch e.Type {
	case wire.TypeJoin:
		r.seat(e.Join)
	case wire.TypeLeave:
		r.send(wire.Envelope{Type: wire.TypeClose, Session: e.Session})
	case wire.TypeRTC:
		s := r.find(e.Message.Session)
		switch e.Message.Kind {
		case wire.KindSDP:
			d, err := wire.DecodeDescription(e.Message.Data)
			if err != nil {
				r.t.Error(err)
				return
			}
			s.describe(d, false)
		case wire.KindICE:
			c, err := wire.DecodeCandidate(e.Message.Data)
			if err != nil {
				r.t.Error(err)
				return
			}
			if err := s.pc.AddICECandidate(webrtc.ICECandidateInit(c)); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func (r *rig) find(session string) *seat {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seats[session]
}

// seat makes the server's connection for a session.
func (r *rig) seat(j wire.Join) {
	pc, err := newConnection(&Config{Logger: discard(), AV1: true})
	if err != nil {
		r.t.Error(err)
		return
	}
	s := &seat{rig: r, session: j.Session, join: j, pc: pc, open: make(chan struct{}),
		answers: make(chan wire.Description, 10), tracks: make(chan *webrtc.TrackRemote, 10)}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			s.rtc(wire.KindICE, wire.EncodeCandidate(wire.Candidate(c.ToJSON())))
		}
	})
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { s.tracks <- t })
	pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		s.mu.Lock()
		s.dc = dc
		s.mu.Unlock()
		dc.OnOpen(func() { close(s.open) })
		dc.OnMessage(s.hear)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seats[j.Session] = s
}

func (s *seat) rtc(k wire.Kind, data []byte) {
	typ := wire.TypeRTC
	if k == wire.KindVoiceOn || k == wire.KindVoiceOff {
		typ = wire.TypeVAD
	}
	s.rig.send(wire.Envelope{Type: typ, Message: wire.Message{Group: "client", User: s.join.User, Session: s.session, Call: s.join.Call, Kind: k, Data: data}})
}

func (s *seat) say(m wire.ChannelMessage) {
	b, err := m.Append(nil)
	if err != nil {
		s.rig.t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.dc.Send(b)
}

func (s *seat) hear(m webrtc.DataChannelMessage) {
	c, err := wire.DecodeChannel(m.Data)
	if err != nil {
		s.rig.t.Errorf("peer said %x: %v", m.Data, err)
		return
	}
	switch c.Type {
	case wire.ChannelPing:
		s.say(wire.ChannelMessage{Type: wire.ChannelPong})
	case wire.ChannelLock:
		s.mu.Lock()
		s.locks++
		granted := !s.locked && s.refuse == 0
		s.locked = s.locked || granted
		s.refuse = max(s.refuse-1, 0)
		s.mu.Unlock()
		s.say(wire.ChannelMessage{Type: wire.ChannelLock, Granted: &granted})
	case wire.ChannelUnlock:
		s.mu.Lock()
		s.locked = false
		s.unlocks++
		s.mu.Unlock()
	case wire.ChannelSDP:
		s.describe(c.SDP, true)
	}
}

// describe answers offers the way they came, and takes answers in.
func (s *seat) describe(d wire.Description, channel bool) {
	t := webrtc.NewSDPType(d.Type)
	if t == webrtc.SDPTypeAnswer && s.pc.SignalingState() == webrtc.SignalingStateStable {
		s.answers <- d // to the offer of glare
		return
	}
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: t, SDP: d.SDP}); err != nil {
		s.rig.t.Errorf("%s of the peer: %v", d.Type, err)
		return
	}
	if t == webrtc.SDPTypeAnswer {
		s.answers <- d
		return
	}
	s.collide()
	answer, err := s.pc.CreateAnswer(nil)
	if err == nil {
		err = s.pc.SetLocalDescription(answer)
	}
	if err != nil {
		s.rig.t.Errorf("answer the peer: %v", err)
		return
	}
	s.describeUs(answer, channel)
}

// collide sends an offer that the peer cannot take now. It repeats what is
// agreed and is not set here, so that the peer's own offer can be answered.
func (s *seat) collide() {
	s.mu.Lock()
	glare := s.glare
	s.glare = false
	s.mu.Unlock()
	if !glare {
		return
	}
	offer, err := s.pc.CreateOffer(nil)
	if err != nil {
		s.rig.t.Error(err)
		return
	}
	s.describeUs(offer, true)
}

func (s *seat) describeUs(d webrtc.SessionDescription, channel bool) {
	ours := wire.Description{Type: d.Type.String(), SDP: d.SDP}
	if channel {
		s.say(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: ours})
		return
	}
	s.rtc(wire.KindSDP, wire.EncodeDescription(ours))
}

// offer sends a track of another session to the peer.
func (s *seat) offer(kind, sender string) *source {
	mime := webrtc.MimeTypeOpus
	if kind == screen || kind == camera {
		mime = webrtc.MimeTypeVP8
	}
	src := newSource(mime, kind+"_"+sender+"_12345678", sender)
	src.video = Video{Bitrate: 500_000, FPS: 25}
	src.spawn = s.rig.wg.Go
	if _, err := s.pc.AddTrack(src); err != nil {
		s.rig.t.Fatal(err)
	}
	s.renegotiate(func(mid string) map[string]wire.Media {
		return map[string]wire.Media{mid: {Type: kind, Sender: sender}}
	})
	return src
}

// renegotiate sends the media map that announce makes for the last m-line, and
// an offer.
func (s *seat) renegotiate(announce func(mid string) map[string]wire.Media) {
	offer, err := s.pc.CreateOffer(nil)
	if err == nil {
		err = s.pc.SetLocalDescription(offer)
	}
	if err != nil {
		s.rig.t.Fatal(err)
	}
	all := s.pc.GetTransceivers()
	s.say(wire.ChannelMessage{Type: wire.ChannelMap, Media: announce(all[len(all)-1].Mid())})
	s.describeUs(offer, s.join.DCSignaling)
}

func (s *seat) answered() wire.Description {
	s.rig.t.Helper()
	return receive(s.rig.t, s.answers, "an answer")
}

// counts returns how often the peer asked for the lock and gave it back.
func (s *seat) counts() (locks, unlocks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks, s.unlocks
}

// expect returns the next envelope of the session with this kind, or type if
// kind is 0, and fails on none.
func (r *rig) expect(typ string, kind wire.Kind) wire.Envelope {
	r.t.Helper()
	for {
		e := receive(r.t, r.envelopes, fmt.Sprintf("%s %d", typ, kind))
		if e.Type == typ && e.Message.Kind == kind {
			return e
		}
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(45 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// enter joins a peer to the rig and returns both ends.
func (r *rig) enter(c Config) (*Peer, *seat) {
	r.t.Helper()
	m, err := DialMux(r.t.Context(), r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = m.Close() })
	c.Call = "call"
	p, err := Join(r.t.Context(), m, c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = p.Close() })
	s := r.find(p.Session())
	receive(r.t, s.open, "the data channel")
	return p, s
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// noLeak fails the test if goroutines of it are left when all is cleaned up.
func noLeak(t *testing.T) {
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		deadline := time.Now().Add(30 * time.Second)
		for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond) // pion ends some goroutines after Close
		}
		if n := runtime.NumGoroutine(); n > before {
			buf := make([]byte, 1<<20)
			stacks := string(buf[:runtime.Stack(buf, true)])
			t.Errorf("%d goroutines before, %d after:\n%s", before, n, strings.TrimSpace(stacks))
		}
	})
}
