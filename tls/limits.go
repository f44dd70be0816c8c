package tls

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// errBusy ends a handshake that found too many others waiting.
var errBusy = errors.New("too many handshakes")

// slots bound how many handshakes compute at once, and how many may wait for
// that. Signing is the one expensive thing a stranger can make us do.
type slots struct {
	running chan struct{} // one element per slot in use
	waiting atomic.Int64
	most    int64 // of waiting
}

func newSlots(running, waiting int) *slots {
	return &slots{running: make(chan struct{}, running), most: int64(waiting)}
}

func (s *slots) acquire(ctx context.Context) error {
	select {
	case s.running <- struct{}{}:
		return nil
	default:
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > s.most {
		return errBusy
	}
	select {
	case s.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slots) release() { <-s.running }

// An admission counts connections, in all and by remote address. A Port has
// two: of those that have not been handed over yet, where the limit is high
// enough for a company behind one address, since browsers and TURN clients say
// at once what they are; and of all that are open. The zero Addr counts in all
// only: it stands for those to whom no limit by address applies.
type admission struct {
	total int // limit

	mu      sync.Mutex // guards the following
	perAddr int        // limit
	count   int
	byAddr  map[netip.Addr]int
}

func newAdmission(total, perAddr int) *admission {
	return &admission{total: total, perAddr: perAddr, byAddr: make(map[netip.Addr]int)}
}

// limit sets how many of one address are admitted from now on; 0: any number.
func (m *admission) limit(perAddr int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.perAddr = cmp.Or(perAddr, math.MaxInt)
}

// enter admits one connection from a; refused is the limit it would exceed.
func (m *admission) enter(a netip.Addr) (refused string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.count >= m.total:
		return "total"
	case a.IsValid() && m.byAddr[a] >= m.perAddr:
		return "address"
	}
	m.count++
	m.byAddr[a]++
	return ""
}

func (m *admission) leave(a netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count--
	if m.byAddr[a]--; m.byAddr[a] <= 0 {
		delete(m.byAddr, a)
	}
}

// A place is one connection's share in an admission.
type place struct {
	of *admission

	mu   sync.Mutex // guards the following
	at   netip.Addr
	left bool
}

// take admits one connection from a; refused is the limit it would exceed.
func (m *admission) take(a netip.Addr) (p *place, refused string) {
	if refused := m.enter(a); refused != "" {
		return nil, refused
	}
	return &place{of: m, at: a}, ""
}

// move makes the connection one from a. If that would exceed a limit, which it
// returns, the place is lost.
func (p *place) move(a netip.Addr) (refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left || a == p.at {
		return ""
	}
	p.of.leave(p.at) // first, or a full port could serve no proxy
	if refused := p.of.enter(a); refused != "" {
		p.left = true
		return refused
	}
	p.at = a
	return ""
}

// leave gives the place up. It may be called more than once.
func (p *place) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left {
		p.left = true
		p.of.leave(p.at)
	}
}

func (m *admission) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// source returns what identifies the remote side of c for the limits: its IPv4
// address, or the /64 of its IPv6 address, which one customer usually has whole.
// It is the zero Addr for trusted proxies: they speak for many.
func source(c net.Conn, trusted []netip.Prefix) netip.Addr {
	a := remoteIP(c)
	if !a.IsValid() || contains(trusted, a) {
		return netip.Addr{}
	}
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// remoteIP is the address of the other side of c, the zero Addr if that is not
// TCP.
func remoteIP(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// spareFiles is how many file descriptors stay free for media, upstreams and
// files if the process may open enough of them.
const spareFiles = 1024

// openTotal is how many connections may be open if a process may open files
// file descriptors: it leaves a quarter of them, or spareFiles if that is more,
// but never takes less than half.
func openTotal(files uint64) int {
	files = min(files, 1<<30) // "unlimited" is more than an int can count
	return int(max(files-min(files, max(files/4, spareFiles)), files/2))
}

// maxFiles is how many file descriptors this process may open. The Go runtime
// has raised the soft limit to the hard one already.
func maxFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 4 * spareFiles
	}
	return limit.Cur
}
