package turn

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	handoffEvery = 64 // packets, of which one is measured

	// relayQueue is how many packets may wait for pion's goroutine of one
	// allocation: a few key frames, or 50 ms at 20 kpps.
	relayQueue = 1024

	// silence is how long a media server may say nothing until what is sent to it
	// counts as belonging to no call: in one, it answers checks of ICE every few
	// seconds.
	silence = 30 * time.Second

	// A token bucket holds a quarter of a second, but a key frame in any case.
	bucketTime = 250 * time.Millisecond
	bucketMin  = 16 << 10
)

// A relay is the packet connection pion/turn gets for one allocation. It knows
// two ways out: to the SFU through its hairpin and, if relay_to names other
// peers, through a kernel socket opened when first used. Everything else sent
// to it is dropped and counted.
//
// Two goroutines of pion's use it, the read loop of the shard (WriteTo) and the
// loop of the allocation (ReadFrom); past them media goes on the goroutines of the
// client's reader and of the SFU.
type relay struct {
	hairpin  *Hairpin
	peers    *peers
	metrics  *metrics
	use      *watched                // of the client's credential
	flow     *flow                   // counters of the client's transport
	up, down *rate.Limiter           // nil = unlimited
	group    *sync.WaitGroup         // has one count until ReadFrom reported the end
	closed   func()                  // called once, at Close
	at       netip.AddrPort          // the relayed address
	addr     *net.UDPAddr            // the same; never modified
	in       *ring                   // towards the client
	done     chan struct{}           //
	once     sync.Once               // closing done
	ended    sync.Once               // leaving group
	named    []atomic.Pointer[alias] // per landing: the alias the client used last

	answered atomic.Bool              // a peer has sent something since it was last looked at
	inCall   atomic.Bool              // it did so lately
	heard    atomic.Int64             // when that was last seen, Unix time in nanoseconds
	sent     atomic.Uint32            // hauls to the SFU, and packets to others
	bound    atomic.Pointer[bindings] // nil before the first channel and after Close
	slow     atomic.Int32             // packets that pion has got, or will get, and has not sent yet
	passing  bool                     // pion has one; its loop only

	from   net.UDPAddr // result of ReadFrom, valid until the next one
	fromIP [16]byte

	mu     sync.Mutex   // guards the following
	kernel *net.UDPConn // nil until a peer other than the SFU was written to
	shut   bool
}

// relayConfig is what a relay is made of.
type relayConfig struct {
	hairpin *Hairpin
	peers   *peers
	metrics *metrics
	use     *watched
	flow    *flow
	bitrate int64 // bit/s each way, 0 = unlimited
	wish    wish
	group   *sync.WaitGroup
	closed  func()
}

// newRelay makes a relay, registers its address and adds one to the group.
// Whoever gets it closes it and reads it until the error, or abandons it.
func newRelay(c relayConfig) (*relay, error) {
	r := &relay{
		hairpin: c.hairpin, peers: c.peers, metrics: c.metrics, use: c.use, flow: c.flow, group: c.group, closed: c.closed,
		in: newRing(relayQueue), done: make(chan struct{}),
		named: make([]atomic.Pointer[alias], len(c.hairpin.landings)),
	}
	if c.bitrate > 0 {
		bytes := float64(c.bitrate) / 8
		burst := max(bucketMin, int(bytes*bucketTime.Seconds()))
		r.up, r.down = rate.NewLimiter(rate.Limit(bytes), burst), rate.NewLimiter(rate.Limit(bytes), burst)
	}
	if err := c.hairpin.register(r, c.wish); err != nil {
		return nil, err
	}
	r.group.Add(1)
	return r, nil
}

// WriteTo sends what the client wants relayed to a peer. It reports success
// for what it drops: a peer that is not there would not be noticed either.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	peer := addrPort(to)
	a := r.hairpin.alias(peer)
	if a != nil && !r.peers.sfu {
		a = nil
	}
	switch {
	case a == nil && !r.peers.allows(peer):
		r.metrics.deniedSend.Inc()
	case len(b) > maxDatagram:
		r.metrics.drops.oversize.Inc()
	case r.up != nil && !r.up.AllowN(time.Now(), len(b)):
		r.metrics.drops.bitrate.Inc()
	case a != nil:
		h := newHaul()
		h.relay, h.alias, h.packets = r, a, append(h.packets, b)
		h.release()
	default:
		r.toKernel(b, peer)
	}
	return len(b), nil
}

