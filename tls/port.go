package tls

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// PortOptions are the optional parts of a [Port]. The zero value is what a
// public server wants.
type PortOptions struct {
	// Logger gets one debug line per refused connection; nil discards them.
	Logger *slog.Logger

	// Metrics is where the counters are registered; nil leaves them out.
	Metrics prometheus.Registerer

	// FirstBytes is how long a client has to say what it speaks; 0 is 10 s.
	FirstBytes time.Duration

	// Handshake is how long a TLS handshake may take; 0 is 10 s.
	Handshake time.Duration

	// Silence is how long a client may say nothing after the handshake; 0 is
	// 60 s. It is long because browsers connect ahead of need.
	Silence time.Duration

	// PerAddress is how many connections of one IPv4 address or IPv6 /64 may
	// wait to be handed over; 0 is 2048: 500 people of one office, all behind
	// one address and joining the same call, open four connections each.
	PerAddress int

	// Total is the same for all addresses together; 0 is 20000.
	Total int

	// OpenPerAddress is how many connections of one IPv4 address or IPv6 /64
	// may be open, from accept until somebody closes them; 0 is 8192. SetLimits
	// changes it.
	OpenPerAddress int

	// OpenTotal is the same for all addresses together; 0 is three quarters of
	// the file descriptors that the process may open, less if that would leave
	// fewer than 1024: media and upstreams need theirs.
	OpenTotal int

	// Trusted are the networks of the load balancers in front of us, each of
	// which is one address for everybody: no limit by address applies to them,
	// and a PROXY header (version 1 or 2) at the very beginning of a connection
	// is believed. From everybody else such a header ends the connection.
	// SetTrusted changes them.
	Trusted []netip.Prefix

	// Running is how many handshakes may compute at once; 0 is 4 per core.
	Running int

	// Waiting is how many more may wait for that; 0 is 4096, which even one core
	// serves before they time out. Those beyond fail.
	Waiting int

	// Unanswered is how many handshakes may wait for their client; 0 is 1024 per
	// core, which is half a second's worth, and 2048 at least. One more closes the
	// one that has waited longest.
	Unanswered int

	// Queue is how many connections each listener holds between hand-over and
	// Accept; 0 is 128.
	Queue int
}

// withDefaults fills in what is zero.
func (o PortOptions) withDefaults() PortOptions {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.FirstBytes = cmp.Or(o.FirstBytes, 10*time.Second)
	o.Handshake = cmp.Or(o.Handshake, 10*time.Second)
	o.Silence = cmp.Or(o.Silence, 60*time.Second)
	o.PerAddress = cmp.Or(o.PerAddress, 2048)
	o.Total = cmp.Or(o.Total, 20000)
	o.OpenPerAddress = cmp.Or(o.OpenPerAddress, 8192)
	o.OpenTotal = cmp.Or(o.OpenTotal, openTotal(maxFiles()))
	o.Running = cmp.Or(o.Running, 4*runtime.GOMAXPROCS(0))
	o.Waiting = cmp.Or(o.Waiting, 4096)
	o.Unanswered = cmp.Or(o.Unanswered, max(2048, 1024*runtime.GOMAXPROCS(0)))
	o.Queue = cmp.Or(o.Queue, 128)
	return o
}

// A Port shares one listening TCP socket between HTTPS, TURN over TLS, TURN
// over TCP, ICE-TCP and plain HTTP. See the package comment for the rules.
//
// RemoteAddr and LocalAddr of every connection handed out are *net.TCPAddr
// (those of the socket's connections; RemoteAddr is the client's that a trusted
// proxy names in a PROXY header), its deadlines are cleared, and the Port
// never touches it again: it only learns when the connection is closed.
type Port struct {
	ln    net.Listener
	port  string // of ln
	certs *Certificates
	opts  PortOptions

	slots      *slots
	unanswered *crowd
	pending    *admission // not handed over yet
	open       *admission // not closed yet
	metrics    *portMetrics

	trusted   *atomic.Pointer[[]netip.Prefix]
	exempt    *atomic.Pointer[[]netip.Prefix] // beside trusted, from limits by address
	complain  *limiter                        // of PROXY headers of others than trusted
	shut      *atomic.Bool                    // ln was closed by Shut
	last      chan struct{}                   // closed when no connection comes from ln any more
	plainOnly bool                            // nothing but HTTP without TLS is served

	http, plain, turn, ice *queue
}

// A ConnectionState is what a finished handshake agreed on. The connections of
// [Port.HTTP] have it.
type ConnectionState = tls.ConnectionState

