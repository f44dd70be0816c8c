package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// defaultRealm is used when the configuration names none.
	defaultRealm = "sallyport"

	// MaxRealm is how long Config.Realm may be, in bytes: the challenge that
	// carries it must not exceed three times a browser's first request.
	MaxRealm = 32

	// maxAmplification is how much longer than a request its answer may be
	// while the address it came from may be forged.
	maxAmplification = 3

	// reportRate and reportBurst bound the log lines that clients cause, per
	// second and at once.
	reportRate  = 1
	reportBurst = 10
)

// Config is the turn section of the configuration file. Everything in it
// needs a restart to change; secrets are reloaded by SetSecrets.
type Config struct {
	// Enabled and the two file names are for who reads the configuration;
	// this package gets the secrets themselves.
	Enabled            bool   `koanf:"enabled"`
	SecretFile         string `koanf:"secret_file"`
	PreviousSecretFile string `koanf:"previous_secret_file"`

	// Realm is what clients are told to authenticate for; empty means
	// "sallyport". It is part of every challenge: at most MaxRealm bytes.
	Realm string `koanf:"realm"`

	// RelayTo lists who clients may be relayed to: "sfu", "host:port" or
	// "CIDR:port". Empty means nobody. Loopback, link-local, cloud metadata,
	// multicast, IPv4 inside IPv6 and the addresses of this machine are reached
	// only through an entry with exactly that address and port.
	RelayTo []string `koanf:"relay_to"`

	MaxAllocations    int   `koanf:"max_allocations"`    // of all users; 0 = as many as there are addresses (64,512)
	UserAllocations   int   `koanf:"user_allocations"`   // of one user; 0 = unlimited
	AllocationBitrate int64 `koanf:"allocation_bitrate"` // bit/s in each direction; 0 = unlimited
}

// Options are what a Server needs beyond its configuration.
type Options struct {
	Logger  *slog.Logger          // nil = discard
	Metrics prometheus.Registerer // nil = not registered

	// Secrets are those credentials may have been minted with, the current one
	// first. At least one, none empty.
	Secrets [][]byte
}

// A Server is a TURN server. Its methods may be called from any goroutine.
type Server struct {
	realm     string
	hairpin   *Hairpin
	peers     *peers
	quota     *quota
	metrics   *metrics
	log       *slog.Logger
	bitrate   int64
	lifetimes lifetimes
	patience  time.Duration // with strangers
	nonces    *nonces
	watch     *watch

	challenges *challenges
	reports    *rate.Limiter  // of log lines that clients cause
	relays     sync.WaitGroup // and the shards that make them

	secrets atomic.Pointer[[][]byte]
	trusted atomic.Pointer[[]netip.Prefix]
	ids     atomic.Uint64 // of clients
	live    [transports]atomic.Int64
	streams atomic.Int64

	unreported atomic.Int64
}

// lifetimes are the shortest and longest an allocation is granted.
type lifetimes struct{ min, max time.Duration }

func (l lifetimes) clamp(d time.Duration) time.Duration { return min(max(d, l.min), l.max) }

