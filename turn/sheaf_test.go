package turn

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// collectingConn is a packet connection that can send several packets at once.
type collectingConn struct {
	givingConn
	waits, sent [][]byte
}

func (c *collectingConn) Collect() (func([]byte, netip.AddrPort), func()) {
	return func(b []byte, _ netip.AddrPort) { c.waits = append(c.waits, bytes.Clone(b)) },
		func() { c.sent, c.waits = append(c.sent, c.waits...), nil }
}

// What the SFU collects leaves at flush: over UDP if the socket can, over TCP, and
// by pion at once.
func TestSheaf(t *testing.T) {
	udp := &collectingConn{}
	s, far := wiredStream(t, false)
	overTCP, overUDP, byPion := newBench(t, 0), newBench(t, 0), newBench(t, 0)
	overTCP.client.stream, overTCP.client.source.via = s, s
	overUDP.client.source.via = newSocket(udp)
	overTCP.binds(one)
	overUDP.binds(one)
	frame := channelFrame(0x4000, []byte("data"))
	for _, b := range []*bench{overTCP, overUDP, byPion} {
		send, flush := b.conn.Collect()
		for range 2 {
			if err := send([]byte("data"), b.relay.at); err != nil {
				t.Fatal(err)
			}
		}
		if len(udp.sent) > 0 && b == overUDP || b == overTCP && s.out.waiting() != 2*len(frame) || b == byPion && b.relay.in.len() != 2 {
			t.Error("sent before flush, or not there")
		}
		flush()
		_ = b.relay.Close()
		if send([]byte("data"), b.relay.at) == nil {
			t.Error("sent to a relay that is closed")
		}
	}
	if diff := cmp.Diff([][]byte{frame, frame}, udp.sent); diff != "" {
		t.Errorf("over UDP (-want +got):\n%s", diff)
	}
	buf := make([]byte, 100)
	_ = far.SetReadDeadline(time.Now().Add(testWait))
	if n, err := far.Read(buf); err != nil || !bytes.Equal(buf[:n], append(frame, frame...)) {
		t.Errorf("over TCP: %q, %v", buf[:n], err)
	}
}
