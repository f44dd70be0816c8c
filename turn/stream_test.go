package turn

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
)

func TestStreamOutbox(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer far.Close()
	s := &stream{conn: near, drops: &m.drops, wake: make(chan struct{}, 1), done: make(chan struct{})}
	frame := make([]byte, 1000)
	for range 2 * outboxSize / len(frame) { // nobody reads, nobody writes yet
		s.send(frame, netip.AddrPort{})
	}
	if len(s.pending) > outboxSize || len(s.pending)%len(frame) != 0 {
		t.Errorf("%d bytes wait", len(s.pending))
	}
	want := len(s.pending)
	var writer sync.WaitGroup
	writer.Go(s.write)
	buf := make([]byte, 64<<10)
	_ = far.SetReadDeadline(time.Now().Add(testWait))
	for got := 0; got < want; {
		n, err := far.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > writeChunk {
			t.Fatalf("one write of %d bytes", n)
		}
		got += n
	}
	_ = near.Close()
	close(s.done)
	writer.Wait()
}

// Clients that take a TLS record for a message must find one in it.
func TestOneFramePerTLSRecord(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe() // a Read never returns more than one Write
	s := &stream{conn: near, drops: &m.drops, single: true, wake: make(chan struct{}, 1), done: make(chan struct{})}
	want := [][]byte{
		stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw, channelFrame(0x4000, nil), channelFrame(0x4000, []byte{1}),
		channelFrame(0x4000, make([]byte, 1200)), stun.MustBuild(stun.TransactionID, stun.BindingSuccess, stun.Fingerprint).Raw,
	}
	for _, frame := range want {
		s.send(frame, netip.AddrPort{})
	}
	var writer sync.WaitGroup
	writer.Go(s.write)
	var got [][]byte
	buf := make([]byte, 4096)
	for range want {
		_ = far.SetReadDeadline(time.Now().Add(testWait))
		n, err := far.Read(buf)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		got = append(got, bytes.Clone(buf[:n]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	_ = near.Close()
	_ = far.Close()
	close(s.done)
	writer.Wait()
}
