package demo

import (
	"crypto/rand"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"time"

	"sallyport/sfu/wire"
)

const (
	maxRoom    = 16              // members of one room: a full mesh of tiles on one page
	maxMembers = 200             // members of all rooms
	maxOutbox  = 256             // events waiting for one browser
	grace      = 5 * time.Second // how long a seat is kept for a browser that vanished
)

// A hub holds the rooms and everybody in them. Its methods are safe for any
// goroutine and never block: they queue events in the members' outboxes.
type hub struct {
	log *slog.Logger

	mu      sync.Mutex // guards the following and every room and member
	rooms   map[string]*room
	members map[string]*member // by session
	closed  bool
}

// A room is one call. It exists while it has members.
type room struct {
	name    string
	call    string // the call's ID at the SFU, fresh for each life of the room
	members []*member
	sharer  *member // nil: nobody shares the screen
}

// A member is a browser's seat in a room. The hub's mutex guards it, except
// for the fields that never change.
type member struct {
	session, user, resume string // set once
	dcSignaling           bool   // set once
	room                  *room  // set once
	outbox                chan []byte
	gone                  chan struct{} // closed when the member is removed

	participant participant
	socket      *socket     // nil while the browser is away
	expiry      *time.Timer // removes the member; runs while socket is nil
	left        bool        // gone is closed, and the member in no room
}

// hasLeft reports whether the member has been removed.
func (m *member) hasLeft() bool {
	select {
	case <-m.gone:
		return true
	default:
		return false
	}
}

func newHub(log *slog.Logger) *hub {
	return &hub{log: log, rooms: map[string]*room{}, members: map[string]*member{}}
}

// join seats a browser in the room its request names, creating the room if it
// is the first, and tells everybody.
func (h *hub) join(r request, s *socket) (*member, error) {
	name, err := cleanText("name", r.Name)
	if err != nil {
		return nil, err
	}
	roomName, err := cleanText("room", r.Room)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := strings.ToLower(roomName)
	in := h.rooms[key]
	switch {
	case h.closed:
		return nil, &refusal{"closing", "The server is being stopped."}
	case len(h.members) >= maxMembers:
		return nil, &refusal{"full", "This server has no free seat."}
	case in != nil && len(in.members) >= maxRoom:
		return nil, &refusal{"room_full", "This room is full."}
	case in == nil:
		in = &room{name: roomName, call: newID()}
		h.rooms[key] = in
	}
	m := &member{
		session: newID(), user: newID(), resume: newID(), dcSignaling: r.DCSignaling,
		room: in, outbox: make(chan []byte, maxOutbox), gone: make(chan struct{}), socket: s,
	}
	m.participant = participant{Session: m.session, Name: name, Muted: true}
	in.members = append(in.members, m)
	h.members[m.session] = m
	h.greet(m)
	h.announce(m)
	return m, nil
}

// resume gives a browser its seat back. A socket that still holds it, because
// its end has not been noticed yet, is closed.
func (h *hub) resume(r request, s *socket) (*member, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.members[r.Session]
	if m == nil || r.Resume == "" || r.Resume != m.resume {
		return nil, &refusal{"gone", "You were away for too long."}
	}
	if m.socket != nil {
		m.socket.cancel()
	}
	if m.expiry != nil {
		m.expiry.Stop()
		m.expiry = nil
	}
	m.socket = s
	h.greet(m)
	return m, nil
}

// detach notes that a member's socket s has ended. It keeps the seat for the
// grace period; then expired is called with the member removed.
func (h *hub) detach(m *member, s *socket, expired func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.left || m.socket != s {
		return // another socket has taken over
	}
	m.socket = nil
	m.expiry = time.AfterFunc(grace, func() {
		h.mu.Lock()
		away := !m.left && m.socket == nil
		h.mu.Unlock()
		if away && h.remove(m) {
			expired()
		}
	})
}

// remove takes a member out of its room and reports whether it was still in.
func (h *hub) remove(m *member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.left {
		return false
	}
	h.unseat(m)
	h.tell(m.room, event{Type: "left", Session: m.session}, nil)
	return true
}

// unseat undoes join. The mutex is held.
func (h *hub) unseat(m *member) {
	m.left = true
	close(m.gone)
	if m.expiry != nil {
		m.expiry.Stop()
	}
	delete(h.members, m.session)
	in := m.room
	if in.sharer == m {
		in.sharer = nil
	}
	for i, other := range in.members {
		if other == m {
			in.members = append(in.members[:i:i], in.members[i+1:]...)
			break
		}
	}
	if len(in.members) == 0 {
		delete(h.rooms, strings.ToLower(in.name))
	}
}

