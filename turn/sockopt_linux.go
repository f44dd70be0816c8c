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
	// notSent is how much the kernel keeps that it has not sent yet, in bytes:
	// what waits longer waits with us, where it can be dropped.
	notSent = 8 << 10

	// vanished is after how long without acknowledgement a connection with
	// data on the way ends. Its allocation goes with it.
	vanished = 20 * time.Second
)

// tune sets the options that relayed media wants on the TCP connection beneath
// conn, if there is one. They fail on closed connections only, as the first
// read will find out.
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
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, notSent)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(vanished/time.Millisecond))
	})
}
