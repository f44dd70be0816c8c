//go:build !linux

package sfu

import "net"

// A shortWriter is a connection as it is where the kernel has no options for it.
type shortWriter struct{ net.Conn }

func keepShort(c net.Conn) shortWriter { return shortWriter{c} }

func (shortWriter) most() int { return tcpBatch }
