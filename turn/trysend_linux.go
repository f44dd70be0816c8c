package turn

import (
	"syscall"
	"unsafe"
)

// canTry tells whether trySend works here.
const canTry = true

// trySend writes to a socket what there is room for, perhaps nothing. It does not
// wait, so the scheduler need not hear of it: told, it takes the processor away
// from whoever writes much, and gives it back with two wake-ups.
func trySend(fd uintptr, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
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
