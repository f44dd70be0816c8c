package gateway_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A condition is what a link does to packets that go in one direction, in the
// words of tc-netem(8). The zero condition does nothing. It is done here and not
// by that queueing discipline, because many kernels come without it.
type condition struct {
	loss   float64       // share of the packets
	delay  time.Duration // of every packet
	jitter time.Duration // added at random; the order is kept
	rate   int           // bit/s of IP; 0 = no limit
	queue  time.Duration // so much may wait for the rate: what comes on top is lost
}

// mtu is that of the links.
const mtu = 1500

// A link carries IP packets in one direction.
//
//	push ─(loss, queue)─> narrow ─(rate)─> far ─(delay, jitter)─> out
type link struct {
	out     *os.File
	state   atomic.Pointer[condition]
	narrow  chan []byte
	far     chan flight
	waiting atomic.Int64 // bytes in narrow

	passed, lost, dropped atomic.Int64 // packets; dropped for want of room
}

// A flight is a packet on its way.
type flight struct {
	packet []byte
	due    time.Time
}

func newLink(out *os.File) *link {
	l := &link{out: out, narrow: make(chan []byte, 1<<14), far: make(chan flight, 1<<14)}
	l.state.Store(&condition{})
	return l
}

func (l *link) set(c condition) { l.state.Store(&c) }

// push takes a packet, which it keeps.
func (l *link) push(p []byte) {
	c := l.state.Load()
	if c.loss > 0 && rand.Float64() < c.loss {
		l.lost.Add(1)
		return
	}
	if c.rate > 0 && l.waiting.Load()+int64(len(p)) > int64(float64(c.rate)/8*c.queue.Seconds()) {
		l.dropped.Add(1)
		return
	}
	select {
	case l.narrow <- p:
		l.waiting.Add(int64(len(p)))
	default:
		l.dropped.Add(1)
	}
}

// squeeze lets the packets through as fast as the rate allows.
func (l *link) squeeze(done <-chan struct{}) {
	var free, last time.Time
	for {
		var p []byte
		select {
		case p = <-l.narrow:
		case <-done:
			return
		}
		c, now := l.state.Load(), time.Now()
		if c.rate > 0 {
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(len(p)) * 8 * time.Second / time.Duration(c.rate))
			time.Sleep(time.Until(free))
		}
		l.waiting.Add(-int64(len(p)))
		due := time.Now().Add(c.delay)
		if c.jitter > 0 {
			due = due.Add(rand.N(c.jitter))
		}
		if due.Before(last) {
			due = last
		}
		last = due
		select {
		case l.far <- flight{p, due}:
		case <-done:
			return
		}
	}
}

// deliver hands them over after their delay.
func (l *link) deliver(done <-chan struct{}) {
	for {
		select {
		case f := <-l.far:
			time.Sleep(time.Until(f.due))
			if _, err := l.out.Write(f.packet); err == nil {
				l.passed.Add(1)
			}
		case <-done:
			return
		}
	}
}

// An access is the two links between one client's address and the server, and
// the firewall on them, if any: what it says no to is gone.
type access struct {
	up, down *link
	wall     atomic.Pointer[func(packet []byte, up bool) bool]
}

// both makes the condition that of both directions.
func (a *access) both(c condition) {
	a.up.set(c)
	a.down.set(c)
}

// A cable joins two network namespaces. Each address at its near end has an
// access of its own.
type cable struct {
	near, far *os.File // TUN devices
	ends      map[netip.Addr]*access
}

// run carries packets until the test ends.
func (c *cable) run(t *testing.T) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, a := range c.ends {
		for _, l := range []*link{a.up, a.down} {
			wg.Go(func() { l.squeeze(done) })
			wg.Go(func() { l.deliver(done) })
		}
	}
	wg.Go(func() { c.read(c.near, 12, func(a *access) *link { return a.up }) })
	wg.Go(func() { c.read(c.far, 16, func(a *access) *link { return a.down }) })
	t.Cleanup(func() {
		close(done)
		_ = c.near.Close()
		_ = c.far.Close()
		wg.Wait()
	})
}

// read gives each IPv4 packet to the access of the address at an offset.
func (c *cable) read(from *os.File, offset int, direction func(*access) *link) {
	buf := make([]byte, mtu)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if n < 20 || buf[0]>>4 != 4 {
			continue
		}
		a := c.ends[netip.AddrFrom4([4]byte(buf[offset:]))]
		if a == nil {
			continue
		}
		to, packet := direction(a), append([]byte(nil), buf[:n]...)
		if wall := a.wall.Load(); wall == nil || (*wall)(packet, to == a.up) {
			to.push(packet)
		}
	}
}

// openTUN makes a TUN device in the network namespace of the calling thread.
func openTUN(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	var request [40]byte // struct ifreq
	copy(request[:], name)
	binary.NativeEndian.PutUint16(request[syscall.IFNAMSIZ:], syscall.IFF_TUN|syscall.IFF_NO_PI)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, errno)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// An elsewhere is a thread in a network namespace of its own; nil is here.
type elsewhere chan func()

func newElsewhere(t *testing.T) elsewhere {
	t.Helper()
	e, made := make(elsewhere), make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		made <- err
		for f := range e {
			f()
		}
	}()
	t.Cleanup(func() { close(e) })
	must(t, <-made)
	return e
}

// do runs f there; the processes it starts are there too.
func (e elsewhere) do(f func() error) error {
	if e == nil {
		return f()
	}
	done := make(chan error)
	e <- func() { done <- f() }
	return <-done
}
