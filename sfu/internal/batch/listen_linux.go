package batch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanShare tells whether ListenBeside works on this system.
const CanShare = true

// ListenFirst opens a UDP socket on addr, which nobody else may have, and then
// lets ListenBeside open further ones of this process beside it. Without that
// order a second process of the same user would take half of the datagrams
// unnoticed (SO_REUSEPORT, socket(7)).
func ListenFirst(addr netip.AddrPort) (*net.UDPConn, error) {
	c, err := listen(addr, nil)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = reusePort("", "", raw)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("share UDP port %s: %w", addr, err)
	}
	return c, nil
}

// ListenBeside opens a UDP socket on the address of one that ListenFirst has
// opened, or on a single address of that one's if it is open on all. Of several
// sockets on equal addresses the kernel chooses one for each remote address; a
// socket on the very address of a datagram precedes one that is open on all.
func ListenBeside(addr netip.AddrPort) (*net.UDPConn, error) { return listen(addr, reusePort) }

func listen(addr netip.AddrPort, control func(string, string, syscall.RawConn) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: control}
	text := addr.String()
	if addr.Addr() == netip.IPv6Unspecified() { // both families, or IPv4 alone where there is no IPv6
		text = fmt.Sprintf(":%d", addr.Port())
	}
	c, err := lc.ListenPacket(context.Background(), "udp", text)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func reusePort(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); e != nil {
		return e
	}
	return err
}
