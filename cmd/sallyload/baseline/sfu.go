package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

const inboxLength = 4096

// The sfu is all calls and their sessions.
type sfu struct {
	api *webrtc.API

	mu       sync.Mutex // guards the following, and all of the calls
	sessions map[string]*session
	calls    map[string]*call
}

// A call is the sessions that hear each other and what they publish.
type call struct {
	members map[*session]bool
	tracks  map[*webrtc.TrackLocalStaticRTP]*published
}

// A published track, and how to ask its publisher for a key frame.
type published struct {
	from       *session
	keyFrame   func()
	subscribed map[*session]*webrtc.RTPSender
}

// A session is one participant.
type session struct {
	sfu    *sfu
	link   *link
	member wire.Join
	pc     *webrtc.PeerConnection

	inbox   chan func() error
	done    chan struct{}
	once    sync.Once
	channel atomic.Pointer[webrtc.DataChannel]
	screen  atomic.Pointer[string] // stream ID

	// Owned by run.
	locked  bool // the participant changes what it publishes
	changed bool // there is something to offer
	early   []webrtc.ICECandidateInit
}

func (s *sfu) find(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

func (s *sfu) join(l *link, member wire.Join) {
	pc, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "baseline: join:", err)
		return
	}
	x := &session{sfu: s, link: l, member: member, pc: pc, inbox: make(chan func() error, inboxLength), done: make(chan struct{})}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			x.signal(wire.KindICE, wire.EncodeCandidate(wire.Candidate(c.ToJSON())))
		}
	})
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateFailed {
			x.end()
		}
	})
	pc.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnOpen(func() {
			x.channel.Store(dc)
			x.post(func() error { return x.enter() })
		})
		dc.OnMessage(x.hear)
	})
	pc.OnTrack(x.forward)
	s.mu.Lock()
	s.sessions[member.Session] = x
	s.mu.Unlock()
	go x.run()
}

// run does what the participant says, in order.
func (x *session) run() {
	for {
		select {
		case <-x.done:
			return
		case do := <-x.inbox:
			if err := do(); err != nil {
				fmt.Fprintf(os.Stderr, "baseline: session %s: %v\n", x.member.Session, err)
			}
		}
	}
}

func (x *session) post(do func() error) {
	select {
	case x.inbox <- do:
	case <-x.done:
	}
}

// end takes the session out of its call.
func (x *session) end() {
	x.once.Do(func() {
		close(x.done)
		s := x.sfu
		s.mu.Lock()
		delete(s.sessions, x.member.Session)
		if c := s.calls[x.member.Call]; c != nil {
			delete(c.members, x)
			for _, p := range c.tracks {
				delete(p.subscribed, x)
			}
			if len(c.members) == 0 {
				delete(s.calls, x.member.Call)
			}
		}
		s.mu.Unlock()
		x.link.send(wire.Envelope{Type: wire.TypeClose, Session: x.member.Session})
		go func() { _ = x.pc.Close() }() // it waits for callbacks, and this may be one
	})
}

// enter lets a connected participant into its call.
func (x *session) enter() error {
	s := x.sfu
	s.mu.Lock()
	c := s.calls[x.member.Call]
	if c == nil {
		c = &call{members: map[*session]bool{}, tracks: map[*webrtc.TrackLocalStaticRTP]*published{}}
		s.calls[x.member.Call] = c
	}
	c.members[x] = true
	s.mu.Unlock()
	return x.offer()
}

// forward sends what a participant publishes to all others, until it ends.
func (x *session) forward(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
	kind := "voice"
	if remote.Kind() == webrtc.RTPCodecTypeVideo {
		kind = "video"
		if stream := x.screen.Load(); stream != nil && *stream == remote.StreamID() {
			kind = "screen"
		}
	}
	id := kind + "_" + x.member.Session + "_" + fmt.Sprintf("%08x", uint32(remote.SSRC()))
	track, err := webrtc.NewTrackLocalStaticRTP(remote.Codec().RTPCodecCapability, id, x.member.Session)
	if err != nil {
		fmt.Fprintln(os.Stderr, "baseline: publish:", err)
		return
	}
	p := &published{from: x, subscribed: map[*session]*webrtc.RTPSender{}, keyFrame: func() {
		_ = x.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(remote.SSRC())}})
	}}
	x.sfu.publish(x, track, p)
	defer x.sfu.withdraw(x, track)
	buf := make([]byte, 1500)
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		_, _ = track.Write(buf[:n]) // an error of one subscriber is not the others'
	}
}

func (s *sfu) publish(x *session, track *webrtc.TrackLocalStaticRTP, p *published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[x.member.Call]
	if c == nil {
		return
	}
	c.tracks[track] = p
	c.renegotiate(x)
}

func (s *sfu) withdraw(x *session, track *webrtc.TrackLocalStaticRTP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[x.member.Call]
	if c == nil || c.tracks[track] == nil {
		return
	}
	p := c.tracks[track]
	delete(c.tracks, track)
	for to, sender := range p.subscribed {
		to.post(func() error { return to.pc.RemoveTrack(sender) })
	}
	c.renegotiate(x)
}

// renegotiate makes all but one look at what is published.
func (c *call) renegotiate(but *session) {
	for m := range c.members {
		if m != but {
			m.post(m.offer)
		}
	}
}