// New returns a server whose allocations lead to h. It opens nothing and
// starts nothing. h belongs to one server; the caller closes it after Run.
func New(cfg Config, h *Hairpin, o Options) (*Server, error) {
	allowed, err := newPeers(cfg.RelayTo)
	if err != nil {
		return nil, err
	}
	allowed.further = h.addresses
	if err := checkSecrets(o.Secrets); err != nil {
		return nil, err
	}
	if len(cfg.Realm) > MaxRealm {
		return nil, fmt.Errorf("configure turn: realm is longer than %d bytes", MaxRealm)
	}
	if cfg.MaxAllocations < 0 || cfg.UserAllocations < 0 || cfg.AllocationBitrate < 0 {
		return nil, errors.New("configure turn: a limit is negative")
	}
	w := newWatch()
	m, err := newMetrics(o.Metrics, w.most)
	if err != nil {
		return nil, fmt.Errorf("register turn metrics: %w", err)
	}
	s := &Server{
		realm: cfg.Realm, hairpin: h, peers: allowed, quota: newQuota(cfg.MaxAllocations, cfg.UserAllocations),
		metrics: m, log: o.Logger, bitrate: cfg.AllocationBitrate,
		lifetimes: lifetimes{minLifetime, maxLifetime}, patience: strangerTime,
		nonces: newNonces(), watch: w, challenges: newChallenges(), reports: rate.NewLimiter(reportRate, reportBurst),
	}
	if s.realm == "" {
		s.realm = defaultRealm
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.SetSecrets(o.Secrets)
	return s, nil
}

func checkSecrets(secrets [][]byte) error {
	if len(secrets) == 0 || slices.ContainsFunc(secrets, func(s []byte) bool { return len(s) == 0 }) {
		return errors.New("configure turn: secret is missing or empty")
	}
	return nil
}

// SetSecrets replaces the secrets, the current one first. Empty ones are left
// out; if none remains the old ones stay. Living allocations keep the key they
// were made with.
func (s *Server) SetSecrets(secrets [][]byte) {
	var next [][]byte
	for _, secret := range secrets {
		if len(secret) > 0 {
			next = append(next, slices.Clone(secret))
		}
	}
	if len(next) > 0 {
		s.secrets.Store(&next)
	}
}

// SetTrusted names the networks of the load balancers in front of us, each of
// which is one address for everybody: no limit by address applies to
// connections that still have it. There are none at first.
func (s *Server) SetTrusted(networks []netip.Prefix) { s.trusted.Store(&networks) }

// counted is the network for which a connection from a counts in limits by
// address; the zero Addr if none applies.
func (s *Server) counted(a netip.Addr) netip.Addr {
	if t := s.trusted.Load(); t != nil && slices.ContainsFunc(*t, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return netip.Addr{}
	}
	return network(a)
}

// Credentials mints a credential for the server itself, from the current secret:
// see the function of the same name.
func (s *Server) Credentials(user string, expiry time.Time) (username, password string) {
	return Credentials((*s.secrets.Load())[0], user, expiry)
}

// Status is what a server is doing.
type Status struct {
	Allocations map[string]int `json:"allocations"` // living, by transport: udp, tcp, tls
	Users       int            `json:"users"`       // who hold at least one
	Connections int            `json:"connections"` // open, TCP and TLS
	Suspects    []Suspect      `json:"suspects"`    // the worst first, 20 at most
}

// Status returns a copy of the state of this moment.
func (s *Server) Status() Status {
	st := Status{Allocations: make(map[string]int), Connections: int(s.streams.Load()), Suspects: s.watch.suspects()}
	for t := range transports {
		st.Allocations[t.String()] = int(s.live[t].Load())
	}
	_, st.Users = s.quota.count()
	return st
}

// newRelay makes the relay of a new allocation by a user and a user name, or returns
// the error that says why not. Quota and gauges are given back when the relay is
// closed.
func (s *Server) newRelay(user, username string, via transport, w wish) (*relay, stun.ErrorCode) {
	switch err := s.quota.acquire(user); {
	case errors.Is(err, errUserQuota):
		s.report(slog.LevelInfo, "user has too many allocations", "user", user)
		return nil, stun.CodeAllocQuotaReached
	case err != nil:
		s.report(slog.LevelWarn, "too many allocations")
		return nil, stun.CodeInsufficientCapacity
	}
	use, unused := s.watch.hold(username, time.Now())
	r, err := newRelay(relayConfig{
		hairpin: s.hairpin, peers: s.peers, metrics: s.metrics, use: use, flow: s.metrics.flows[via], bitrate: s.bitrate, wish: w, group: &s.relays,
		closed: func() {
			s.quota.release(user)
			unused()
			s.metrics.allocations[via].Dec()
			s.live[via].Add(-1)
		},
	})
	if err != nil {
		s.quota.release(user)
		unused()
		s.report(slog.LevelWarn, "make relay", "err", err)
		return nil, stun.CodeInsufficientCapacity
	}
	s.metrics.allocations[via].Inc()
	s.live[via].Add(1)
	return r, 0
}

// report logs what a client has caused, at most so often.
func (s *Server) report(level slog.Level, msg string, args ...any) {
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	if !s.reports.Allow() {
		s.unreported.Add(1)
		return
	}
	s.log.Log(context.Background(), level, msg, append(args, "suppressed", s.unreported.Swap(0))...)
}
