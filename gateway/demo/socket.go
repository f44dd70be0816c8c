package demo

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

const (
	firstMessage = 10 * time.Second // until join or resume must have come
	writeTimeout = 10 * time.Second // for one message to a browser
	pingEvery    = 15 * time.Second // finds browsers that vanished without a word
	messageRate  = 10               // per second, from one browser; the plugin's own limit
	messageBurst = 100
)

// A socket is one WebSocket of a browser. Its goroutine is the handler's, which
// reads; it owns a second one, which writes.
type socket struct {
	ws     *websocket.Conn
	cancel context.CancelFunc // ends the socket, not the member
}

// serveSocket is the handler of /demo/ws.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "no free seat", http.StatusServiceUnavailable)
		return
	}
	defer s.leave()
	ws, err := websocket.Accept(w, r, nil) // refuses foreign origins
	if err != nil {
		return // it has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(s.closing, cancel)
	defer stop()
	sock := &socket{ws: ws, cancel: cancel}

	m, err := s.seat(ctx, sock)
	if err != nil {
		s.refuse(ctx, ws, err)
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		sock.write(ctx, m)
		cancel()
	}()
	s.converse(ctx, sock, m)
	if !m.hasLeft() { // else the writer says goodbye and ends by itself
		cancel()
	}
	<-written
}

// seat reads the first message and finds its browser a place.
func (s *Server) seat(ctx context.Context, sock *socket) (*member, error) {
	ctx, cancel := context.WithTimeout(ctx, firstMessage)
	defer cancel()
	first, err := read(ctx, sock.ws)
	if err != nil {
		return nil, err
	}
	switch first.Type {
	case "join":
		return s.join(first, sock)
	case "resume":
		m, err := s.hub.resume(first, sock)
		if err == nil {
			err = s.link.send(wire.Envelope{Type: wire.TypeReconnect, Session: m.session})
			if err != nil {
				s.log.Warn("reconnect not sent", "session", m.session, "err", err)
			}
			return m, nil
		}
		return nil, err
	}
	return nil, &refusal{"bad_message", "The first message must be join or resume."}
}

func (s *Server) join(r request, sock *socket) (*member, error) {
	m, err := s.hub.join(r, sock)
	if err != nil {
		return nil, err
	}
	err = s.link.send(wire.Envelope{Type: wire.TypeJoin, Join: wire.Join{
		Call: m.room.call, User: m.user, Session: m.session, Channel: m.room.call,
		DCSignaling: m.dcSignaling, DCSet: true, AV1: m.av1, AV1Set: true,
	}})
	if err != nil {
		s.hub.remove(m)
		s.log.Warn("join not sent", "session", m.session, "err", err)
		return nil, &refusal{"unavailable", "The media server cannot be reached at the moment."}
	}
	s.log.Debug("joined", "call", m.room.call, "session", m.session)
	return m, nil
}

// refuse tells a browser without a seat why it has none.
func (s *Server) refuse(ctx context.Context, ws *websocket.Conn, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		return // it has gone, or sent too much: nobody to tell
	}
	if b, err := errorEvent(r, true).encode(); err == nil {
		writeMessage(ctx, ws, b)
	}
	ws.Close(websocket.StatusPolicyViolation, r.code)
}

// converse serves a member until its socket ends, and decides what becomes of
// the seat: a browser that said goodbye loses it at once.
func (s *Server) converse(ctx context.Context, sock *socket, m *member) {
	limit := rate.NewLimiter(messageRate, messageBurst)
	for {
		r, err := read(ctx, sock.ws)
		var bad *refusal
		switch {
		case errors.As(err, &bad):
			s.answer(m, bad)
		case err != nil:
			s.gone(sock, m, err)
			return
		case r.Type == "leave":
			s.drop(m)
			return
		}
		if !limit.Allow() {
			s.tell(m, errorEvent(&refusal{"too_many", "This page sends too many messages."}, true))
			s.drop(m)
			return
		}
		if err == nil {
			s.act(m, r)
		}
	}
}

// act does what a seated browser asks for.
func (s *Server) act(m *member, r request) {
	msg, ok, err := r.rtc(m.session)
	if !ok {
		err = &refusal{"bad_message", "That type of message is not known here."}
	}
	if err == nil {
		err = s.hub.update(m, msg.Kind)
	}
	if err != nil {
		s.answer(m, err)
		return
	}
	if err := s.link.send(wire.Envelope{Type: wire.TypeRTC, Message: msg}); err != nil {
		s.log.Warn("message not sent", "session", m.session, "err", err)
		s.answer(m, &refusal{"unavailable", "The media server cannot be reached at the moment."})
	}
}

func (s *Server) answer(m *member, err error) { s.tell(m, errorEvent(err, false)) }

func (s *Server) tell(m *member, e event) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.push(m, e)
}

// gone handles the end of a member's socket without a leave.
func (s *Server) gone(sock *socket, m *member, err error) {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway: // closed by the page, or with it
		s.drop(m)
	default:
		s.hub.detach(m, sock, func() { s.sendLeave(m) })
	}
}

// drop removes a member now.
func (s *Server) drop(m *member) {
	if s.hub.remove(m) {
		s.sendLeave(m)
	}
}

func (s *Server) sendLeave(m *member) {
	s.log.Debug("left", "call", m.room.call, "session", m.session)
	if err := s.link.send(wire.Envelope{Type: wire.TypeLeave, Session: m.session}); err != nil {
		s.log.Warn("leave not sent", "session", m.session, "err", err)
	}
}

// write empties the member's outbox into the socket until the socket ends or
// the member has left and been told everything.
func (sock *socket) write(ctx context.Context, m *member) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case b := <-m.outbox:
			if writeMessage(ctx, sock.ws, b) != nil {
				return
			}
		case <-ping.C:
			if sock.ping(ctx) != nil {
				return
			}
		case <-m.gone:
			for len(m.outbox) > 0 {
				if writeMessage(ctx, sock.ws, <-m.outbox) != nil {
					return
				}
			}
			sock.ws.Close(websocket.StatusNormalClosure, "")
			return
		case <-ctx.Done():
			return
		}
	}
}

func (sock *socket) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return sock.ws.Ping(ctx)
}

func writeMessage(ctx context.Context, ws *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, b)
}

// read returns the next message; a refusal as error leaves the socket usable.
func read(ctx context.Context, ws *websocket.Conn) (request, error) {
	kind, b, err := ws.Read(ctx)
	if err != nil {
		return request{}, err
	}
	if kind != websocket.MessageText {
		return request{}, &refusal{"bad_message", "Messages are JSON text."}
	}
	return parseRequest(b)
}
