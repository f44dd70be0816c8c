package sfu

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/seqmap"
	"sallyport/sfu/internal/srtp"
)

// letGo pops packets of 1000 bytes in steps of time and returns when each left.
func letGo(p *pacer, from time.Time, most time.Duration) (order []uint16, took time.Duration) {
	for now := from; now.Sub(from) < most && len(p.held) > 0; now = now.Add(paceStep) {
		for {
			x, ok := p.pop(now)
			if !ok {
				break
			}
			p.left(now, 1000)
			order, took = append(order, x.seq), now.Sub(from)
		}
	}
	return order, took
}

func TestPacerSpreadsAKeyFrame(t *testing.T) {
	start := time.Unix(1000, 0)
	var p pacer
	if p.on(start) {
		t.Error("a new pacer holds packets back")
	}
	p.begin(start, start, 0)
	if p.on(start) {
		t.Error("it does without knowing how fast")
	}
	p.begin(start, start.Add(200*time.Millisecond), 800_000)
	for seq := range uint16(30) {
		p.push(heldPacket{sending: sending{seq: seq}, since: start})
	}
	order, took := letGo(&p, start, time.Second)
	if want := 500 * time.Millisecond; len(order) != 30 || took < want-4*paceStep || took > want+paceStep {
		t.Errorf("%d packets left in %v, want 30 in %v", len(order), took, want)
	}
	if !p.on(start.Add(paceFor-1)) || p.on(start.Add(paceFor)) {
		t.Error("it does not last for paceFor")
	}
}

func TestPacerSendsRepairsFirst(t *testing.T) {
	start := time.Unix(1000, 0)
	var p pacer
	p.begin(start, start, 800_000)
	for seq := range uint16(3) {
		p.push(heldPacket{sending: sending{seq: 10 + seq}, since: start})
	}
	for seq := range uint16(3) {
		p.push(heldPacket{sending: sending{seq: seq}, again: true, since: start})
	}
	order, _ := letGo(&p, start, time.Second)
	for i, want := range []uint16{0, 1, 2, 10, 11, 12} {
		if i >= len(order) || order[i] != want {
			t.Fatalf("left in order %v", order)
		}
	}
	if p.again != 0 || len(p.held) != 0 {
		t.Errorf("%d repairs and %d packets left over", p.again, len(p.held))
	}
}

// TestPacerIsNoDam: a layer that is more than the way carries is not held for good.
func TestPacerIsNoDam(t *testing.T) {
	start := time.Unix(1000, 0)
	var p pacer
	p.begin(start, start, 100_000)
	for seq := range uint16(200) {
		p.push(heldPacket{sending: sending{seq: seq}, since: start})
	}
	order, took := letGo(&p, start, 10*time.Second)
	if len(order) != 200 || took > paceLongest+paceStep {
		t.Errorf("%d packets left in %v", len(order), took)
	}
}

// TestPacedPacketsAllLeave: some time later, in order, those that are asked for
// again before others, and nothing is held afterwards.
func TestPacedPacketsAllLeave(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	cache := packetcache.New(cacheBytes, packetcache.Memory)
	of := &layers{}
	of.caches[0].Store(cache)
	low := &encoding{rank: 0, of: of}
	c := &choice{of: of, target: low, current: low, decideAt: time.Now().Add(time.Hour), path: &l.media.path}
	d := &down{choice: c, session: l.media.session, lost: l.srv.metrics.errors.WithLabelValues("g", "rtp")}
	o := l.stream(&outgoing{ssrc: 7, nack: true})
	d.bound.Store(o)
	c.numbers.Switch(0, seqmap.Position{Seq: 1}, 1)
	send := func(seq uint16) {
		payload := []byte(fmt.Sprintf("\x10packet %d", seq))
		p := rtpheader.Packet{Payload: payload, Marker: true}
		d.forwardLayer(l.out, []layerPacket{{received: received{Packet: p, at: time.Now(), ref: cache.Put(payload)}, from: low, position: seqmap.Position{Seq: seq}, fresh: true}})
	}
	now := time.Now()
	send(1)
	send(2)
	c.mu.Lock()
	c.pace.begin(now, now.Add(50*time.Millisecond), leastPace)
	c.mu.Unlock()
	for seq := range uint16(20) {
		send(3 + seq)
	}
	d.answer(nackOf(2))
	d.answer(nackOf(2)) // once is enough
	l.out.flush()

	var got []uint16
	for len(got) < 23 {
		p, ok := l.next()
		if !ok {
			t.Fatalf("only %v came", got)
		}
		if want := fmt.Sprintf("packet %d", p.Seq); string(p.Payload[1:]) != want {
			t.Errorf("packet %d is %q", p.Seq, p.Payload)
		}
		if got = append(got, p.Seq); len(got) == 2 {
			delete(l.opens, 7) // which would not take a packet twice
		}
	}
	want := []uint16{1, 2, 2}
	for seq := range uint16(20) {
		want = append(want, 3+seq)
	}
	if !slices.Equal(got, want) {
		t.Errorf("came in order %v", got)
	}
	if took := time.Since(now); took < 50*time.Millisecond-paceStep {
		t.Errorf("they left after %v", took)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pace.held) != 0 || c.pace.again != 0 {
		t.Errorf("%d packets are still held", len(c.pace.held))
	}
}

// TestPacerEnds: even if more comes than it lets go.
func TestPacerEnds(t *testing.T) {
	start := time.Unix(1000, 0)
	var p pacer
	p.begin(start, start, 100_000)
	now := start
	for ; now.Before(start.Add(paceFor + 2*paceStep)); now = now.Add(paceStep) {
		if p.on(now) {
			p.push(heldPacket{since: now})
		}
		for {
			if _, ok := p.pop(now); !ok {
				break
			}
			p.left(now, 1000)
		}
	}
	if p.on(now) {
		t.Errorf("%d packets are held when it should have ended", len(p.held))
	}
}

// TestANackOfEverythingIsBounded: one of 1,200 bytes names five thousand packets,
// and more may follow.
func TestANackOfEverythingIsBounded(t *testing.T) {
	var nack rtcp.TransportLayerNack
	for i := range uint16(300) {
		nack.Nacks = append(nack.Nacks, rtcp.NackPair{PacketID: 17 * i, LostPackets: 0xFFFF})
	}
	seqs := asked(&nack)
	if n := len(seqs); n < packetcache.Memory || n > packetcache.Memory+16 {
		t.Errorf("%d packets are looked for, want about %d", n, packetcache.Memory)
	}
	now := time.Unix(1000, 0)
	var p pacer
	p.begin(now, now, 600_000)
	for range 3 {
		p.ask(seqs, now)
	}
	if len(p.held) != mostRepairs || p.again != mostRepairs {
		t.Errorf("%d packets are held, %d of them repairs, want %d", len(p.held), p.again, mostRepairs)
	}
	p.clear()
	p.ask([]uint16{7, 7, 8}, now)
	if p.again != 2 {
		t.Errorf("%d repairs are held of two that were asked for", p.again)
	}
}
