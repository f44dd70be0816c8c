package demo

import (
	"crypto/rand"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"time"
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
	session, user string // set once
	dcSignaling   bool   // set once
	av1           bool   // set once
	room          *room  // set once
	outbox        chan []byte
	gone          chan struct{} // closed when the member is removed

	participant participant
	resume      string      // what resume has to say; empty: the seat cannot be taken again
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
		session: newID(), user: newID(), resume: newID(), dcSignaling: r.DCSignaling, av1: r.AV1Support,
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
