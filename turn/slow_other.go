//go:build !linux

package turn

import "net"

// keepShort does nothing where the kernel has no such option.
func keepShort(net.Conn) {}
