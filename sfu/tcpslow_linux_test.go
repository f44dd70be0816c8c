package sfu

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// siocOutQNSD asks for the bytes that TCP has not sent yet, see tcp(7).
const siocOutQNSD = 0x894B

// A client that does not keep up costs voice no more than little: of what is written
// the kernel takes what it can send, and hardly more.
func TestKernelKeepsLittle(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_ = far.(*net.TCPConn).SetReadBuffer(4 << 10)
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	w := keepShort(near)
	_ = near.SetWriteDeadline(time.Now().Add(time.Second)) // nobody reads
	wrote := 0
	for err == nil {
		var n int
		n, err = w.Write(make([]byte, 1000))
		wrote += n
	}
	var unsent int32
	raw, _ := near.(*net.TCPConn).SyscallConn()
	if raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, siocOutQNSD, uintptr(unsafe.Pointer(&unsent)))
	}) != nil {
		t.Fatal("the connection is closed")
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || unsent > 2*tcpShort+1000 {
		t.Errorf("of %d bytes %d are not sent, %v", wrote, unsent, err)
	}
	if w.most() != tcpShort {
		t.Error("the next write is a long one")
	}
}
