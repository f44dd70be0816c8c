package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/coder/websocket"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// handler is the rtcd API as far as participants need it.
func (s *sfu) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"buildVersion":"baseline"}`))
	})
	mux.HandleFunc("/ws", s.serveLink)
	return mux
}

// A link is the WebSocket of one plugin.
type link struct {
	conn *websocket.Conn
	mu   sync.Mutex // held while a frame is written
}

func (l *link) send(e wire.Envelope) {
	frame, err := e.Append(nil)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.Write(context.Background(), websocket.MessageBinary, frame)
}

func (s *sfu) serveLink(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	l := &link{conn: conn}
	user, _, _ := r.BasicAuth()
	l.send(wire.Envelope{Type: wire.TypeHello, ClientID: user, ConnID: "baseline"})
	for {
		kind, frame, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if kind != websocket.MessageBinary {
			continue
		}
		if e, err := wire.Decode(frame); err == nil {
			s.obey(l, e)
		}
	}
}

// obey hands an envelope to the session it names. A session does what it is
// told on its own goroutine, in order.
func (s *sfu) obey(l *link, e wire.Envelope) {
	switch e.Type {
	case wire.TypeJoin:
		s.join(l, e.Join)
	case wire.TypeLeave:
		if x := s.find(e.Session); x != nil {
			x.end()
		}
	case wire.TypeRTC:
		x := s.find(e.Message.Session)
		if x == nil {
			return
		}
		switch e.Message.Kind {
		case wire.KindSDP:
			if d, err := wire.DecodeDescription(e.Message.Data); err == nil {
				x.post(func() error { return x.describe(d) })
			}
		case wire.KindICE:
			if c, err := wire.DecodeCandidate(e.Message.Data); err == nil {
				x.post(func() error { return x.candidate(webrtc.ICECandidateInit(c)) })
			}
		case wire.KindScreenOn:
			if stream, err := wire.DecodeStream(wire.KindScreenOn, e.Message.Data); err == nil {
				x.screen.Store(&stream)
			}
		}
	}
}

// hear takes a message of the data channel.
func (x *session) hear(m webrtc.DataChannelMessage) {
	c, err := wire.DecodeChannel(m.Data)
	if err != nil {
		return
	}
	switch c.Type {
	case wire.ChannelPing:
		x.say(wire.ChannelMessage{Type: wire.ChannelPong})
	case wire.ChannelSDP:
		x.post(func() error { return x.describe(c.SDP) })
	case wire.ChannelLock:
		x.post(func() error {
			granted := !x.locked && x.pc.SignalingState() == webrtc.SignalingStateStable
			x.locked = x.locked || granted
			x.say(wire.ChannelMessage{Type: wire.ChannelLock, Granted: &granted})
			return nil
		})
	case wire.ChannelUnlock:
		x.post(func() error {
			x.locked = false
			return x.offer()
		})
	}
}

func (x *session) say(m wire.ChannelMessage) {
	dc := x.channel.Load()
	b, err := m.Append(nil)
	if dc == nil || err != nil {
		return
	}
	_ = dc.Send(b)
}

func (x *session) signal(kind wire.Kind, data []byte) {
	x.link.send(wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{
		Group: "baseline", User: x.member.User, Session: x.member.Session, Call: x.member.Call, Kind: kind, Data: data,
	}})
}
