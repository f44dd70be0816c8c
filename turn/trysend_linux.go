package turn

import (
	"syscall"
	"unsafe"
)

// canTry tells whether trySend works here.
const canTry = true

// trySend writes to a socket what there is room for, perhaps nothing. What follows
// the end of b is not joined to it, if last. It does not wait, so the scheduler
// need not hear of it: told, it takes the processor away from whoever writes much,
// and gives it back with two wake-ups.
func trySend(fd uintptr, b []byte, last bool) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	flags := uintptr(syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL)
	if last {
		flags |= syscall.MSG_EOR
	}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// tryReceive reads from a socket what is there. some is false if nothing is yet; no
// bytes and no error are the end. It does not wait either.
func tryReceive(fd uintptr, b []byte) (n int, some bool, err error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), true, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, false, nil
		default:
			return 0, true, errno
		}
	}
}
