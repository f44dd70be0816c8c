package gateway

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endUnacknowledged has the kernel end the connection of raw when what was sent
// stays without acknowledgement for that long: by itself it tries for a quarter of
// an hour. It fails on Unix sockets, which need none of it.
func endUnacknowledged(raw syscall.RawConn, after time.Duration) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}
