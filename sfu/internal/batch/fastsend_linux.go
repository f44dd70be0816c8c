//go:build linux && !portable

package batch

import (
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fastSend is one datagram that is sent at once, in a single system call that
// the scheduler does not hear of: told, it wakes its monitor thread, which costs
// more than the datagram.
type fastSend struct {
	name  unix.RawSockaddrInet6
	size  uint32 // of name
	p     []byte
	call  func(fd uintptr) // s.transmit, made once
	errno syscall.Errno
}

var fastSends = sync.Pool{New: func() any {
	s := &fastSend{}
	s.call = s.transmit
	return s
}}

// send reports whether p has left. If not, the socket has no room or the kernel
// will not have it.
func (f *fastSocket) send(p []byte, to netip.AddrPort) bool {
	if len(p) == 0 {
		return false
	}
	s := fastSends.Get().(*fastSend)
	defer fastSends.Put(s)
	if s.size = setAddress(&s.name, to, f.v6); s.size == 0 {
		return false
	}
	s.p = p
	err := f.raw.Control(s.call)
	s.p = nil
	return err == nil && s.errno == 0
}

func (s *fastSend) transmit(fd uintptr) {
	_, _, s.errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.p[0])), uintptr(len(s.p)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&s.name)), uintptr(s.size))
	runtime.KeepAlive(s)
}
