package turn

import (
	"net"
	"syscall"
)

const (
	notSentLowat = 25      // TCP_NOTSENT_LOWAT of tcp(7), which package syscall lacks
	kernelShare  = 4 << 10 // bytes that the kernel may keep unsent
)

// keepShort makes the kernel take no more than it can send soon: what it has
// taken, voice cannot overtake. And CUBIC gives way when a link gets narrow, where
// BBR, which is the default on some machines, believes for ten round trips in what
// the link once carried, and loses everything it sends meanwhile. Best effort:
// without it voice is later on a slow way.
func keepShort(c net.Conn) {
	for {
		under, ok := c.(interface{ NetConn() net.Conn }) // TLS, and what tls.Port hands out
		if !ok {
			break
		}
		c = under.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowat, kernelShare)
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, "cubic")
	})
}
