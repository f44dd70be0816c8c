//go:build !linux

package turn

import "net"

// tune sets the options that relayed media wants; Linux has them.
func tune(net.Conn) {}
