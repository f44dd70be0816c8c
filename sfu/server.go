package sfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu/internal/steer"
	"sallyport/sfu/wire"
)

// Errors of Join and Sessions a caller branches on.
var (
	ErrDraining = errors.New("server is draining")
	ErrExists   = errors.New("session exists already")
	ErrFull     = errors.New("too many sessions of this group")
	ErrInvalid  = errors.New("call, user, session and group must not be empty")
	ErrNoGroup  = errors.New("group not found")
	ErrNoCall   = errors.New("call not found")
)

// A Member is a participant as the front door announces it. Group, Call, User
// and Session must not be empty.
type Member struct {
	Group   string // installation of Mattermost; sessions of different groups never meet
	Call    string // identifies the call within the group
	User    string
	Session string // unique within the group
	Channel string // opaque

	AV1         bool // can receive AV1, and publishes it beside VP8
	DCSignaling bool // wants our offers on the data channel
	// AV1Set and DCSet tell false from not said.
	AV1Set, DCSet bool
}

// A Signal reaches the participant of a session. Every method returns at once
// and may be called from any goroutine.
type Signal interface {
	Answer(wire.Description)  // to an offer that came through Session.Describe
	Offer(wire.Description)   // to be answered through Session.Describe
	Candidate(wire.Candidate) // one of our ICE candidates
	Voice(on bool)            // the participant began or ended speaking
	Closed()                  // the session has ended; called exactly once, last
}

// Options are what a Server can do without. A nil Logger discards, a nil Metrics
// registers nothing, Hairpins are further media sockets (the TURN server's way
// in) whose LocalAddr is that of one of the Sockets.
type Options struct {
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
	Hairpins []net.PacketConn
	// ICETCP is where the further listeners given to Run are bound, as far as
	// clients should be told of them. An unspecified address stands for all
	// that the Sockets are bound to.
	ICETCP []netip.AddrPort
	// AudioLastN is how many speakers of a call are heard at a time, 0 = all.
	AudioLastN int
	// Readvertised is called with the new Sockets.Addresses when they have
	// changed while running. Sessions keep the addresses they were told.
	Readvertised func([]Address)
}

// A Server is the SFU: it owns the media sockets, the calls and their sessions.
type Server struct {
	log      *slog.Logger
	metrics  *metrics
	sockets  *Sockets
	told     func([]Address) // Options.Readvertised
	mux      *mux
	tcp      *tcpMux
	keys     *iceKeys
	engine   *engine
	speakers int // Options.AudioLastN
	resend   *resenders
	reporter *reporter
	drops    func(reason string) // counts what the media path drops
	refused  func(error)         // counts packets that were not authentic, or not new
	chooser  func() chooser      // makes what decides on a receiver's layer

	running sync.WaitGroup // one for each session

	mu       sync.Mutex // guards the following
	groups   map[string]*group
	count    int
	draining bool
	closed   bool
}

// New makes a Server on open sockets, which it owns from now on.
func New(s *Sockets, o Options) (*Server, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	met, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	drops := func(reason string) { met.drops.WithLabelValues(reason).Inc() }
	m, err := newMux(s, o.Hairpins, drops)
	if err != nil {
		return nil, err
	}
	srv := &Server{log: log, metrics: met, sockets: s, told: o.Readvertised, mux: m, tcp: newTCPMux(s, o.ICETCP, drops), keys: newICEKeys(), groups: map[string]*group{}}
	srv.mux.keys, srv.tcp.keys = srv.keys, srv.keys
	srv.mux.tcp, srv.tcp.mux = srv.tcp, srv.mux
	srv.resend, srv.reporter = &resenders{mux: m}, newReporter()
	srv.drops, srv.speakers = drops, o.AudioLastN
	m.kinds = met.kinds
	srv.refused = func(err error) { drops(refusal(err)) }
	srv.chooser = func() chooser { return &steer.Policy{} }
	if srv.engine, err = newEngine(srv.mux, srv.tcp, log); err != nil {
		return nil, err
	}
	if all := m.advertised(); s.found && !slices.ContainsFunc(all, func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }) {
		log.Warn("nobody but this machine can reach the media ports: it has no other useful address, and sfu.advertise names none", "advertised", all)
	}
	return srv, nil
}

