package sfu

import (
	"cmp"
	"slices"
	"time"

	"github.com/pion/ice/v2"
)

// maxStatusCalls bounds the calls that Status lists.
const maxStatusCalls = 200

// Status is a picture of the server at one moment.
type Status struct {
	Sessions  int          `json:"sessions"`
	Draining  bool         `json:"draining"`
	Addresses []string     `json:"addresses"` // advertised UDP addresses
	Calls     []CallStatus `json:"calls"`     // the first 200, by name
}

// CallStatus describes one call.
type CallStatus struct {
	Group    string          `json:"group"`
	Call     string          `json:"call"`
	Screen   string          `json:"screen,omitempty"` // session that shares its screen
	Sessions []SessionStatus `json:"sessions"`
}

// SessionStatus describes one participant's connection.
type SessionStatus struct {
	Session string   `json:"session"`
	User    string   `json:"user"`
	Seconds int      `json:"seconds"` // since the join
	Path    string   `json:"path"`    // udp, tcp, relay, or empty before ICE is done
	Tracks  []string `json:"tracks"`  // classes being published
	Muted   bool     `json:"muted"`
}

// Status describes the calls that are going on.
func (s *Server) Status() Status {
	s.mu.Lock()
	st := Status{Sessions: s.count, Draining: s.draining}
	type named struct {
		group string
		call  *call
	}
	var calls []named
	for name, g := range s.groups {
		for _, c := range g.calls {
			calls = append(calls, named{name, c})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(calls, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.call.id, b.call.id))
	})
	for _, a := range s.mux.advertised() {
		st.Addresses = append(st.Addresses, a.String())
	}
	for _, c := range calls[:min(len(calls), maxStatusCalls)] {
		st.Calls = append(st.Calls, c.call.status(c.group))
	}
	return st
}

func (c *call) status(group string) CallStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := CallStatus{Group: group, Call: c.id}
	if c.screen != nil {
		out.Screen = c.screen.member.Session
	}
	for _, s := range c.ordered() {
		ss := SessionStatus{Session: s.member.Session, User: s.member.User, Seconds: int(time.Since(s.joined).Seconds()), Muted: s.muted, Tracks: []string{}}
		if p := s.selected.Load(); p != nil {
			ss.Path = *p
		}
		for _, u := range s.ups {
			if k := u.kind(); k != "" && !u.retired && u.forwardable() {
				ss.Tracks = append(ss.Tracks, k)
			}
		}
		out.Sessions = append(out.Sessions, ss)
	}
	return out
}

// path names the way media takes: udp, tcp, or relay for the TURN server's.
func (s *Session) path() string {
	pair, err := s.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return ""
	}
	switch {
	case pair.Remote.Protocol.String() == "tcp":
		return "tcp"
	case pair.Remote.Typ.String() == ice.CandidateTypeRelay.String() || s.server.mux.relayed(pair.Remote.Address, pair.Remote.Port):
		return "relay"
	}
	return "udp"
}
