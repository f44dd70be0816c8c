package tls

import (
	"context"
	"errors"
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
	total, perAddr int // limits

	mu     sync.Mutex // guards the following
	count  int
	byAddr map[netip.Addr]int
}

func newAdmission(total, perAddr int) *admission {
	return &admission{total: total, perAddr: perAddr, byAddr: make(map[netip.Addr]int)}
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

func (m *admission) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// source returns what identifies the remote side of c for the limits: its IPv4
// address, or the /64 of its IPv6 address, which one customer usually has whole.
// It is the zero Addr for those that are exempt: they speak for many.
func source(c net.Conn, exempt []netip.Prefix) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if slices.ContainsFunc(exempt, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return netip.Addr{}
	}
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
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
