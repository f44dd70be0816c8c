//go:build linux && !portable

package batch

import (
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fastSocket is a Socket that knows recvmmsg and sendmmsg.
type fastSocket struct {
	raw      syscall.RawConn
	v6       bool        // addresses are passed as IPv6, IPv4 in disguise
	segments atomic.Bool // the kernel cuts messages: it says so, and has not refused yet
}

func newFast(conn *net.UDPConn, o Options) (*fastSocket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	f := &fastSocket{raw: raw}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var domain int
		domain, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		f.v6 = domain == unix.AF_INET6
		_, unknown := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT) // since Linux 4.18
		f.segments.Store(unknown == nil && !o.NoSegments)
	})
	if err == nil {
		err = failed
	}
	return f, err
}

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// A fastBatch is what recvmmsg fills in, beside the buffers.
type fastBatch struct {
	hdrs  [Size]mmsghdr
	iovs  [Size]unix.Iovec
	names [Size]unix.RawSockaddrInet6 // room for IPv4 too

	call  func(fd uintptr) bool // b.receive, made once
	count int
	errno syscall.Errno
}

func (f *fastBatch) init(b *Batch) {
	for i := range f.hdrs {
		buf := b.buffer(i)
		f.iovs[i].Base = &buf[0]
		f.iovs[i].SetLen(len(buf))
		f.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&f.names[i]))
		f.hdrs[i].hdr.Iov = &f.iovs[i]
		f.hdrs[i].hdr.SetIovlen(1)
	}
	f.call = f.receive
}

// receive calls recvmmsg. false means that there is nothing yet.
func (f *fastBatch) receive(fd uintptr) bool {
	for i := range f.hdrs {
		f.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&f.hdrs[0])), Size, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			f.count, f.errno = int(n), 0
		default:
			f.count, f.errno = 0, errno
		}
		return true
	}
}

func (s *fastSocket) read(b *Batch) (int, error) {
	f := &b.fast
	if err := s.raw.Read(f.call); err != nil {
		return 0, err
	}
	runtime.KeepAlive(b)
	if f.errno != 0 {
		return 0, f.errno
	}
	for i := range f.count {
		b.sizes[i] = int(f.hdrs[i].len)
		b.from[i] = addressOf(&f.names[i])
	}
	return f.count, nil
}

// addressOf reads a socket address of either family. Only that of a link-local
// IPv6 address, which needs a zone, allocates.
func addressOf(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := uint16(name.Port)>>8 | uint16(name.Port)<<8
	if bigEndian() {
		port = name.Port
	}
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	ip := netip.AddrFrom16(name.Addr).Unmap()
	if name.Scope_id != 0 && ip.IsLinkLocalUnicast() {
		ip = ip.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(ip, port)
}

// setAddress writes a as a socket address of the family of the socket and
// returns its length, 0 if that cannot be.
func setAddress(name *unix.RawSockaddrInet6, a netip.AddrPort, v6 bool) uint32 {
	port := a.Port()>>8 | a.Port()<<8
	if bigEndian() {
		port = a.Port()
	}
	ip := a.Addr()
	if v6 {
		name.Family, name.Port, name.Flowinfo, name.Scope_id = unix.AF_INET6, port, 0, scope(ip)
		name.Addr = ip.As16()
		return unix.SizeofSockaddrInet6
	}
	if ip = ip.Unmap(); !ip.Is4() {
		return 0
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	v4.Family, v4.Port, v4.Addr = unix.AF_INET, port, ip.As4()
	return unix.SizeofSockaddrInet4
}

// scope is the number of an address's zone, which addressOf writes as a number
// and others as the name of an interface.
func scope(ip netip.Addr) uint32 {
	zone := ip.Zone()
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// bigEndian reports whether this machine's numbers are those of the network.
func bigEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}