// update applies what a browser says about itself, before the SFU is told, and
// tells the room. It refuses a second screen sharer.
func (h *hub) update(m *member, kind wire.Kind) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.left {
		return &refusal{"gone", "You have left the room."}
	}
	p := &m.participant
	switch kind {
	case wire.KindMute:
		p.Muted, p.Voice = true, false
	case wire.KindUnmute:
		p.Muted = false
	case wire.KindScreenOn:
		if m.room.sharer != nil && m.room.sharer != m {
			return &refusal{"screen_taken", m.room.sharer.participant.Name + " is sharing already."}
		}
		m.room.sharer, p.Screen = m, true
	case wire.KindScreenOff:
		if m.room.sharer != m {
			return nil
		}
		m.room.sharer, p.Screen = nil, false
	case wire.KindVideoOn:
		p.Video = true
	case wire.KindVideoOff:
		p.Video = false
	default:
		return nil // between this browser and the SFU
	}
	h.announce(m)
	return nil
}

// fromSFU acts on a message of the SFU: signals for one browser, voice for its
// room, and the end of a session.
func (h *hub) fromSFU(e wire.Envelope) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.Type {
	case wire.TypeRTC, wire.TypeVAD:
		if m := h.members[e.Message.Session]; m != nil {
			h.message(m, e.Message)
		}
	case wire.TypeClose:
		if m := h.members[e.Session]; m != nil {
			h.push(m, event{Type: "ended", Text: "The media server ended the session."})
			h.unseat(m)
			h.tell(m.room, event{Type: "left", Session: m.session}, nil)
		}
	}
}

// message acts on an rtc or vad message. The mutex is held.
func (h *hub) message(m *member, msg wire.Message) {
	switch msg.Kind {
	case wire.KindSDP, wire.KindICE:
		h.push(m, event{Type: "signal", Data: msg.Data})
	case wire.KindVoiceOn, wire.KindVoiceOff:
		speaks := msg.Kind == wire.KindVoiceOn && !m.participant.Muted
		if m.participant.Voice != speaks {
			m.participant.Voice = speaks
			h.announce(m)
		}
	}
}

// linkChanged tells every browser whether the SFU can be reached and returns
// the sessions that live.
func (h *hub) linkChanged(up bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	sessions := make([]string, 0, len(h.members))
	for session, m := range h.members {
		sessions = append(sessions, session)
		h.push(m, event{Type: "link", Up: &up})
	}
	return sessions
}

// close removes everybody and refuses whoever comes later.
func (h *hub) close() (sessions []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for session, m := range h.members {
		sessions = append(sessions, session)
		h.push(m, event{Type: "ended", Text: "The server is being stopped."})
		h.unseat(m)
	}
	return sessions
}

// greet answers join and resume. The mutex is held.
func (h *hub) greet(m *member) {
	all := make([]participant, 0, len(m.room.members))
	for _, other := range m.room.members {
		all = append(all, other.participant)
	}
	h.push(m, event{Type: "joined", Session: m.session, Resume: m.resume, Room: m.room.name, Participants: all})
}

// announce tells the others how m is now. The mutex is held.
func (h *hub) announce(m *member) {
	p := m.participant
	h.tell(m.room, event{Type: "participant", Participant: &p}, nil)
}

// tell queues an event for everybody in a room but one. The mutex is held.
func (h *hub) tell(in *room, e event, but *member) {
	b, err := e.encode()
	if err != nil {
		h.log.Error("event lost", "err", err)
		return
	}
	for _, m := range in.members {
		if m != but {
			h.queue(m, b)
		}
	}
}

// push queues an event for one member. The mutex is held.
func (h *hub) push(m *member, e event) {
	b, err := e.encode()
	if err != nil {
		h.log.Error("event lost", "session", m.session, "err", err)
		return
	}
	h.queue(m, b)
}

// queue never waits: a browser whose outbox is full loses its socket and comes
// back with resume, or not at all.
func (h *hub) queue(m *member, b []byte) {
	select {
	case m.outbox <- b:
	default:
		if m.socket != nil {
			m.socket.cancel()
		}
	}
}

// newID returns 26 random characters of [a-z0-9], the form of Mattermost's IDs.
func newID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	id := make([]byte, 26)
	for i := range id {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic("demo: no randomness: " + err.Error()) // crypto/rand does not fail
		}
		id[i] = alphabet[n.Int64()]
	}
	return string(id)
}
