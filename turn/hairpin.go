package turn

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoAllocation is returned when a packet is sent to an address that is not
// the relayed address of a living allocation.
var ErrNoAllocation = errors.New("write to relay: no such allocation")

var errNoLabel = errors.New("allocate: no relayed address is free")

const (
	firstLabel   = 1024  // the lowest
	startLabel   = 49152 // where giving out starts: the range in which clients expect relays
	landingQueue = 4096  // packets waiting for the SFU
	maxAdded     = 256   // aliases that Add has brought and that still hold
)

// An Alias says that clients may name the address Named as peer, and that
// packets for it belong to the media socket bound to Local. A socket has an
// alias for each address it is advertised under: its own, that of a NAT.
type Alias struct{ Named, Local netip.AddrPort }

// A Hairpin joins the relays of a TURN server with the media sockets of the
// SFU in the same process. On one side it hands out relays, on the other it is
// a net.PacketConn beside each media socket.
//
// A relayed address is relayIP with a port that only labels a map entry: it is
// never bound.
type Hairpin struct {
	ip       netip.Addr
	landings []*landing
	reserved map[uint16]bool // ports of the SFU, confusing as labels

	aliases atomic.Pointer[map[netip.AddrPort]*alias] // replaced, never modified
	relays  [1 << 16]atomic.Pointer[relay]            // by label

	mu    sync.Mutex       // guards the following
	added []netip.AddrPort // what Add brought, oldest first
	last  uint16           // label given out last; a freed one rests as long as possible
	live  int
}

// alias is an Alias as relays use it.
type alias struct {
	landing *landing
	named   *net.UDPAddr // never modified
}

// NewHairpin returns a hairpin whose relayed addresses are on relayIP, the
// address clients are told their relay has. It opens nothing.
func NewHairpin(relayIP netip.Addr, aliases []Alias) *Hairpin {
	h := &Hairpin{
		ip:       relayIP.Unmap(),
		reserved: make(map[uint16]bool),
		last:     startLabel - 1,
	}
	all := make(map[netip.AddrPort]*alias)
	at := make(map[netip.AddrPort]*landing)
	for _, a := range aliases {
		named, local := unmapped(a.Named), unmapped(a.Local)
		l := at[local]
		if l == nil {
			l = &landing{hairpin: h, index: len(h.landings), local: net.UDPAddrFromAddrPort(local), in: newRing(landingQueue), done: make(chan struct{})}
			at[local] = l
			h.landings = append(h.landings, l)
		}
		all[named] = &alias{landing: l, named: net.UDPAddrFromAddrPort(named)}
		if l.first.Load() == nil {
			l.first.Store(all[named])
		}
		h.reserved[named.Port()], h.reserved[local.Port()] = true, true
	}
	h.aliases.Store(&all)
	return h
}

// Add lets clients name further addresses, when the SFU advertises others than
// at the beginning. The earlier ones stay, because calls that have begun use
// them; of those that Add brought, the latest 256. An Alias whose Local is none
// of NewHairpin's is ignored.
func (h *Hairpin) Add(aliases []Alias) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := maps.Clone(*h.aliases.Load())
	newest := make(map[*landing]bool)
	for _, a := range aliases {
		named, local := unmapped(a.Named), unmapped(a.Local)
		i := slices.IndexFunc(h.landings, func(l *landing) bool { return addrPort(l.local) == local })
		if i < 0 || !named.IsValid() {
			continue
		}
		l := h.landings[i]
		if old := all[named]; old == nil {
			h.added = append(h.added, named)
			all[named] = &alias{landing: l, named: net.UDPAddrFromAddrPort(named)}
		} else if old.landing != l {
			all[named] = &alias{landing: l, named: old.named}
		}
		if !newest[l] {
			newest[l] = true
			l.first.Store(all[named])
		}
	}
	for ; len(h.added) > maxAdded; h.added = h.added[1:] {
		delete(all, h.added[0])
	}
	h.aliases.Store(&all)
}

// alias returns the alias that a client means by peer, nil if it is none.
func (h *Hairpin) alias(peer netip.AddrPort) *alias { return (*h.aliases.Load())[peer] }

// Conns returns the SFU's side: one net.PacketConn for each distinct
// Alias.Local, in the order they were given; its LocalAddr is that address.
//
// ReadFrom yields what clients sent to an alias of the socket; the source is
// the relayed address, a *net.UDPAddr that must not be modified. Its only
// error is net.ErrClosed, after Close. WriteTo sends to a relayed address and
// fails with ErrNoAllocation if there is no such relay; it never blocks.
// Deadlines have no effect. The conns also have the methods
// ReadFromUDPAddrPort and WriteToUDPAddrPort of net.UDPConn.
func (h *Hairpin) Conns() []net.PacketConn {
	conns := make([]net.PacketConn, len(h.landings))
	for i, l := range h.landings {
		conns[i] = l
	}
	return conns
}

// Close ends the ReadFrom of all conns. It may be called more than once.
func (h *Hairpin) Close() error {
	for _, l := range h.landings {
		_ = l.Close()
	}
	return nil
}

// register gives r a relayed address, with an even port if asked for, and makes
// it reachable.
func (h *Hairpin) register(r *relay, even bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	label := h.last
	for range 1 << 16 {
		if label++; label < firstLabel {
			label = firstLabel
		}
		if h.reserved[label] || even && label%2 != 0 || h.relays[label].Load() != nil {
			continue
		}
		h.last = label
		h.live++
		r.addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.ip, label))
		h.relays[label].Store(r)
		return nil
	}
	return errNoLabel
}

// unregister frees the address of r.
func (h *Hairpin) unregister(r *relay) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.relays[r.addr.Port].CompareAndSwap(r, nil) {
		h.live--
	}
}

// find returns the relay with the given address, nil if there is none.
func (h *Hairpin) find(a netip.AddrPort) *relay {
	if a.Addr().Unmap() != h.ip {
		return nil
	}
	return h.relays[a.Port()].Load()
}

// A landing is a media socket of the SFU as seen from the relays.
type landing struct {
	hairpin *Hairpin
	index   int // place in Hairpin.landings
	local   *net.UDPAddr
	first   atomic.Pointer[alias] // label of packets to relays that never wrote here
	in      *ring
	done    chan struct{}
	once    sync.Once
}

func (l *landing) ReadFrom(b []byte) (int, net.Addr, error) {
	p := l.read()
	if p == nil {
		return 0, nil, net.ErrClosed
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
	r := l.hairpin.find(to)
	if r == nil {
		return 0, ErrNoAllocation
	}
	r.fromSFU(b, l)
	return len(b), nil
}

func (l *landing) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *landing) LocalAddr() net.Addr              { return l.local }
func (l *landing) SetDeadline(time.Time) error      { return nil }
func (l *landing) SetReadDeadline(time.Time) error  { return nil }
func (l *landing) SetWriteDeadline(time.Time) error { return nil }

// addrPort returns a UDP or TCP address as a value, without allocating. The
// zero value stands for every other kind.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	default:
		return netip.AddrPort{}
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