// Run carries media until ctx ends, then ends every session, closes the sockets
// and returns nil. ice are further listeners of ICE-TCP connections, such as the
// shared port 443; Run closes them too.
func (s *Server) Run(ctx context.Context, ice ...net.Listener) error {
	var readers sync.WaitGroup
	for _, sock := range s.mux.sockets {
		readers.Go(func() { s.mux.read(sock) })
	}
	for _, l := range s.tcp.listeners {
		readers.Go(func() { s.tcp.accept(l) })
	}
	for _, l := range ice {
		readers.Go(func() { s.tcp.accept(l) })
	}
	readers.Go(func() { s.reporter.run(ctx) })
	readers.Go(func() { s.sockets.book.keep(ctx, s.log, s.metrics, s.readvertise) })
	<-ctx.Done()

	s.mu.Lock()
	s.closed = true
	var all []*Session
	for _, g := range s.groups {
		all = slices.AppendSeq(all, maps.Values(g.sessions))
	}
	s.mu.Unlock()
	for _, sess := range all {
		sess.end("server stopped")
	}
	s.running.Wait()
	for _, l := range ice {
		_ = l.Close()
	}
	err := errors.Join(s.tcp.Close(), s.mux.Close())
	readers.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close media sockets: %w", err)
	}
	return nil
}

// readvertise tells who wants to know that the advertised addresses have changed.
func (s *Server) readvertise() {
	if s.told != nil {
		s.told(s.sockets.Addresses())
	}
}

// Join makes a session that waits for the participant's first offer. Its
// participant hears of everything else through sig. The error is ErrInvalid,
// ErrDraining, ErrFull, or ErrExists if that very session is in that call already. A
// session of the same name in another call of the group is ended: the
// participant has moved on.
func (s *Server) Join(m Member, sig Signal) (*Session, error) {
	if m.Group == "" || m.Call == "" || m.User == "" || m.Session == "" {
		return nil, ErrInvalid
	}
	s.mu.Lock()
	if s.draining || s.closed {
		s.mu.Unlock()
		return nil, ErrDraining
	}
	old := s.find(m.Group, m.Session)
	if old != nil && old.member.Call == m.Call {
		s.mu.Unlock()
		return nil, ErrExists
	}
	g := s.groups[m.Group]
	if g == nil {
		g = &group{calls: map[string]*call{}, sessions: map[string]*Session{}}
		s.groups[m.Group] = g
	}
	if len(g.sessions) >= maxGroupSessions {
		s.mu.Unlock()
		return nil, ErrFull
	}
	g.forgotten = false
	c := g.calls[m.Call]
	if c == nil {
		c = newCall(m.Call, s.speakers)
		g.calls[m.Call] = c
	}
	sess := newSession(s, c, m, sig)
	g.sessions[m.Session] = sess
	c.add(sess)
	s.count++
	s.metrics.sessions.WithLabelValues(m.Group).Inc()
	s.running.Add(1)
	s.mu.Unlock()

	if old != nil {
		old.end("joined another call")
	}
	go func() {
		defer s.running.Done()
		sess.run()
	}()
	return sess, nil
}

// forget removes a session that ends, and its call and group with the last one.
func (s *Server) forget(sess *Session) {
	m := sess.member
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[m.Group]
	if g.sessions[m.Session] == sess {
		delete(g.sessions, m.Session)
	}
	if sess.call.remove(sess) == 0 && g.calls[m.Call] == sess.call {
		delete(g.calls, m.Call)
	}
	if len(g.calls) == 0 {
		delete(s.groups, m.Group)
	}
	s.count--
	s.metrics.sessions.WithLabelValues(m.Group).Dec()
	if len(g.calls) == 0 && g.forgotten {
		s.metrics.forget(m.Group)
	}
}

// find needs s.mu.
func (s *Server) find(group, session string) *Session {
	if g := s.groups[group]; g != nil {
		return g.sessions[session]
	}
	return nil
}

// Session returns a live session of a group, or nil.
func (s *Server) Session(group, session string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(group, session)
}

// Sessions lists the members of a call, in the order of their session names. The
// error is ErrNoGroup or ErrNoCall.
func (s *Server) Sessions(group, callID string) ([]Member, error) {
	s.mu.Lock()
	g := s.groups[group]
	if g == nil {
		s.mu.Unlock()
		return nil, ErrNoGroup
	}
	c := g.calls[callID]
	s.mu.Unlock()
	if c == nil {
		return nil, ErrNoCall
	}
	out := c.members()
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Session, b.Session) })
	return out, nil
}

// Drain refuses joins from now on. Calls go on.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
}

// Count returns the number of live sessions.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
