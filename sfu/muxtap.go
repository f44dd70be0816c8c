package sfu

import (
	"sync"
	"sync/atomic"
	"time"
)

// A mediaTap takes what belongs to one session before its ICE agent does. Its
// methods are called by readers: usually by the same one for a remote address,
// but calls for one session may overlap.
type mediaTap interface {
	// media is given an RTP or RTCP packet (first byte 128 to 191) from an
	// address of the session. It may change p, which stays valid until the end
	// hooks of the batch have run. If it returns false it has not changed p, and
	// the agent gets it.
	media(r *reader, p []byte) bool
	// handshake is shown a DTLS handshake record that comes or goes, before it
	// does.
	handshake(p []byte, outgoing bool)
}

// The first bytes of what a mediaTap is shown (RFC 7983).
const (
	contentHandshake = 22 // of DTLS
	versionRTP       = 2  // in the two highest bits
)

// A tapSlot holds the tap of a local ufrag for all its connections.
type tapSlot struct {
	tap    atomic.Pointer[mediaTap]
	flight flightPace

	conns int // guarded by tapTable.mu
}

// takes shows p, which is not empty, to the tap, and reports whether it has taken
// it. A nil slot has no tap.
func (s *tapSlot) takes(r *reader, p []byte) bool {
	if s == nil {
		return false
	}
	t := s.tap.Load()
	if t == nil {
		return false
	}
	switch {
	case p[0]>>6 == versionRTP:
		return (*t).media(r, p)
	case p[0] == contentHandshake:
		(*t).handshake(p, false)
	}
	return false
}

// sends shows the tap what the agent sends, and reports whether to send it now.
func (s *tapSlot) sends(p []byte) bool {
	if s == nil || len(p) == 0 || p[0] != contentHandshake {
		return true
	}
	if t := s.tap.Load(); t != nil {
		(*t).handshake(p, true)
	}
	return s.flight.due(p, time.Now())
}

// A tapTable has the taps of all sessions.
type tapTable struct {
	mu    sync.Mutex // guards slots
	slots map[string]*tapSlot
}

func newTapTable() *tapTable { return &tapTable{slots: map[string]*tapSlot{}} }

// slot returns that of a ufrag, a new one if there is none. It needs t.mu.
func (t *tapTable) slot(ufrag string) *tapSlot {
	s := t.slots[ufrag]
	if s == nil {
		s = &tapSlot{}
		t.slots[ufrag] = s
	}
	return s
}

// use returns the slot of a ufrag for one more connection. A nil table has none.
func (t *tapTable) use(ufrag string) *tapSlot {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slot(ufrag)
	s.conns++
	return s
}

// unuse says that a connection has ended.
func (t *tapTable) unuse(ufrag string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slot(ufrag).conns--
	t.tidy(ufrag)
}

// set sets the tap of a ufrag; nil removes it.
func (t *tapTable) set(ufrag string, tap mediaTap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tap != nil {
		t.slot(ufrag).tap.Store(&tap)
	} else {
		t.slot(ufrag).tap.Store(nil)
	}
	t.tidy(ufrag)
}

// tidy forgets a slot that nobody needs. It needs t.mu.
func (t *tapTable) tidy(ufrag string) {
	if s := t.slots[ufrag]; s.conns <= 0 && s.tap.Load() == nil {
		delete(t.slots, ufrag)
	}
}

// tap shows t what comes and goes on the connections of a local ufrag, over UDP
// and TCP, those that exist and those to come. nil ends it. An ICE restart has a
// new ufrag.
func (m *mux) tap(ufrag string, t mediaTap) { m.taps.set(ufrag, t) }
