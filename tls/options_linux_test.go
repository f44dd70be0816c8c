package tls

import (
	"net"
	"syscall"
	"testing"
)

// Whatever a connection turns out to be, small packets are not held back on it,
// and a client that vanished is noticed.
func TestConnectionsAreTuned(t *testing.T) {
	r := newRig(t, PortOptions{})
	if _, err := r.dial().Write(stun); err != nil {
		t.Fatal(err)
	}
	c, err := r.port.TURN().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	type option struct{ level, name, want int }
	if err := raw.Control(func(fd uintptr) {
		for name, o := range map[string]option{
			"TCP_NODELAY":   {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			"SO_KEEPALIVE":  {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			"TCP_KEEPIDLE":  {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
			"TCP_KEEPINTVL": {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
			"TCP_KEEPCNT":   {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 4},
		} {
			if got, err := syscall.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("%s is %d, %v; want %d", name, got, err, o.want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
