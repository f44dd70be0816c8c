package turn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// wiredStream returns a stream over a socket, as the product's port hands out,
// and the client's end.
func wiredStream(t *testing.T, secure bool) (*stream, net.Conn) {
	t.Helper()
	if !canTry {
		t.Skip("SKIPPED, NOT TESTED: this system has no wires")
	}
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{conn: &divertible{Conn: accepted}, drops: &m.drops, out: newOutbox(&m.drops), records: secure}
	if secure {
		server, client := tls.Server(s.conn, testCertificate(t)), tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		shaken := make(chan error, 1)
		go func() { shaken <- server.Handshake() }()
		if err := errors.Join(client.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		s.conn, far = server, client
	}
	if s.wire = newWire(s.conn); s.wire == nil {
		t.Fatal("no wire")
	}
	t.Cleanup(func() {
		_ = far.Close()
		_ = s.conn.Close()
		s.later.Wait()
	})
	return s, far
}

// Whoever sends never waits; what a slow client reads later is whole and in order.
func TestWireToASlowClient(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s, far := wiredStream(t, secure)
		_ = s.wire.tcp.SetWriteBuffer(4 << 10)
		const frames, size = 200, 1000 // more than the kernel takes, and less than the outbox does
		for i := range frames {
			s.send(channelFrame(0x4000+uint16(i), make([]byte, size)), netip.AddrPort{})
		}
		f := newFramer(far)
		_ = far.SetReadDeadline(time.Now().Add(testWait))
		for i := range frames {
			b, err := f.next(maxFrame)
			if err != nil || len(b) != channelHeader+size || b[0] != 0x40 || int(b[1]) != i {
				t.Fatalf("frame %d of TLS=%v: %d bytes, %v", i, secure, len(b), err)
			}
		}
		eventually(t, testWait, "the wire is free again", func() bool {
			s.wire.mu.Lock()
			defer s.wire.mu.Unlock()
			return !s.wire.held && s.wire.buf == nil
		})
	}
}

// A client that does not read costs what may wait for it, and its end is ours.
func TestWireToADeafClient(t *testing.T) {
	s, far := wiredStream(t, true)
	frame := channelFrame(0x4000, rtp(1, 0, 1000)[channelHeader:])
	for range 20 << 20 / len(frame) { // more than any buffer of the kernel's
		s.send(frame, netip.AddrPort{})
	}
	if got := s.out.waiting(); got > outboxSize {
		t.Errorf("%d bytes wait", got)
	}
	if testCounter(t, s.drops.stream) == 0 {
		t.Error("nothing was dropped")
	}
	if got := s.wire.waiting(); got > 2*writeChunk {
		t.Errorf("%d bytes are sealed and wait", got)
	}
	_ = far.Close()
	_ = s.conn.Close()
	s.later.Wait()
	if !s.out.put(frame) {
		return
	}
	t.Error("the stream goes on without its connection")
}

// What TLS says by itself leaves at once, and it cannot be made to say without end.
func TestWireOfTLSItself(t *testing.T) {
	s, far := wiredStream(t, false)
	if _, err := s.wire.Write([]byte("alert")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	_ = far.SetReadDeadline(time.Now().Add(testWait))
	if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "alert" {
		t.Errorf("%q, %v", buf, err)
	}
	var err error
	for range 20 << 20 / writeChunk {
		if _, err = s.wire.Write(make([]byte, writeChunk)); err != nil {
			break
		}
	}
	if !errors.Is(err, errDeaf) || s.wire.waiting() > wireLimit+writeChunk {
		t.Errorf("%d bytes wait, %v", s.wire.waiting(), err)
	}
}

// recordOverhead is by how much a record of TLS 1.3 is longer than what is in it.
const recordOverhead = 5 + 1 + 16

// Media of a channel costs no allocation, up and down, from TLS up and down to it.
func TestChannelsDoNotAllocate(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s, far := wiredStream(t, secure)
		b := newBench(t, 1<<40)
		b.client.source.via = s
		b.conn.take = func([][]byte, netip.AddrPort) {}
		b.binds(one)
		data, frame := rtp(1, 0, 160), channelFrame(0x4000, make([]byte, 160))
		read, size := make([]byte, 4096), channelHeader+len(data)
		if secure { // reading TLS allocates
			far, size = far.(*tls.Conn).NetConn(), size+recordOverhead
		}
		warm := func() {
			for range 8 {
				h := newHaul()
				for range 2 {
					if !h.add(b.client, frame) {
						t.Fatal("up: not taken")
					}
				}
				h.release()
				_, _ = b.conn.WriteToUDPAddrPort(data, b.relay.at)
			}
			for got := 0; got < 8*size; {
				n, err := far.Read(read)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}
		if n := testing.AllocsPerRun(200, warm); n != 0 && !raceEnabled {
			t.Errorf("TLS %v: %v allocations for 16 packets up and 8 down", secure, n)
		}
	}
}
