package turn

import (
	"net/netip"
	"sync"
	"testing"
)

// However much clients over TCP send, those over UDP find room: with an
// allocation, and without.
func TestStreamsLeaveRoomForDatagrams(t *testing.T) {
	for name, known := range map[string]bool{"media": true, "strangers": false} {
		t.Run(name, func(t *testing.T) {
			m, err := newMetrics(nil, newWatch().most)
			if err != nil {
				t.Fatal(err)
			}
			s := newShard(1, &m.drops)
			defer s.Close()
			polite := newClient(2, source{addr: netip.MustParseAddrPort("192.0.2.1:1000")}, overUDP)
			if known {
				s.add(polite)
			}
			greedy := newClient(3, source{}, overTCP)
			greedy.stream = new(stream)
			if known {
				greedy.relay.Store(new(relay))
			}
			var senders sync.WaitGroup
			for range 4 {
				senders.Go(func() {
					for sent := true; sent; {
						p := newPacket()
						p.client = greedy
						sent = s.frame(p)
					}
				})
			}
			const sent = 20 * mediaQueue
			got := 0
			for n := 0; got < sent && n < 10*sent; n++ {
				if n%3 == 0 && n < 3*sent { // a third of what the shard can do
					p := newPacket()
					p.source, p.client = polite.source, s.client(polite.source)
					s.datagram(p)
				}
				_, p, ok := s.wait()
				if !ok {
					t.Fatal("the shard ended")
				}
				if p.source == polite.source {
					got++
				}
				if p.client != nil {
					p.client.slow.Add(-1)
				}
				p.release()
			}
			if got != sent || testCounter(t, m.drops.shard) != 0 {
				t.Errorf("%d of %d datagrams arrived, %v dropped", got, sent, testCounter(t, m.drops.shard))
			}
			_ = s.Close()
			senders.Wait()
		})
	}
}

// Nor does a client over UDP take the room of another, although neither waits.
func TestDatagramsLeaveRoomForOthers(t *testing.T) {
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	s := newShard(1, &m.drops)
	defer s.Close()
	var clients []*client
	for i := range uint16(4) {
		c := newClient(uint64(i)+2, source{addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1000+i)}, overUDP)
		s.add(c)
		clients = append(clients, c)
	}
	send := func(c *client) {
		p := newPacket()
		p.source, p.client = c.source, c
		s.datagram(p)
	}
	got := map[*client]int{}
	const sent = 3 * mediaQueue
	for range sent {
		for _, greedy := range clients[1:] {
			for range 10 {
				send(greedy)
			}
		}
		send(clients[0]) // a sixth of what the shard can do
		for range 6 {
			_, p, ok := s.wait()
			if !ok {
				t.Fatal("the shard ended")
			}
			got[p.client]++
			p.client.slow.Add(-1)
			p.release()
		}
	}
	polite, waiting := got[clients[0]], int(clients[0].slow.Load())
	if polite+waiting != sent || waiting > mediaQueue/4 {
		t.Errorf("%d of %d datagrams arrived, %d wait", polite, sent, waiting)
	}
	for _, greedy := range clients[1:] {
		if n := got[greedy]; n < sent || n > 2*sent {
			t.Errorf("one of the greedy got %d of %d places, want a third of what is left", n, 6*sent)
		}
	}
}
