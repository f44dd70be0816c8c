package rtcd

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"sallyport/sfu"
	"sallyport/sfu/wire"
)

// maxID bounds the IDs that a client chooses, in bytes. Mattermost's have 26.
const maxID = 128

var errLongID = errors.New("an ID is too long")

// handleWebSocket makes a request to /ws a connection and serves it until it
// ends.
func (s *Server) handleWebSocket(w http.ResponseWriter, r *http.Request) {
	client, err := s.accounts.authenticate(r)
	if err != nil {
		s.refuse(r, client, err)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	if !isUpgrade(r) {
		http.Error(w, "Bad Request", http.StatusBadRequest)
		return
	}
	if !isSameOrigin(r) {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // the origin is checked above
	if err != nil {
		s.log.Debug("upgrade connection", "remote", r.RemoteAddr, "err", err)
		return
	}
	c := newConn(ws, client, s.ping, s.log.With("remote", r.RemoteAddr))
	// Queued before anybody can find c, so that it is first.
	hello, _ := wire.Envelope{Type: wire.TypeHello, ClientID: c.client, ConnID: c.id}.Append(nil) // a known type
	c.send(hello)
	if !s.conns.add(c) {
		c.log.Warn("refuse connection: too many of this client, or shutting down")
		_ = ws.CloseNow()
		return
	}
	s.serveConn(c)
}

func (s *Server) serveConn(c *conn) {
	open := s.metrics.connections.WithLabelValues(c.client)
	open.Inc()
	c.log.Info("plugin connected")
	defer func() { // whatever happens in the handling of a frame
		c.stop()
		_ = c.ws.CloseNow()
		s.conns.remove(c)
		open.Dec()
		for ; len(c.out) > 0; <-c.out { // nobody else takes them now
			s.metrics.dropped.Inc()
		}
	}()
	err := c.run(func(frame []byte) { s.dispatch(c, frame) })
	c.log.Info("plugin disconnected", "err", err)
}

// isUpgrade tells whether r asks for a WebSocket of version 13.
func isUpgrade(r *http.Request) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key")))
	return err == nil && len(key) == 16 && len(r.Header.Values("Sec-WebSocket-Key")) == 1 &&
		r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.Header.Get("Sec-WebSocket-Version") == "13" &&
		hasToken(r.Header.Values("Connection"), "upgrade") && hasToken(r.Header.Values("Upgrade"), "websocket")
}

// hasToken looks for a word in comma-separated header values.
func hasToken(values []string, token string) bool {
	for word := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if strings.EqualFold(strings.TrimSpace(word), token) {
			return true
		}
	}
	return false
}

// isSameOrigin accepts what is no browser and a page of this very host.
func isSameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// dispatch acts on one frame of a connection. Nothing a frame holds ends the
// connection.
func (s *Server) dispatch(c *conn, frame []byte) {
	e, err := wire.Decode(frame)
	if err != nil {
		if errors.Is(err, wire.ErrUnknownType) {
			s.metrics.received(c.client, e.Type)
		}
		c.log.Debug("ignore message", "type", e.Type, "bytes", len(frame), "err", err)
		return
	}
	s.metrics.received(c.client, e.Type)
	switch e.Type {
	case wire.TypeJoin:
		s.join(c, e.Join)
	case wire.TypeRTC:
		s.rtc(c, e.Message)
	case wire.TypeLeave:
		if sess := s.media.Session(c.client, e.Session); sess != nil {
			sess.Leave()
		}
	case wire.TypeReconnect:
		s.reconnect(c, e.Session)
	default:
		c.log.Debug("ignore message", "type", e.Type)
	}
}

// join creates a session that speaks through this connection.
func (s *Server) join(c *conn, j wire.Join) {
	if j.Session == "" || len(j.Session) > maxID {
		c.log.Warn("join refused: no usable session ID", "bytes", len(j.Session))
		return
	}
	m := sfu.Member{
		Group: c.client, Call: j.Call, User: j.User, Session: j.Session, Channel: j.Channel,
		AV1: j.AV1, DCSignaling: j.DCSignaling, AV1Set: j.AV1Set, DCSet: j.DCSet,
	}
	b := s.bind(m, c)
	err := errLongID
	if max(len(j.Call), len(j.User), len(j.Channel)) <= maxID {
		err = s.media.Join(m, b)
	}
	if err == nil {
		c.log.Debug("joined", "call", j.Call, "session", j.Session)
		return
	}
	c.log.Warn("join refused", "session", j.Session, "err", err)
	// The protocol has no answer to a join, so its user would wait for 15 s.
	// Closed ends that at once; it spares a living session of the same ID.
	if !errors.Is(err, sfu.ErrExists) {
		b.Closed()
	}
}

// reconnect makes a connection the one that speaks for a session.
func (s *Server) reconnect(c *conn, id string) {
	sess := s.media.Session(c.client, id)
	if sess == nil {
		c.log.Debug("reconnect of unknown session", "session", id)
		return
	}
	sess.Rebind(s.bind(sess.Member(), c))
}

// rtc hands a message to its session.
func (s *Server) rtc(c *conn, m wire.Message) {
	sess := s.media.Session(c.client, m.Session)
	if sess == nil {
		c.log.Debug("message for unknown session", "session", m.Session, "kind", m.Kind)
		return
	}
	if b, ok := sess.Signal().(*binding); ok {
		b.spoke.Store(c)
	}
	var err error
	switch m.Kind {
	case wire.KindICE:
		var candidate wire.Candidate
		if candidate, err = wire.DecodeCandidate(m.Data); err == nil {
			sess.Candidate(candidate)
		}
	case wire.KindSDP:
		var d wire.Description
		if d, err = wire.DecodeDescription(m.Data); err != nil {
			d = wire.Description{Type: "offer"} // unusable: if it is the first, the session ends at once
		}
		sess.Describe(d)
	case wire.KindMute:
		sess.Mute()
	case wire.KindUnmute:
		sess.Unmute()
	case wire.KindScreenOn, wire.KindVideoOn:
		var stream string
		if stream, err = wire.DecodeStream(m.Kind, m.Data); err == nil && m.Kind == wire.KindScreenOn {
			sess.ScreenOn(stream)
		} else if err == nil {
			sess.VideoOn(stream)
		}
	case wire.KindScreenOff:
		sess.ScreenOff()
	case wire.KindVideoOff:
		sess.VideoOff()
	}
	if err != nil {
		c.log.Warn("ignore message", "session", m.Session, "kind", m.Kind, "err", err)
	}
}
