package sfu

import "github.com/prometheus/client_golang/prometheus"

// maxGroupSessions is how many sessions one group may have at a time: ten times
// the largest call anybody has published figures of, and about 4 GB of memory. It
// keeps one installation from taking the memory of all others.
const maxGroupSessions = 10_000

// A group is what belongs to one installation of Mattermost. It exists while it
// has calls.
type group struct {
	calls     map[string]*call
	sessions  map[string]*Session
	forgotten bool // its series end with its last session
}

// Forget drops the metrics of a group that will not come back, now or as soon as
// its last session has ended: those who register under ever new names would
// otherwise fill the memory. A join makes it known again.
func (s *Server) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[id]; g != nil {
		g.forgotten = true
		return
	}
	s.metrics.forget(id)
}

// forget drops the series of a group.
func (m *metrics) forget(id string) {
	of := prometheus.Labels{"groupID": id}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.sessions, m.errors, m.tracks, m.writes, m.connection, m.dcOpen, m.lockGrab, m.lockHeld, m.clientLoss, m.clientRTT, m.clientJit} {
		v.DeletePartialMatch(of)
	}
}
