package rtcd

import (
	"sync"
	"sync/atomic"

	"sallyport/sfu"
	"sallyport/sfu/wire"
)

// A binding is how the SFU reaches the participant of one session: through the
// connection that carried its join or its last reconnect. When that is gone, it
// is the one that spoke for the session last, or else the client's newest. Each
// node of Mattermost has a connection of its own, and only the node that the
// participant is connected to can do anything with what it gets; it does not
// announce its sessions again when it comes back (rtcd protocol §2.7). So what
// was the newest for a message need not be for the next. It implements
// sfu.Signal.
type binding struct {
	server *Server
	member sfu.Member
	conn   *conn
	spoke  atomic.Pointer[conn] // that brought the last message of the session; may be nil
	closed sync.Once
}

func (s *Server) bind(m sfu.Member, c *conn) *binding {
	return &binding{server: s, member: m, conn: c}
}

// Answer implements sfu.Signal.
func (b *binding) Answer(d wire.Description) {
	b.send(wire.TypeRTC, wire.KindSDP, wire.EncodeDescription(d))
}

// Offer implements sfu.Signal.
func (b *binding) Offer(d wire.Description) {
	b.send(wire.TypeRTC, wire.KindSDP, wire.EncodeDescription(d))
}

// Candidate implements sfu.Signal.
func (b *binding) Candidate(c wire.Candidate) {
	b.send(wire.TypeRTC, wire.KindICE, wire.EncodeCandidate(c))
}

// Voice implements sfu.Signal.
func (b *binding) Voice(on bool) {
	kind := wire.KindVoiceOff
	if on {
		kind = wire.KindVoiceOn
	}
	b.send(wire.TypeVAD, kind, nil)
}

// Closed implements sfu.Signal. The SFU has forgotten the session by now. If
// there is one of its ID all the same, the participant has left and joined
// again meanwhile: then nothing is sent, because the plugin would take the
// message for the new session and remove the participant.
func (b *binding) Closed() {
	b.closed.Do(func() {
		if b.server.media.Session(b.member.Group, b.member.Session) != nil {
			return
		}
		b.deliver(wire.Envelope{Type: wire.TypeClose, Session: b.member.Session})
	})
}

func (b *binding) send(typ string, kind wire.Kind, data []byte) {
	b.deliver(wire.Envelope{Type: typ, Message: wire.Message{
		Group: b.member.Group, User: b.member.User, Session: b.member.Session, Call: b.member.Call,
		Kind: kind, Data: data,
	}})
}

// deliver queues an envelope to the best connection that takes it.
func (b *binding) deliver(e wire.Envelope) {
	log := b.server.log.With("client", b.member.Group, "session", b.member.Session, "type", e.Type)
	frame, err := e.Append(nil)
	if err != nil || len(frame) > maxFrame {
		log.Error("drop message that cannot be sent", "err", err, "bytes", len(frame))
		b.server.metrics.dropped.Inc()
		return
	}
	for c := b.best(); c != nil; c = b.best() { // one that does not take it is alive no more
		if c.send(frame) {
			b.server.metrics.sent(b.member.Group, e.Type)
			return
		}
	}
	b.server.metrics.dropped.Inc()
	log.Debug("drop message: the client has no connection")
}

// best returns the living connection that most likely leads to the participant,
// nil if the client has none.
func (b *binding) best() *conn {
	if b.conn.alive() {
		return b.conn
	}
	if c := b.spoke.Load(); c != nil && c.alive() {
		return c
	}
	return b.server.conns.newest(b.member.Group)
}
