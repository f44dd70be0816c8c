package turn

import (
	"crypto/tls"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"unsafe"
)

// siocOutQNSD asks for the bytes that TCP has not sent yet, see tcp(7).
const siocOutQNSD = 0x894B

// Of what is written to a client that does not keep up the kernel takes what it can
// send, and hardly more: voice overtakes the rest.
func TestKernelKeepsLittle(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s, far := wiredStream(t, secure)
		narrow(t, far)
		tune(s.conn)
		frame := channelFrame(0x4000, rtp(1, 0, 1000)[channelHeader:])
		for range 20 << 20 / len(frame) { // more than any buffer of the kernel's
			s.send(frame, netip.AddrPort{})
		}
		var unsent int32
		if s.wire.raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, siocOutQNSD, uintptr(unsafe.Pointer(&unsent)))
		}) != nil {
			t.Fatal("the connection is closed")
		}
		if unsent > 2*kernelShare+writeChunk {
			t.Errorf("TLS=%v: %d bytes are in the kernel and not sent", secure, unsent)
		}
	}
}

// narrow makes a client take little before it reads.
func narrow(t *testing.T, far net.Conn) {
	t.Helper()
	if c, ok := far.(*tls.Conn); ok {
		far = c.NetConn()
	}
	if err := far.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
}
