package turn

import (
	"net"
	"syscall"
	"time"
)

// Options of tcp(7) that package syscall does not name.
const (
	tcpUserTimeout  = 18
	tcpNotSentLowat = 25
)

const (
	// vanished is after how long without acknowledgement a connection with
	// data on the way ends. Its allocation goes with it.
	vanished = 20 * time.Second
)

// tune sets the options that relayed media wants on the TCP connection beneath
// conn, if there is one. What the kernel has taken, voice cannot overtake: it takes
// no more than it can send soon. And CUBIC gives way when a link gets narrow, where
// BBR, which is the default on some machines, believes for ten round trips in what
// the link once carried, and loses everything it sends meanwhile. Best effort: what
// fails makes voice later on a slow way, and on closed connections all fails.
func tune(conn net.Conn) {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, kernelShare)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(vanished/time.Millisecond))
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CONGESTION, "cubic")
	})
}