// toSFU gives the SFU packets that belong to one of its sockets. It may change
// them.
func (r *relay) toSFU(packets [][]byte, a *alias) {
	l := a.landing
	if last := &r.named[l.index]; last.Load() != a {
		last.Store(a)
	}
	bytes := 0
	for _, b := range packets {
		bytes += len(b)
	}
	handed := r.account(bytes, len(packets))
	if l.give(packets, r.at) {
		if !handed.IsZero() {
			r.metrics.handoff.Observe(time.Since(handed).Seconds())
		}
		return
	}
	for _, b := range packets {
		p := packetOf(b)
		p.relay, p.handed = r, handed
		if lost := l.in.push(p); lost > 0 {
			r.metrics.drops.landing.Add(float64(lost))
		}
	}
}

// account counts what goes to a peer, and whether anybody answers. Now and then it
// returns the time.
func (r *relay) account(bytes, packets int) (now time.Time) {
	r.flow.up(bytes, packets)
	if r.sent.Add(1)%handoffEvery == 0 {
		now = time.Now()
		r.listen(now)
	}
	if !r.inCall.Load() && !r.answered.Load() {
		r.metrics.unanswered.Add(float64(bytes))
		r.use.unanswered.Add(int64(bytes))
	}
	return now
}

// listen notes whether peers still answer.
func (r *relay) listen(now time.Time) {
	if r.answered.Swap(false) {
		r.heard.Store(now.UnixNano())
		r.inCall.Store(true)
	} else if now.UnixNano()-r.heard.Load() > int64(silence) {
		r.inCall.Store(false)
	}
}

// hear notes that a peer has sent something.
func (r *relay) hear() {
	if !r.answered.Load() { // who only looks does not take the line from others
		r.answered.Store(true)
	}
}

// fromSFU takes what the SFU sends to the client. The client sees the address
// it used itself: behind a NAT that is not the socket's.
func (r *relay) fromSFU(b []byte, l *landing, late *sheaf) {
	if len(b) > maxDatagram {
		r.metrics.drops.oversize.Inc()
		return
	}
	r.hear()
	a := r.named[l.index].Load()
	if a == nil {
		a = l.first.Load()
	}
	if !r.straight(b, a, late) {
		p := packetOf(b)
		p.alias = a
		r.deliver(p)
	}
}

// deliver queues p for pion, and so for the client.
func (r *relay) deliver(p *packet) {
	if r.down != nil && !r.down.AllowN(time.Now(), p.n) {
		r.metrics.drops.bitrate.Inc()
		p.release()
		return
	}
	r.slow.Add(1)
	if lost := r.in.push(p); lost > 0 {
		r.slow.Add(int32(-lost))
		r.metrics.drops.relay.Add(float64(lost))
	}
}

// ReadFrom returns the next packet for the client. The address it returns is
// valid until the next call.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	if r.passing {
		r.slow.Add(-1)
	}
	for {
		if p := r.in.pop(); p != nil {
			n, from := copy(b, p.bytes()), r.source(p)
			p.release()
			r.flow.down(n)
			r.passing = true
			return n, from, nil
		}
		select {
		case <-r.in.wake:
		case <-r.done:
			r.ended.Do(r.group.Done)
			return 0, nil, net.ErrClosed
		}
	}
}

func (r *relay) source(p *packet) *net.UDPAddr {
	if p.alias != nil {
		return p.alias.named
	}
	ip := p.from.Addr()
	if ip.Is4() {
		v4 := ip.As4()
		r.from.IP = append(r.fromIP[:0], v4[:]...)
	} else {
		r.fromIP = ip.As16()
		r.from.IP = r.fromIP[:]
	}
	r.from.Port = int(p.from.Port())
	return &r.from
}

// Close frees the relayed address. pion calls it when the allocation ends.
func (r *relay) Close() error {
	r.once.Do(func() {
		r.hairpin.unregister(r)
		r.mu.Lock()
		r.shut = true // before done: no socket is opened once ReadFrom has ended
		if r.kernel != nil {
			_ = r.kernel.Close()
		}
		r.mu.Unlock()
		close(r.done)
		r.bound.Store(nil)
		r.closed()
	})
	return nil
}

// abandon closes a relay that nobody will ever read.
func (r *relay) abandon() {
	_ = r.Close()
	r.ended.Do(r.group.Done)
}

func (r *relay) LocalAddr() net.Addr              { return r.addr }
func (r *relay) SetDeadline(time.Time) error      { return nil }
func (r *relay) SetReadDeadline(time.Time) error  { return nil }
func (r *relay) SetWriteDeadline(time.Time) error { return nil }
