//go:build unix

package sfu

import (
	"net"
	"syscall"
	"testing"
)

// Clients are asked for segments that fit every path.
func TestTCPSegmentsAreShort(t *testing.T) {
	srv := startServer(t)
	c, err := net.Dial("tcp", srv.tcp.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var size int
	if e := raw.Control(func(fd uintptr) { size, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if size > segmentMax || size < segmentMax-40 {
		t.Errorf("segments of %d bytes, want %d less the options", size, segmentMax)
	}
}
