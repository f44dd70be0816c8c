package sfu

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// runServer runs a server until the test ends. Unlike startServer it does not
// count goroutines: several may run in one test.
func runServer(t *testing.T, change func(*Server)) *Server {
	t.Helper()
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(socks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(srv)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return srv
}

// A disguise stands between a guest, whose agent is controlling, and the server
// and makes it look like an agent that is controlled and sends checks all the
// time, as browsers do:
//
//	guest <── as if the server were controlled ── disguise ── as if the guest were ──> server
//
// It knows the passwords of both, so everything it changes is valid. When no
// check of its own has succeeded for as long as consent lasts, it falls silent
// (RFC 7675 §5.1).
type disguise struct {
	t      *testing.T
	conn   *net.UDPConn
	server netip.AddrPort
	manner
	done chan struct{}
	wg   sync.WaitGroup

	mu         sync.Mutex // guards the following
	on         bool
	guest      netip.AddrPort
	ours       iceCredentials // the guest's
	theirs     iceCredentials // the server's
	last       time.Time      // a check succeeded
	silent     bool
	refusals   int // 487s that the server sent
	controlled int // checks of a controlled server while on
	leading    int // checks of a controlling server while on
}

// A manner is how a disguise behaves.
type manner struct {
	tie     uint64 // its tie-breaker
	refuse  bool   // answer 487 to checks of a controlled server
	consent time.Duration
}

// disguiseCheck is how often a disguise checks.
const disguiseCheck = 500 * time.Millisecond

func newDisguise(t *testing.T, srv *Server, m manner) *disguise {
	t.Helper()
	d := &disguise{t: t, server: srv.mux.advertised()[0], manner: m, done: make(chan struct{}), last: time.Now()}
	var err error
	if d.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0"))); err != nil {
		t.Fatal(err)
	}
	d.wg.Go(d.forward)
	d.wg.Go(d.check)
	t.Cleanup(func() {
		close(d.done)
		_ = d.conn.Close()
		d.wg.Wait()
	})
	return d
}

// Signal of a guest behind a disguise: server candidates are replaced by it.
type disguised struct {
	*guest
	d *disguise
}

func (s disguised) Candidate(wire.Candidate) {}

func (s disguised) Answer(a wire.Description) {
	s.d.mu.Lock()
	s.d.theirs, _ = sdpCredentials(a.SDP)
	s.d.mu.Unlock()
	at := localAddrPort(s.d.conn.LocalAddr())
	a.SDP = candidateLine.ReplaceAllString(a.SDP, "")
	a.SDP += "a=candidate:1 1 udp 2130706431 " + at.Addr().String() + " " + strconv.Itoa(int(at.Port())) + " typ host\r\n"
	s.guest.Answer(a)
}

var candidateLine = regexp.MustCompile("a=(candidate:[^\n]*|end-of-candidates)\r?\n")

// joinBehind brings a guest into a call whose media goes through d.
func joinBehind(t *testing.T, srv *Server, call string, d *disguise) *guest {
	t.Helper()
	name := "alpha-" + call
	g := newGuest(t, name, guestOptions{})
	sess, err := srv.Join(Member{Group: "group", Call: call, User: "user-" + name, Session: name}, disguised{g, d})
	if err != nil {
		t.Fatal(err)
	}
	g.sess = sess
	offer, err := g.pc.CreateOffer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.ours, _ = sdpCredentials(offer.SDP)
	d.mu.Unlock()
	sess.Describe(wire.Description{Type: "offer", SDP: candidateLine.ReplaceAllString(offer.SDP, "")})
	g.accept(<-g.answers)
	select {
	case <-g.open:
	case <-time.After(patience):
		t.Fatalf("data channel did not open; peer connection %s", g.pc.ConnectionState())
	}
	return g
}

// begin makes the guest appear controlled from now on.
func (d *disguise) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.on, d.last = true, time.Now()
}

func (d *disguise) forward() {
	buf := make([]byte, 2048)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		d.mu.Lock()
		p, to := buf[:n], d.server
		if from == d.server {
			p = d.toGuest(p)
			to = d.guest
		} else {
			d.guest = from
			p = d.toServer(p)
		}
		if d.on && time.Since(d.last) > d.consent {
			d.silent = true
		}
		silent := d.silent
		d.mu.Unlock()
		if p != nil && !silent && to.IsValid() {
			_, _ = d.conn.WriteToUDPAddrPort(p, to)
		}
	}
}

// toServer changes what the guest sends; nil drops it.
func (d *disguise) toServer(p []byte) []byte {
	if !d.on || !isSTUN(p) || binary.BigEndian.Uint16(p) != typeRequest {
		return p
	}
	return d.rewrite(p, ice.AttrControlled(d.tie), d.theirs.password)
}

// toGuest changes what the server sends, or answers it itself.
func (d *disguise) toGuest(p []byte) []byte {
	if !d.on || !isSTUN(p) {
		return p
	}
	switch binary.BigEndian.Uint16(p) {
	case typeSuccess:
		d.last = time.Now()
	case typeError:
		if errorCode(p) == codeRoleConflict {
			d.refusals++
		}
	case typeRequest:
		if _, ok := stunAttribute(p, uint16(controlling)); ok {
			d.leading++
			return d.rewrite(p, ice.AttrControlled(0), d.ours.password)
		}
		d.controlled++
		if d.refuse {
			_, _ = d.conn.WriteToUDPAddrPort(refusalOf(d.t, p, d.ours.password), d.server)
			return nil
		}
	}
	return p
}

