package sfu

import (
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A narrow is a UDP path between one guest and the server that can be made narrow
// and lossy toward the guest.
type narrow struct {
	bitrate atomic.Int64 // toward the guest; 0 = unlimited
	dropIn  atomic.Int64 // every how many packets toward the guest one is lost; 0 = none
	dropped atomic.Int64
	passed  atomic.Int64
	rewrite func(string) string
	server  atomic.Pointer[func([]byte)] // sees what the server sends; nil if nobody does

	mu     sync.Mutex // guards the following
	chance *rand.Rand // nil: nothing is lost by chance
	loss   float64
}

// lose loses a share of the packets, both ways.
func (n *narrow) lose(chance *rand.Rand, share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.chance, n.loss = chance, share
}

// loses draws for one packet.
func (n *narrow) loses() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.chance != nil && n.chance.Float64() < n.loss
}

const narrowQueue = 300 * time.Millisecond

// newNarrow makes a path to the server, whose candidates it replaces.
func newNarrow(t *testing.T, srv *Server) *narrow {
	t.Helper()
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	near, far := listen(), listen() // toward the guest, toward the server
	server := net.UDPAddrFromAddrPort(srv.mux.advertised()[0])
	port := regexp.MustCompile(`(?i)(udp \d+ 127\.0\.0\.1 )` + strconv.Itoa(server.Port) + `\b`)
	n := &narrow{rewrite: func(s string) string {
		return port.ReplaceAllString(s, "${1}"+strconv.Itoa(near.LocalAddr().(*net.UDPAddr).Port))
	}}
	var guest atomic.Pointer[net.UDPAddr]
	type queued struct {
		at time.Time
		p  []byte
	}
	queue := make(chan queued, 1<<14)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			k, from, err := near.ReadFromUDP(buf)
			if err != nil {
				return
			}
			guest.Store(from)
			if n.loses() {
				continue
			}
			_, _ = far.WriteToUDP(buf[:k], server)
		}
	})
	wg.Go(func() {
		defer close(queue)
		var free time.Time // when the link has sent what it has
		buf := make([]byte, 2000)
		for i := int64(1); ; i++ {
			k, _, err := far.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if see := n.server.Load(); see != nil {
				(*see)(buf[:k])
			}
			now := time.Now()
			if every := n.dropIn.Load(); every > 0 && i%every == 0 || n.loses() {
				n.dropped.Add(1)
				continue
			}
			if free.Before(now) {
				free = now
			}
			if rate := n.bitrate.Load(); rate > 0 {
				if free.Sub(now) > narrowQueue {
					n.dropped.Add(1)
					continue
				}
				free = free.Add(time.Duration(int64(k+28) * 8 * int64(time.Second) / rate))
			} else {
				free = now
			}
			queue <- queued{free, append([]byte(nil), buf[:k]...)}
		}
	})
	wg.Go(func() {
		for q := range queue {
			if d := time.Until(q.at); d > 0 {
				time.Sleep(d)
			}
			n.passed.Add(1)
			_, _ = near.WriteToUDP(q.p, guest.Load())
		}
	})
	t.Cleanup(func() {
		_, _ = near.Close(), far.Close()
		wg.Wait()
	})
	return n
}