// NewPort returns a Port that will accept from ln, which it then owns. It
// starts nothing: connections are accepted once Run is called.
func NewPort(ln net.Listener, certs *Certificates, o PortOptions) *Port {
	o = o.withDefaults()
	p := &Port{
		ln:         ln,
		port:       portName(ln),
		certs:      certs,
		opts:       o,
		slots:      newSlots(o.Running, o.Waiting),
		unanswered: newCrowd(o.Unanswered),
		pending:    newAdmission(o.Total, o.PerAddress),
		open:       newAdmission(o.OpenTotal, o.OpenPerAddress),
		trusted:    new(atomic.Pointer[[]netip.Prefix]),
		exempt:     new(atomic.Pointer[[]netip.Prefix]),
		complain:   new(limiter),
		shut:       new(atomic.Bool),
		last:       make(chan struct{}),
	}
	p.makeQueues()
	p.SetTrusted(o.Trusted)
	p.exempt.Store(new([]netip.Prefix))
	p.metrics = newPortMetrics(o.Metrics, p.pending.size)
	return p
}

// portName returns the number under which metrics know ln.
func portName(ln net.Listener) string {
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// Beside returns a Port that accepts from ln, which it then owns, as p does, but
// serves HTTP without TLS only: its other listeners never get a connection. It
// shares p's limits, metrics and trusted proxies, SetTrusted included.
func (p *Port) Beside(ln net.Listener) *Port {
	beside := *p
	beside.ln, beside.port, beside.plainOnly = ln, portName(ln), true
	beside.shut, beside.last = new(atomic.Bool), make(chan struct{})
	beside.makeQueues()
	return &beside
}

func (p *Port) makeQueues() {
	for _, q := range []**queue{&p.http, &p.plain, &p.turn, &p.ice} {
		*q = newQueue(p.ln.Addr(), p.opts.Queue)
	}
}

// HTTP returns the listener of HTTP over TLS, handshake finished. HTTP/2
// connections are bare *tls.Conn, the only type on which net/http serves it;
// all others fill http.Request.TLS just the same. So a server needs no
// TLSConfig, only the protocols:
//
//	s := &http.Server{Protocols: new(http.Protocols)}
//	s.Protocols.SetHTTP1(true)
//	s.Protocols.SetHTTP2(true)
//	s.Serve(port.HTTP())
func (p *Port) HTTP() net.Listener { return p.http }

// Plain returns the listener of HTTP without TLS: answer with a redirect to
// https and nothing else.
func (p *Port) Plain() net.Listener { return p.plain }

// TURN returns the listener of TURN over TLS and over TCP. Its connections have
// a method Secure() bool that tells the two apart.
func (p *Port) TURN() net.Listener { return p.turn }

// ICE returns the listener of ICE-TCP: STUN in RFC 4571 frames, without TLS.
func (p *Port) ICE() net.Listener { return p.ice }

// SetTrusted replaces PortOptions.Trusted for new connections.
func (p *Port) SetTrusted(networks []netip.Prefix) { p.trusted.Store(&networks) }

// SetLimits replaces, for new connections, PortOptions.OpenPerAddress (0: any
// number) and the networks, beside the trusted ones, to which neither it nor
// PerAddress applies. They hold for Ports beside this one as well.
func (p *Port) SetLimits(openPerAddress int, exempt []netip.Prefix) {
	p.open.limit(openPerAddress)
	p.exempt.Store(&exempt)
}

// Run accepts connections until ctx ends, then returns nil. Before it returns
// it closes the socket, the four listeners and every connection that was not
// accepted from them, and waits for its goroutines. An error means that the
// socket failed.
func (p *Port) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer p.close()
	defer conns.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { p.ln.Close() })()
	for {
		c, err := p.accept(ctx)
		if err != nil || c == nil {
			return err
		}
		v := &visit{trusted: *p.trusted.Load(), exempt: *p.exempt.Load()}
		if limit := p.admit(c, v); limit != "" {
			p.metrics.refused.WithLabelValues(limit).Inc()
			c.Close()
			continue
		}
		conns.Go(func() {
			defer v.pending.leave()
			p.serve(ctx, v)
		})
	}
}

// A visit is one connection until it is handed over. It belongs to the
// goroutine that serves it.
type visit struct {
	conn    *peeked
	pending *place
	trusted []netip.Prefix // as they were when it came, like exempt
	exempt  []netip.Prefix
}

// source returns what stands for the remote side of c in limits by address, the
// zero Addr if none applies to it.
func (v *visit) source(c net.Conn) netip.Addr {
	if contains(v.exempt, remoteIP(c)) {
		return netip.Addr{}
	}
	return source(c, v.trusted)
}

// admit counts c, as pending and as open, and makes it v's; refused is the
// limit it would exceed.
func (p *Port) admit(c net.Conn, v *visit) (refused string) {
	from := v.source(c)
	open, limit := p.open.take(from)
	if limit != "" {
		return "open_" + limit
	}
	if v.pending, limit = p.pending.take(from); limit != "" {
		open.leave()
		return limit
	}
	v.conn = &peeked{Conn: c, place: open}
	return ""
}

func (p *Port) close() {
	p.ln.Close()
	for _, q := range []*queue{p.http, p.plain, p.turn, p.ice} {
		q.Close()
	}
}