// rewrite makes p the check of an agent in another role.
func (d *disguise) rewrite(p []byte, claim stun.Setter, password string) []byte {
	m := &stun.Message{Raw: append([]byte(nil), p...)}
	if err := m.Decode(); err != nil {
		d.t.Errorf("decode check: %v", err)
		return nil
	}
	setters := []stun.Setter{m.Type, stun.NewTransactionIDSetter(m.TransactionID)}
	for _, a := range m.Attributes {
		if a.Type == stun.AttrUsername || a.Type == stun.AttrPriority {
			setters = append(setters, stun.RawAttribute{Type: a.Type, Value: a.Value})
		}
	}
	out, err := stun.Build(append(setters, claim, stun.NewShortTermIntegrity(password), stun.Fingerprint)...)
	if err != nil {
		d.t.Errorf("rewrite check: %v", err)
		return nil
	}
	return out.Raw
}

// check sends checks of a controlled agent while the disguise is on.
func (d *disguise) check() {
	tick := time.NewTicker(disguiseCheck)
	defer tick.Stop()
	for {
		select {
		case <-d.done:
			return
		case <-tick.C:
		}
		d.mu.Lock()
		m, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername(d.theirs.ufrag+":"+d.ours.ufrag),
			ice.AttrControlled(d.tie), ice.PriorityAttr(1), stun.NewShortTermIntegrity(d.theirs.password), stun.Fingerprint)
		if err != nil {
			d.t.Errorf("build check: %v", err)
		} else if d.on && !d.silent && d.theirs.ufrag != "" {
			_, _ = d.conn.WriteToUDPAddrPort(m.Raw, d.server)
		}
		d.mu.Unlock()
	}
}

// refusalOf makes the 487 to a check.
func refusalOf(t testing.TB, check []byte, password string) []byte {
	t.Helper()
	m := &stun.Message{Raw: append([]byte(nil), check...)}
	if err := m.Decode(); err != nil {
		t.Errorf("decode check: %v", err)
		return nil
	}
	out, err := stun.Build(m, stun.BindingError, stun.CodeRoleConflict, stun.NewShortTermIntegrity(password), stun.Fingerprint)
	if err != nil {
		t.Errorf("build 487: %v", err)
		return nil
	}
	return out.Raw
}

type disguiseReport struct {
	silent                        bool
	ago                           time.Duration // since a check succeeded
	refusals, controlled, leading int
}

func (d *disguise) report() disguiseReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	return disguiseReport{d.silent, time.Since(d.last), d.refusals, d.controlled, d.leading}
}

// A conflict is a call of two: alpha, who is disguised, and beta.
type conflict struct {
	manner
	start bool // disguised from the first check on, not only when the call is under way

	d        *disguise
	a, b     *guest
	atA, atB *heardTrack
}

func (c *conflict) begin(t *testing.T, srv *Server, call string) {
	t.Helper()
	c.d = newDisguise(t, srv, c.manner)
	if c.start {
		c.d.begin()
	}
	c.a, c.b = joinBehind(t, srv, call, c.d), join(t, srv, call, "beta-"+call, guestOptions{})
	c.a.publish(webrtc.MimeTypeOpus, "a")
	c.b.publish(webrtc.MimeTypeOpus, "b")
	c.atA, c.atB = c.a.hears(classVoice, c.b.name), c.b.hears(classVoice, c.a.name)
	if !c.start {
		c.d.begin()
	}
}

func (c *conflict) mustBeAlive(t *testing.T) {
	t.Helper()
	var r disguiseReport
	until(t, "a check that succeeds", func() bool {
		r = c.d.report()
		return r.silent || r.ago <= 4*disguiseCheck
	})
	if t.Logf("%+v", r); r.silent {
		t.Errorf("want checks that succeed")
	}
	n, m := c.a.count(c.atA), c.b.count(c.atB)
	until(t, "media both ways", func() bool { return c.a.count(c.atA) > n+20 && c.b.count(c.atB) > m+20 })
}

// TestRoleConflicts: the participant's agent becomes controlled beside ours, in
// all the ways that leaves to it, and the call goes on for longer than consent
// lasts (RFC 7675). The same call without the role watch dies.
func TestRoleConflicts(t *testing.T) {
	consent := 30 * time.Second
	if testing.Short() {
		consent = 6 * time.Second
	}
	const wins = ^uint64(0)
	cases := map[string]*conflict{
		"loses-the-tie":                 {manner: manner{tie: 0}},
		"refuses-our-checks":            {manner: manner{tie: wins, refuse: true}},
		"ignores-refusals":              {manner: manner{tie: wins}},
		"loses-the-tie-at-the-start":    {manner: manner{tie: 0}, start: true},
		"refuses-our-checks-from-start": {manner: manner{tie: wins, refuse: true}, start: true},
		"ignores-refusals-from-start":   {manner: manner{tie: wins}, start: true},
	}
	srv := runServer(t, nil)
	for name, c := range cases {
		c.consent = consent
		c.begin(t, srv, name)
	}
	lost := &conflict{manner: manner{tie: wins, refuse: true, consent: consent}}
	lost.begin(t, runServer(t, func(s *Server) { s.mux.keys = nil }), "without-the-role-watch")

	time.Sleep(consent + 5*time.Second)
	for name, c := range cases {
		t.Run(name, c.mustBeAlive)
	}
	if r := lost.d.report(); !r.silent {
		t.Errorf("the call lives without the role watch too, so this test shows nothing: %+v", r)
	}
}
