package turn

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
)

// testStream returns a stream that writes from when the returned function is
// called, and the other end of its connection.
func testStream(t *testing.T) (s *stream, far net.Conn, write func()) {
	t.Helper()
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe() // a Read never returns more than one Write
	s = &stream{conn: near, drops: &m.drops, out: newOutbox(&m.drops)}
	s.writing.Lock()
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
		s.later.Wait()
	})
	return s, far, func() {
		s.writing.Unlock()
		s.flush()
	}
}

// writes returns what n writes brought.
func writes(t *testing.T, far net.Conn, n int) (all [][]byte) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for range n {
		_ = far.SetReadDeadline(time.Now().Add(testWait))
		n, err := far.Read(buf)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		all = append(all, bytes.Clone(buf[:n]))
	}
	return all
}

// Clients that take a TLS record for a message must find one in it, as long as
// they keep up.
func TestOneFramePerTLSRecord(t *testing.T) {
	s, far, write := testStream(t)
	s.records = true
	want := [][]byte{
		stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw, channelFrame(0x4000, nil), channelFrame(0x4000, []byte{1}),
		channelFrame(0x4000, make([]byte, 1200)), stun.MustBuild(stun.TransactionID, stun.BindingSuccess, stun.Fingerprint).Raw,
	}
	for _, frame := range want {
		s.send(frame, netip.AddrPort{})
	}
	write()
	if diff := cmp.Diff(want, writes(t, far, len(want))); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

// What has backed up shares records, and on TCP always shares writes.
func TestFramesAreCoalesced(t *testing.T) {
	for _, records := range []bool{false, true} {
		s, far, write := testStream(t)
		s.records = records
		frame := channelFrame(0x4000, make([]byte, 1000))
		frames := 5 * writeChunk / len(frame)
		for range frames {
			s.send(frame, netip.AddrPort{})
		}
		write()
		sizes := make(map[int]int) // how many writes of so many bytes
		for got := 0; got < frames*len(frame); {
			b := writes(t, far, 1)[0]
			if len(b) > writeChunk || len(b)%len(frame) != 0 {
				t.Fatalf("a write of %d bytes", len(b))
			}
			got += len(b)
			sizes[len(b)]++
		}
		if sizes[writeChunk/len(frame)*len(frame)] < 2 {
			t.Errorf("records %v: writes by size: %v", records, sizes)
		}
		if single := sizes[len(frame)]; records && single*len(frame) >= coalesceFrom+len(frame) || !records && single > 1 {
			t.Errorf("records %v: %d frames written alone", records, single)
		}
	}
}

// The connection beneath whatever the port hands over gets the options.
func TestSocketOptions(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tune(tlsConn{tls.Client(conn, &tls.Config{InsecureSkipVerify: true})})
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{tcpNotSentLowat: kernelShare, tcpUserTimeout: int(vanished.Milliseconds())} {
			if got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, %v; want %d", option, got, err, want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
