package sfu

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/srtp"
)

// screen makes a video stream on a leg and its down.
func (l *leg) screen(ssrc uint32) (*down, *outgoing) {
	l.t.Helper()
	o := l.stream(&outgoing{ssrc: ssrc, kind: 96, number: 5, nack: true})
	d := &down{up: &up{cache: packetcache.New(cacheBytes, packetcache.Memory)}, session: l.media.session}
	d.bound.Store(o)
	d.lost = l.srv.metrics.errors.WithLabelValues("g", "rtp")
	return d, o
}

// forwards sends packets of a track to the downs, as they come.
func (l *leg) forwards(d *down, seqs ...uint16) {
	for _, seq := range seqs {
		run := []received{{Packet: rtpheader.Packet{Type: 96, Seq: seq, Time: 3000 * uint32(seq), Payload: bytes.Repeat([]byte{byte(seq)}, 1000)}, at: time.Now()}}
		d.up.keep(run)
		d.forward(l.out, run)
	}
	l.out.flush()
}

func nackOf(seqs ...uint16) *rtcp.TransportLayerNack {
	return &rtcp.TransportLayerNack{Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)}
}

// TestARetransmissionIsTheSamePacket: bit by bit, with the transport-wide number of
// the first time, or the same nonce would encrypt two packets.
func TestARetransmissionIsTheSamePacket(t *testing.T) {
	for _, profile := range []srtp.Profile{srtp.AEADAES128GCM, srtp.AES128CMSHA1x80} {
		t.Run(fmt.Sprint(profile), func(t *testing.T) {
			l := newLeg(t, profile)
			l.media.path.begin()
			defer l.media.path.close()
			d, _ := l.screen(7)
			raw := map[uint16][]byte{}
			order := []uint16{65533, 65534, 0, 1, 2, 65535, 3} // one comes late
			l.forwards(d, order...)
			for i := range order {
				p, ok := l.next()
				if !ok || p.Seq != order[i] || int(p.Extension(5)[1]) != i {
					t.Fatalf("packet %d: %v, number %d %x", i, ok, p.Seq, p.Extension(5))
				}
				raw[p.Seq] = bytes.Clone(l.raw)
			}
			asked := []uint16{65532, 65533, 65534, 65535, 0, 1, 2, 3, 4} // and two that never were
			if n := d.answer(nackOf(asked...)); n != 0 {
				t.Errorf("%d refused", n)
			}
			var again []uint16
			buf := make([]byte, maxDatagram)
			for range order {
				_ = l.conn.SetReadDeadline(time.Now().Add(patience))
				n, err := l.conn.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				p, _ := rtpheader.Parse(buf[:n])
				if !bytes.Equal(raw[p.Seq], buf[:n]) {
					t.Errorf("packet %d is sent again as another", p.Seq)
				}
				again = append(again, p.Seq)
			}
			slices.Sort(again)
			slices.Sort(order)
			if !slices.Equal(again, order) {
				t.Errorf("sent again: %d, want %d", again, order)
			}
			d.answer(nackOf(asked...)) // at once: the first answer is still under way
			if got := l.all(); len(got) != 0 {
				t.Errorf("%d packets are sent a third time at once", len(got))
			}
		})
	}
}

// A packet that differs from what was sent must not go out: here because somebody
// changed what is remembered of it.
func TestAChangedRetransmissionIsNotSent(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	d, o := l.screen(7)
	l.forwards(d, 1, 2, 3)
	l.all()
	s, ok := o.log.Find(2)
	if !ok {
		t.Fatal("packet 2 is not remembered")
	}
	s.Number, s.Numbered = 99, true // as if it had a new transport-wide number
	o.log.Add(s)
	d.answer(nackOf(1, 2, 3))
	clear(l.opens) // or 1 and 3 would be replays
	first, _ := l.next()
	second, _ := l.next()
	if _, third := l.next(); first.Seq != 1 || second.Seq != 3 || third {
		t.Errorf("sent again: %d, %d, and more: %v", first.Seq, second.Seq, third)
	}
}

// A blockedConn is a hairpin that takes nothing until it is released.
type blockedConn struct {
	net.PacketConn
	entered, release chan struct{}
}

// WriteTo implements net.PacketConn.
func (c *blockedConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.entered <- struct{}{}
	<-c.release
	return len(p), nil
}

// TestARetransmissionHoldsUpNobody: not even while it is in the system call.
func TestARetransmissionHoldsUpNobody(t *testing.T) {
	slow := newLeg(t, srtp.AEADAES128GCM)
	quick := addLeg(t, slow.srv, srtp.AEADAES128GCM, "quick")
	ds, _ := slow.screen(7)
	dq, _ := quick.screen(8)
	slow.forwards(ds, 1)
	quick.forwards(dq, 1)
	quick.all()
	conn := &blockedConn{entered: make(chan struct{}), release: make(chan struct{})}
	slow.media.way.Load().socket.Store(&muxSocket{hairpin: conn})
	answered := make(chan struct{}, 2)
	answer := func(d *down) {
		d.answer(nackOf(1))
		answered <- struct{}{}
	}
	go answer(ds)
	<-conn.entered
	go answer(dq)
	select {
	case <-answered:
	case <-time.After(patience):
		t.Error("a retransmission waits for that of another participant")
	}
	close(conn.release)
	<-answered
}

func TestRetransmissionsAreBounded(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	d, o := l.screen(7)
	ask := func(seqs ...uint16) (sent, refused int) {
		t.Helper()
		before := o.packets
		refused = d.answer(nackOf(seqs...))
		return int(o.packets - before), refused
	}
	var all []uint16
	for seq := range uint16(100) {
		l.forwards(d, seq)
		all = append(all, seq)
	}
	sent, refused := ask(all...)
	if sent < 20 || sent > 40 || refused != 100-sent { // a fifth, and what there was to begin with
		t.Errorf("%d of 100 are sent again, %d refused", sent, refused)
	}
	for seq := range uint16(100) {
		l.forwards(d, 100+seq)
	}
	o.repair.flush()
	if sent, _ := ask(199); sent != 0 {
		t.Error("what was given up is sent again")
	}
	for seq := range uint16(50) {
		l.forwards(d, 200+seq)
	}
	all = all[:0]
	for seq := range uint16(50) {
		all = append(all, 200+seq)
	}
	if sent, _ := ask(all...); sent < 40 { // nothing before them counts
		t.Errorf("%d of the key frame after that are sent again, want nearly all", sent)
	}
	for seq := range uint16(40_000) {
		o.repair.sent(300+seq, 1000)
	}
	if !o.repair.allow(30_000, 1000) {
		t.Error("a packet 40000 numbers after giving up is not repaired")
	}
}
