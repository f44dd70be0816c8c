package sfu

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"sallyport/sfu/internal/batch"
)

// A reader is a goroutine that reads media: of one kernel socket, a hairpin or a
// TCP connection. What it reads together is a batch.
type reader struct {
	out    *outbox   // flushed at the end of each batch
	ends   []endHook // to be called there, before
	calm   *calm
	urgent bool // the batch has more than signs of life

	kinds kindCounters
	seen  [len(kindNames)]int // in this batch, by kind
}

// An endHook is told of the end of a batch.
type endHook interface{ endBatch(r *reader) }

func (m *mux) newReader() *reader { return &reader{out: m.newOutbox(), calm: &m.calm, kinds: m.kinds} }

// atEnd has h called once, when the batch has been delivered.
func (r *reader) atEnd(h endHook) { r.ends = append(r.ends, h) }

// finish ends a batch.
func (r *reader) finish() {
	for i := 0; i < len(r.ends); i++ { // a hook may add one
		r.ends[i].endBatch(r)
		r.ends[i] = nil
	}
	r.ends = r.ends[:0]
	r.out.flush()
	for kind, c := range r.kinds {
		if n := r.seen[kind]; n > 0 {
			c.Add(float64(n))
			r.seen[kind] = 0
		}
	}
}

// rest returns how long to wait for the next batch, to have more of it at once.
func (r *reader) rest() time.Duration {
	urgent := r.urgent
	r.urgent = false
	return r.calm.after(urgent)
}

// read delivers what arrives on s until it is closed. A read error other than
// that is a datagram lost, never the end of the mux: the kernel reports ICMP
// errors of single peers this way.
func (m *mux) read(s *muxSocket) {
	if s.kernel == nil {
		m.readHairpin(s)
		return
	}
	var readers sync.WaitGroup
	for _, k := range s.kernel {
		readers.Go(func() { m.readKernel(s, k) })
	}
	readers.Wait()
}

func (m *mux) readKernel(s *muxSocket, k *batch.Socket) {
	r, b := m.newReader(), batch.NewBatch()
	for failed := 0; ; {
		n, err := k.Read(b)
		if err != nil {
			if !m.survives(err, &failed) {
				return
			}
			continue
		}
		failed = 0
		for i := range n {
			if p, from := b.Packet(i); len(p) > maxDatagram {
				m.drops("oversized")
			} else {
				m.deliver(r, s, p, from)
			}
		}
		r.finish()
		time.Sleep(r.rest())
	}
}

// A giver is a hairpin that calls take with what it has, packets of one client that
// came together, on goroutines of its own and several at a time, until it is closed
// and the last call has returned. That spares each packet a queue and a goroutine
// that wakes up for it.
type giver interface {
	Receive(take func(packets [][]byte, from netip.AddrPort))
}

func (m *mux) readHairpin(s *muxSocket) {
	if g, ok := s.hairpin.(giver); ok {
		var readers sync.Pool // of *reader: as many as there are at a time
		g.Receive(func(packets [][]byte, from netip.AddrPort) {
			r, ok := readers.Get().(*reader)
			if !ok {
				r = m.newReader()
			}
			m.deliverAll(r, s, packets, from)
			readers.Put(r)
		})
		return
	}
	r, buf := m.newReader(), make([]byte, maxDatagram+1)
	for failed := 0; ; {
		n, from, err := s.hairpin.ReadFrom(buf)
		switch {
		case err != nil:
			if !m.survives(err, &failed) {
				return
			}
			continue
		case n > maxDatagram:
			m.drops("oversized")
		default:
			m.deliver(r, s, buf[:n], localAddrPort(from))
			r.finish()
			r.rest() // for the other readers
		}
		failed = 0
	}
}

// deliverAll delivers a batch that a hairpin has given.
func (m *mux) deliverAll(r *reader, s *muxSocket, packets [][]byte, from netip.AddrPort) {
	for _, p := range packets {
		if len(p) > maxDatagram {
			m.drops("oversized")
		} else {
			m.deliver(r, s, p, from)
		}
	}
	r.finish()
	r.rest() // for the other readers
}

// survives reports whether to go on reading after an error, the failed-th in a
// row.
func (m *mux) survives(err error, failed *int) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	m.drops("read_error")
	*failed = min(*failed+1, 100)
	time.Sleep(time.Duration(*failed-1) * time.Millisecond) // an error that stays must not take a core
	return true
}

// deliver hands one datagram to its session, or to the TURN server on a shared
// port. p may be changed until the end of the batch.
func (m *mux) deliver(r *reader, s *muxSocket, p []byte, from netip.AddrPort) {
	r.urgent = r.urgent || s.urgent(p, from)
	if len(p) == 0 || s.guest != nil && !m.mine(r, s, p, from) {
		return
	}
	if ufrag, ok := requestUfrag(p); ok {
		conn := m.lookup(ufrag, s)
		if conn == nil {
			m.drops("unknown_ufrag")
			return
		}
		s.touch(from, conn, time.Now())
		m.push(conn, p, conn.path(s, from))
		return
	}
	route := s.routes.get(from)
	if route == nil {
		m.drops("unknown_source")
		return
	}
	if route.conn.tap.takes(r, p) {
		return
	}
	if isBindingError(p) { // of no use to the agent as it is
		if p = route.conn.roles.refusal(p); p == nil {
			return
		}
	}
	m.push(route.conn, p, route.from)
}

// mine reports whether a datagram that came to a shared socket is for a session.
// If it is not, the TURN server has got it, or nobody.
func (m *mux) mine(r *reader, s *muxSocket, p []byte, from netip.AddrPort) bool {
	kind := classify(p)
	r.seen[kind]++
	switch kind {
	case kindCheck:
		if ufrag, ok := requestUfrag(p); ok && m.lookup(ufrag, s) != nil {
			return true
		}
	case kindAnswer:
		if s.routes.get(from) != nil {
			return true
		}
	case kindTURN:
	case kindMedia:
		return true // or it has no route, as on any other socket
	case kindQUIC:
		m.drops("quic")
		return false
	default:
		m.drops("malformed")
		return false
	}
	if !s.guest.give(p, from) {
		m.drops("turn_full")
	}
	return false
}

func (m *mux) push(c *muxConn, p []byte, from *net.UDPAddr) {
	if !c.in.push(p, from) {
		m.drops("queue_full")
	}
}

// relayed reports whether a remote address belongs to a client of the hairpin.
func (m *mux) relayed(address string, port uint16) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	at := netip.AddrPortFrom(ip.Unmap(), port)
	for _, s := range m.sockets {
		if s.kernel == nil && s.routes.get(at) != nil {
			return true
		}
	}
	return false
}
