//go:build !linux

package batch

import (
	"errors"
	"net"
	"net/netip"
)

// CanShare tells whether ListenBeside works on this system.
const CanShare = false

// ListenFirst opens a UDP socket on addr, which nobody else may have.
func ListenFirst(addr netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
}

// ListenBeside fails: see CanShare.
func ListenBeside(netip.AddrPort) (*net.UDPConn, error) { return nil, errors.ErrUnsupported }
