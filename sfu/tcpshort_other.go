//go:build !unix

package sfu

import (
	"net"
	"net/netip"
)

// listenTCP opens an ICE-TCP listener.
func listenTCP(a netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
}
