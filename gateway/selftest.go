package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport/gateway/admin"
	"sallyport/turn"
)

const (
	selfTestEvery = time.Minute      // unless Options say otherwise
	selfTestFirst = 10 * time.Second // after start, at the latest
	selfTestLimit = 5 * time.Second  // for one way
)

// A selfTest goes the way of a participant behind a strict firewall now and
// then: through the public port to TURN, by an allocation and a channel to the
// SFU, and back. What no single part can notice about the whole shows here.
type selfTest struct {
	gateway *Gateway
	every   time.Duration

	metrics *selfTestMetrics

	mu      sync.Mutex // guards the following
	results []admin.SelfTest
}

func newSelfTest(g *Gateway, every time.Duration) *selfTest {
	s := &selfTest{gateway: g, every: every}
	if s.every <= 0 {
		s.every = selfTestEvery
	}
	s.metrics = newSelfTestMetrics(g.registry, s.transports())
	return s
}

// transports are the ways in.
func (s *selfTest) transports() []string {
	if s.gateway.Addrs().UDP == "" {
		return []string{"tls", "tcp"}
	}
	return []string{"tls", "tcp", "udp"}
}

// run tests until ctx ends.
func (s *selfTest) run(ctx context.Context) error {
	wait := time.NewTimer(min(s.every, selfTestFirst))
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		s.once(ctx)
		wait.Reset(s.every)
	}
}

// once tests every way in.
func (s *selfTest) once(ctx context.Context) {
	var all sync.WaitGroup
	for _, transport := range s.transports() {
		all.Go(func() {
			limited, cancel := context.WithTimeout(ctx, selfTestLimit)
			defer cancel()
			res, err := s.try(limited, transport)
			if ctx.Err() == nil { // else we are stopping: of no interest
				s.note(transport, res, err)
			}
		})
	}
	all.Wait()
}

// try goes one way.
func (s *selfTest) try(ctx context.Context, transport string) (res turn.ProbeResult, err error) {
	g := s.gateway
	target := turn.ProbeTarget{Network: transport, Address: nearest(g.Addrs().HTTPS), Peer: s.peer(), Ufrag: rand.Text()}
	target.Username, target.Password = g.turn.Credentials("sallyport-selftest", time.Now().Add(time.Minute))
	switch transport {
	case "udp":
		target.Address = nearest(g.Addrs().UDP)
	case "tls":
		target.Dial = func(ctx context.Context) (net.Conn, error) { return g.certs.Dial(ctx, target.Address) }
	}
	if !target.Peer.IsValid() {
		return turn.Probe(ctx, target)
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	var both errgroup.Group
	both.Go(func() error { return g.sfu.Echo(ctx, target.Ufrag) })
	both.Go(func() (err error) {
		defer done()
		res, err = turn.Probe(ctx, target)
		return err
	})
	return res, both.Wait()
}

// peer is an address under which the relay reaches the SFU; not valid if it
// cannot.
func (s *selfTest) peer() netip.AddrPort {
	g := s.gateway
	if g.sfu == nil || !slices.Contains(g.config().TURN.RelayTo, RelayToSFU) {
		return netip.AddrPort{}
	}
	var six netip.AddrPort
	for _, a := range g.sockets.media.Addresses() {
		switch at := a.Advertised; {
		case at.Addr().Is4():
			return at
		case at.IsValid() && !six.IsValid():
			six = at
		}
	}
	return six
}

// note records a result and logs changes.
func (s *selfTest) note(transport string, res turn.ProbeResult, err error) {
	r := admin.SelfTest{Transport: transport, OK: err == nil, At: time.Now(), Took: res.Connect + res.Allocate + res.RoundTrip}
	if err != nil {
		r.Error = err.Error()
	}
	s.metrics.note(transport, res, err == nil)
	switch before := s.replace(r); {
	case !r.OK && before.OK:
		s.gateway.logger.Warn("self-test failed", "transport", transport, "err", err)
	case r.OK && !before.OK:
		s.gateway.logger.Info("self-test works again", "transport", transport)
	}
}

// replace stores a result and returns the one before; the first comes after a
// good one.
func (s *selfTest) replace(r admin.SelfTest) admin.SelfTest {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.results, func(x admin.SelfTest) bool { return x.Transport == r.Transport })
	if i < 0 {
		s.results = append(s.results, r)
		slices.SortFunc(s.results, func(a, b admin.SelfTest) int { return cmp.Compare(a.Transport, b.Transport) })
		return admin.SelfTest{OK: true}
	}
	before := s.results[i]
	s.results[i] = r
	return before
}

// status returns a copy of the latest results.
func (s *selfTest) status() []admin.SelfTest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.results)
}

// nearest is where a listener is reached from its own machine.
func nearest(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	if ip := ap.Addr(); ip.IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		return netip.AddrPortFrom(loopback, ap.Port()).String() // an IPv6 socket takes IPv4, too
	}
	return ap.String()
}
