package turn

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A landing is a media socket of the SFU as seen from the relays.
type landing struct {
	hairpin *Hairpin
	index   int // place in Hairpin.landings
	local   *net.UDPAddr
	first   atomic.Pointer[alias] // label of packets to relays that never wrote here
	in      *ring                 // what waits for ReadFrom
	done    chan struct{}
	once    sync.Once

	mu   sync.RWMutex                          // held to read while take runs
	take func(p [][]byte, from netip.AddrPort) // of Receive; nil: there is ReadFrom
}

// Receive calls take for what clients send, on the goroutine that has read it,
// until l is closed and the last call has returned: see Hairpin.Conns.
func (l *landing) Receive(take func(packets [][]byte, from netip.AddrPort)) {
	l.mu.Lock()
	l.take = take
	l.mu.Unlock()
	<-l.done
	l.mu.Lock()
	l.take = nil
	l.mu.Unlock()
}

// give hands packets over if somebody receives them.
func (l *landing) give(packets [][]byte, from netip.AddrPort) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.take == nil {
		return false
	}
	l.take(packets, from)
	return true
}

func (l *landing) ReadFrom(b []byte) (int, net.Addr, error) {
	p := l.read()
	if p == nil {
		return 0, nil, net.ErrClosed
	}
	if !p.handed.IsZero() {
		p.relay.metrics.handoff.Observe(time.Since(p.handed).Seconds())
	}
	n, from := copy(b, p.bytes()), p.relay.addr
	p.release()
	return n, from, nil
}

// ReadFromUDPAddrPort is ReadFrom with the source as a value.
func (l *landing) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := l.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, addrPort(from), nil
}

// read waits for a packet; nil means closed.
func (l *landing) read() *packet {
	for {
		select {
		case <-l.done:
			return nil
		default:
		}
		if p := l.in.pop(); p != nil {
			return p
		}
		select {
		case <-l.in.wake:
		case <-l.done:
			return nil
		}
	}
}

func (l *landing) WriteTo(b []byte, to net.Addr) (int, error) {
	return l.WriteToUDPAddrPort(b, addrPort(to))
}

// WriteToUDPAddrPort is WriteTo with the destination as a value.
func (l *landing) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if err := l.send(b, to, nil); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Collect returns two functions for one goroutine: see Hairpin.Conns.
func (l *landing) Collect() (send func(b []byte, to netip.AddrPort) error, flush func()) {
	h := &sheaf{landing: l}
	return h.send, h.flush
}

func (l *landing) send(b []byte, to netip.AddrPort, late *sheaf) error {
	r := l.hairpin.find(to)
	if r == nil {
		return ErrNoAllocation
	}
	r.fromSFU(b, l, late)
	return nil
}

// Reaches reports whether a relayed address is that of a living allocation.
func (l *landing) Reaches(client netip.AddrPort) bool { return l.hairpin.find(client) != nil }

func (l *landing) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *landing) LocalAddr() net.Addr              { return l.local }
func (l *landing) SetDeadline(time.Time) error      { return nil }
func (l *landing) SetReadDeadline(time.Time) error  { return nil }
func (l *landing) SetWriteDeadline(time.Time) error { return nil }
