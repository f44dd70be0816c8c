package turn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/iotest"
	"time"
)

// tcpPair returns the inlet of a connection and its other end.
func tcpPair(t *testing.T) (*inlet, *net.TCPConn, net.Conn) {
	t.Helper()
	if !canTry {
		t.Skip("SKIPPED, NOT TESTED: this system has no inlets")
	}
	ln := listen(t)
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = far.Close()
		_ = near.Close()
	})
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return newInlet(raw), near.(*net.TCPConn), far
}

// Nothing is lost or read twice, in whatever pieces one reads, up to the end.
func TestInletReadsAll(t *testing.T) {
	sent := bytes.Repeat([]byte("every byte comes once, in order. "), 5000)
	for name, piece := range map[string]func(io.Reader) io.Reader{
		"large": func(r io.Reader) io.Reader { return r },
		"half":  iotest.HalfReader,
		"bytes": iotest.OneByteReader,
	} {
		in, _, far := tcpPair(t)
		go func() {
			_, _ = far.Write(sent)
			_ = far.Close()
		}()
		got, err := io.ReadAll(piece(in))
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(sent), err)
		}
		if in.buf != nil {
			t.Errorf("%s: a buffer is held for nothing", name)
		}
	}
}

func TestInletEnds(t *testing.T) {
	in, near, far := tcpPair(t)
	_ = near.SetReadDeadline(time.Now())
	if _, err := in.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = near.SetReadDeadline(time.Time{})
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close() // a reset
	if n, err := in.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
	_ = near.Close()
	if _, err := in.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What is read and what waits needs no new memory, however much it is at once.
func TestStreamsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled buffers")
	}
	in, _, far := tcpPair(t)
	small := make([]byte, 500)
	if n := testing.AllocsPerRun(200, func() {
		_, _ = far.Write(small)
		for got := 0; got < len(small); {
			n, err := in.Read(small[:100])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}); n != 0 {
		t.Errorf("reading: %v allocations", n)
	}
	out, frame, room := testOutbox(t), channelFrame(0x4000, rtp(1, 0, 1000)[channelHeader:]), make([]byte, 0, outboxSize)
	if n := testing.AllocsPerRun(200, func() {
		for range 100 {
			out.put(frame)
		}
		out.take(room, outboxSize, 100)
	}); n >= 1 { // the collector may empty the pool meanwhile
		t.Errorf("a queue of 100 KiB: %v allocations", n)
	}
}

// A client's media goes on when it comes in many records at once.
func TestManyRecordsAtOnce(t *testing.T) {
	s, far := wiredStream(t, true)
	go s.send(channelFrame(0x4001, []byte("down")), netip.AddrPort{})
	const frames = 300
	go func() {
		for i := range frames {
			_, _ = far.Write(channelFrame(0x4000+uint16(i%4), make([]byte, 160)))
		}
	}()
	f := newFramer(s.conn)
	for i := range frames {
		if b, err := f.next(maxFrame); err != nil || len(b) != channelHeader+160 || int(b[1]) != i%4 {
			t.Fatalf("frame %d: %d bytes, %v", i, len(b), err)
		}
	}
}
