package demo

import "sallyport/sfu/wire"

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

// queue never waits. A browser that lets its outbox fill up has missed
// something: it loses its socket, and its seat when the grace is over.
func (h *hub) queue(m *member, b []byte) {
	select {
	case m.outbox <- b:
	default:
		m.resume = ""
		if m.socket != nil {
			m.socket.cancel()
		}
	}
}
