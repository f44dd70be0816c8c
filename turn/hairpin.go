package turn

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrNoAllocation is returned when a packet is sent to an address that is not
// the relayed address of a living allocation.
var ErrNoAllocation = errors.New("write to relay: no such allocation")

var (
	errNoLabel  = errors.New("allocate: no relayed address is free")
	errNoFamily = errors.New("allocate: no relayed address in this family")
)

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
// A relayed address is one of our own, of the family the client asked for, with
// a port that only labels a map entry: it is never bound.
type Hairpin struct {
	ipv4     netip.Addr // of relayed addresses; not valid if there are none
	ipv6     netip.Addr
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
	at      netip.AddrPort
	named   *net.UDPAddr // the same; never modified
}

// NewHairpin returns a hairpin whose relayed addresses are on relayIPs, the
// addresses clients are told their relay has: the first of each family. Clients
// cannot allocate in a family that has none. It opens nothing.
func NewHairpin(relayIPs []netip.Addr, aliases []Alias) *Hairpin {
	h := &Hairpin{
		reserved: make(map[uint16]bool),
		last:     startLabel - 1,
	}
	for _, ip := range relayIPs {
		own := h.own(familyOf(ip.Unmap()))
		if !own.IsValid() {
			*own = ip.Unmap()
		}
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
		all[named] = &alias{landing: l, at: named, named: net.UDPAddrFromAddrPort(named)}
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
			all[named] = &alias{landing: l, at: named, named: net.UDPAddrFromAddrPort(named)}
		} else if old.landing != l {
			all[named] = &alias{landing: l, at: named, named: old.named}
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
// ReadFromUDPAddrPort and WriteToUDPAddrPort of net.UDPConn, and two that spare the
// packets queues and system calls:
//
//	Receive(take func(packets [][]byte, from netip.AddrPort))
//	Collect() (send func(b []byte, to netip.AddrPort) error, flush func())
//
// Receive calls take, from any goroutine and several at a time, with what one client
// has sent, until the conn is closed. take may change the packets, but keeps nothing
// of them, and must not block. Nothing comes from ReadFrom meanwhile.
//
// Collect returns functions for one goroutine, which sends several packets at once:
// send is WriteTo, but what it sends may wait until flush.
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

// own returns where our address of a family is kept.
func (h *Hairpin) own(family byte) *netip.Addr {
	if family == familyIPv6 {
		return &h.ipv6
	}
	return &h.ipv4
}

// family returns the family of a relay that a client wants to be of one; 0 is
// no preference: IPv4, as RFC 8656 §7.2 has it, unless there is none. It is
// false if there are no such relays.
func (h *Hairpin) family(wanted byte) (byte, bool) {
	if wanted == 0 {
		wanted = familyIPv4
		if !h.ipv4.IsValid() {
			wanted = familyIPv6
		}
	}
	return wanted, (wanted == familyIPv4 || wanted == familyIPv6) && h.own(wanted).IsValid()
}

// A wish is what an Allocate asks of its relayed address.
type wish struct {
	family byte // of REQUESTED-ADDRESS-FAMILY, 0 if there is none
	even   bool // the port
}

// register gives r a relayed address and makes it reachable.
func (h *Hairpin) register(r *relay, w wish) error {
	family, ok := h.family(w.family)
	if !ok {
		return errNoFamily
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	label := h.last
	for range 1 << 16 {
		if label++; label < firstLabel {
			label = firstLabel
		}
		if h.reserved[label] || w.even && label%2 != 0 || h.relays[label].Load() != nil {
			continue
		}
		h.last = label
		h.live++
		r.at = netip.AddrPortFrom(*h.own(family), label)
		r.addr = net.UDPAddrFromAddrPort(r.at)
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
	r := h.relays[a.Port()].Load()
	if r == nil || a.Addr().Unmap() != r.at.Addr() {
		return nil
	}
	return r
}

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
