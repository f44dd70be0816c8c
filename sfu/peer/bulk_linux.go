package peer

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	bulkTick    = 2 * time.Millisecond // between two looks at all sockets
	bulkBatch   = 64                   // datagrams of one system call
	bulkBuffer  = 4 << 20              // bytes of a socket; the kernel may give less
	maxDatagram = 1500
	pollEvents  = 256 // sockets of one system call
)

// A poller knows which sockets have something to read.
type poller struct {
	epoll int

	mu      sync.Mutex // guards the following
	sockets map[int32]*bulkConn
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &poller{epoll: fd, sockets: map[int32]*bulkConn{}}, nil
}

func (p *poller) close() error { return syscall.Close(p.epoll) }

func (p *poller) add(c *bulkConn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)}
	if err := syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	p.sockets[int32(c.fd)] = c
	return nil
}

// remove forgets a socket and closes it, so that its number cannot be another's
// while run still reads it.
func (p *poller) remove(c *bulkConn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, int32(c.fd))
	return syscall.Close(c.fd) // which ends watching it, too
}

// Sockets returns how many sockets the Bulk has open.
func (b *Bulk) Sockets() int {
	b.poll.mu.Lock()
	defer b.poll.mu.Unlock()
	return len(b.poll.sockets)
}

// Run serves the sockets until ctx ends. The peers of the Bulk hear nothing
// before and after; they are to be closed first.
func (b *Bulk) Run(ctx context.Context) error {
	tick := time.NewTicker(bulkTick)
	defer tick.Stop()
	batch := newBatch()
	events := make([]syscall.EpollEvent, pollEvents)
	for {
		select {
		case <-ctx.Done():
			return b.poll.close()
		case <-tick.C:
		}
		for n := len(events); n == len(events); {
			var err error
			n, err = syscall.EpollWait(b.poll.epoll, events, 0)
			if err == syscall.EINTR {
				n = 0
			} else if err != nil {
				return fmt.Errorf("wait for packets: %w", err)
			}
			b.poll.mu.Lock()
			for _, e := range events[:n] {
				if c := b.poll.sockets[e.Fd]; c != nil {
					batch.drain(c)
				}
			}
			b.poll.mu.Unlock()
		}
	}
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header syscall.Msghdr
	length uint32
}

// A batch is the buffers of one recvmmsg.
type batch struct {
	headers [bulkBatch]mmsghdr
	vectors [bulkBatch]syscall.Iovec
	names   [bulkBatch]syscall.RawSockaddrInet4
	buffers [bulkBatch][maxDatagram]byte
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.headers {
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(maxDatagram)
		b.headers[i].header.Iov = &b.vectors[i]
		b.headers[i].header.Iovlen = 1
		b.headers[i].header.Name = (*byte)(unsafe.Pointer(&b.names[i]))
	}
	return b
}

// drain takes everything that waits in a socket.
func (b *batch) drain(c *bulkConn) {
	for n := bulkBatch; n == bulkBatch; {
		for i := range b.headers {
			b.headers[i].header.Namelen = syscall.SizeofSockaddrInet4
		}
		r, _, errno := syscall.RawSyscall6(syscall.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&b.headers[0])),
			bulkBatch, syscall.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			return // nothing there, or an ICMP error that concerns one datagram
		}
		n = int(r)
		for i := range n {
			datagram := b.buffers[i][:b.headers[i].length]
			if !c.tally.count(datagram) {
				c.pass(datagram, &b.names[i])
			}
		}
	}
}
