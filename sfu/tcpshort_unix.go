//go:build unix

package sfu

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// segmentMax is the longest TCP segment that we send to clients and ask them for,
// in bytes: what fits the least MTU of IPv6. Longer packets get lost without a
// word on the way through many a VPN.
const segmentMax = 1280 - 40 - 20

// listenTCP opens an ICE-TCP listener.
func listenTCP(a netip.AddrPort) (*net.TCPListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, segmentMax)
		})
		return errors.Join(err, failed)
	}}
	l, err := c.Listen(context.Background(), "tcp", a.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
