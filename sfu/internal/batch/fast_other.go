//go:build !linux || portable

package batch

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// What the portable way needs of the types of the fast one.
type (
	fastSocket struct{ segments atomic.Bool }
	fastBatch  struct{}
	fastOut    struct{}
)

func newFast(*net.UDPConn, Options) (*fastSocket, error) { return nil, nil }
func (*fastSocket) read(*Batch) (int, error)             { return 0, net.ErrClosed }
func (*fastSocket) send([]byte, netip.AddrPort) bool     { return false }
func (*fastBatch) init(*Batch)                           {}
func (*fastOut) init()                                   {}
func (*fastOut) flush(*Out)                              {}
