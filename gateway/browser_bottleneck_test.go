package gateway_test

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// longestQueue is how long a packet may wait before a bottleneck; what would
// wait longer is dropped.
const longestQueue = 500 * time.Millisecond

// A bottleneck is a UDP port that leads to another one. Its way back to the
// clients is as narrow as it is told to be.
//
//	client ──────────────────────────────> server
//	       <── rate <── queue <── dropped?
type bottleneck struct {
	near   *net.UDPConn
	server *net.UDPAddr

	rate    atomic.Int64 // bit/s; 0 = no limit
	waiting atomic.Int64 // bytes in queue
	dropped atomic.Int64 // packets
	queue   chan datagram
	readers sync.WaitGroup
}

// A datagram waits to be sent to a client.
type datagram struct {
	to    netip.AddrPort
	bytes []byte
	at    time.Time // when it came
}

// newBottleneck leads to server until the test ends.
func newBottleneck(t *testing.T, server string) *bottleneck {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	must(t, err)
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: to.IP})
	must(t, err)
	must(t, near.SetReadBuffer(4<<20))
	b := &bottleneck{near: near, server: to, queue: make(chan datagram, 1<<12)}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		b.drain()
	}()
	b.readers.Go(b.forth)
	t.Cleanup(func() {
		b.near.Close()
		b.readers.Wait()
		close(b.queue)
		<-drained
	})
	return b
}

func (b *bottleneck) address() string { return b.near.LocalAddr().String() }

// forth carries what clients send, with a socket for each of them.
func (b *bottleneck) forth() {
	far := map[netip.AddrPort]*net.UDPConn{}
	defer func() {
		for _, conn := range far {
			conn.Close()
		}
	}()
	for buf := make([]byte, 1<<16); ; {
		n, from, err := b.near.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		conn := far[from]
		if conn == nil {
			if conn, err = net.DialUDP("udp", nil, b.server); err != nil {
				continue
			}
			_ = conn.SetReadBuffer(4 << 20) // else a busy machine loses packets here
			far[from] = conn
			b.readers.Go(func() { b.back(conn, from) })
		}
		_, _ = conn.Write(buf[:n])
	}
}

// back queues what the server sends to one client.
func (b *bottleneck) back(conn *net.UDPConn, to netip.AddrPort) {
	for buf := make([]byte, 1<<16); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		rate := b.rate.Load()
		if rate > 0 && (b.waiting.Load()+int64(n))*8*int64(time.Second) > rate*int64(longestQueue) {
			b.dropped.Add(1)
			continue
		}
		b.waiting.Add(int64(n))
		b.queue <- datagram{to, append([]byte(nil), buf[:n]...), time.Now()}
	}
}

// drain sends as fast as the rate allows.
func (b *bottleneck) drain() {
	var free time.Time // when the link has sent all before
	for d := range b.queue {
		if rate := b.rate.Load(); rate > 0 {
			const headers = 20 + 8
			if free.Before(d.at) { // it found no queue; that we wake late costs no capacity
				free = d.at
			}
			free = free.Add(time.Duration(int64(len(d.bytes)+headers) * 8 * int64(time.Second) / rate))
			time.Sleep(time.Until(free))
		}
		b.waiting.Add(-int64(len(d.bytes)))
		_, _ = b.near.WriteToUDPAddrPort(d.bytes, d.to)
	}
}
