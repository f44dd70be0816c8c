package turn

import (
	"net/netip"
	"sync"
	"time"
)

// A packet is one datagram on its way through our queues. It comes from the
// pool, has exactly one owner, and goes back with release.
type packet struct {
	n    int
	data [maxDatagram + channelHeader + 1]byte // room for a header, and padding

	// From the wire to a shard:
	source source        // whom it came from
	client *client       // nil for UDP strangers
	place  chan struct{} // what a stream has in its queue

	// Between relays and peers:
	from   netip.AddrPort // a peer's address, if it came through a kernel socket
	alias  *alias         // the SFU's address, if it came from a landing
	relay  *relay         // the sender, on its way to a landing
	handed time.Time      // when it was queued for the SFU, if that is to be measured
	bulk   bool           // a video packet; the ring it is in decides
	order  uint64         // among those of that ring
}

// bytes returns the datagram; it is valid until release.
func (p *packet) bytes() []byte { return p.data[:p.n] }

var pool = sync.Pool{New: func() any { return new(packet) }}

func newPacket() *packet { return pool.Get().(*packet) }

// packetOf returns a packet with a copy of b, which must not exceed maxDatagram.
func packetOf(b []byte) *packet {
	p := newPacket()
	p.n = copy(p.data[:maxDatagram], b)
	return p
}

func (p *packet) release() {
	p.n = 0
	p.source, p.client, p.place = source{}, nil, nil
	p.from, p.alias, p.relay, p.handed = netip.AddrPort{}, nil, nil, time.Time{}
	pool.Put(p)
}

// A queue holds packets on their way to a shard.
//
// Those of streams may fill half of it. Streams wait for room, and whoever waits
// gets each place that becomes free: datagrams, which do not, would find none.
type queue struct {
	packets chan *packet
	streams chan struct{} // an element for each packet of a stream
}

func newQueue(size int) queue {
	return queue{packets: make(chan *packet, size), streams: make(chan struct{}, size/2)}
}

// put adds a packet of a stream and waits for room; false once done is closed.
func (q queue) put(p *packet, done <-chan struct{}) bool {
	select {
	case q.streams <- struct{}{}:
	case <-done:
		return false
	}
	p.place = q.streams
	select {
	case q.packets <- p:
		return true
	case <-done:
		return false
	}
}

// taken returns p, which has left its queue.
func (p *packet) taken() *packet {
	if p.place != nil {
		<-p.place
		p.place = nil
	}
	return p
}
