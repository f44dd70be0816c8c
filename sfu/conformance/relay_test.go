package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A relay stands between a guest and the server: the guest sees it in the place
// of the server's UDP candidates, and the server sees it in the guest's place.
type relay struct {
	t     testing.TB
	front *net.UDPConn // towards the guest
	keys  atomic.Pointer[iceKeys]

	// up and down look at each datagram on its way to the server or the guest
	// and return what goes on: nil drops it. nil functions let everything pass.
	up, down func([]byte) []byte

	dead atomic.Bool  // nothing passes
	rate atomic.Int64 // bit/s towards the guest; 0 = unlimited

	mu     sync.Mutex // guards the following
	server netip.AddrPort
	back   *net.UDPConn // towards the server
	guest  netip.AddrPort
	lane   chan []byte // datagrams on their way to the guest
}

// iceKeys are the ICE credentials of both sides.
type iceKeys struct{ client, server iceKey }

type iceKey struct{ ufrag, pwd string }

// keyOf returns the credentials in a description.
func keyOf(sdp string) iceKey {
	return iceKey{attribute(sdp, "ice-ufrag"), attribute(sdp, "ice-pwd")}
}

// queueTime is how long a datagram may wait on the narrow road.
const queueTime = 300 * time.Millisecond

func newRelay(t testing.TB) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	r := &relay{t: t, front: front, lane: make(chan []byte, 4096)}
	r.keys.Store(&iceKeys{})
	var wg sync.WaitGroup
	wg.Go(r.readFront)
	stop := make(chan struct{})
	wg.Go(func() { r.pace(stop) })
	t.Cleanup(func() {
		close(stop)
		_ = front.Close()
		r.mu.Lock()
		if r.back != nil {
			_ = r.back.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

// instead returns the relay's candidate in the place of the server's; of those
// that are not UDP nothing is left. The first one is where the relay leads.
func (r *relay) instead(candidate string) string {
	protocol, addr := endpoint(candidate)
	if protocol != "udp" || !addr.Addr().Is4() {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back == nil {
		back, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
		if err != nil {
			r.t.Errorf("open relay: %v", err)
			return ""
		}
		r.server, r.back = addr, back
		go r.readBack(back)
	}
	if addr != r.server {
		return ""
	}
	f := strings.Fields(candidate)
	f[4], f[5] = "127.0.0.1", fmt.Sprint(r.front.LocalAddr().(*net.UDPAddr).Port)
	return strings.Join(f, " ")
}

func (r *relay) readFront() {
	buf := make([]byte, 2048)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.guest = from
		back := r.back
		r.mu.Unlock()
		p := buf[:n]
		if r.up != nil {
			p = r.up(p)
		}
		if p != nil && back != nil && !r.dead.Load() {
			_, _ = back.Write(p)
		}
	}
}

func (r *relay) readBack(back *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, err := back.Read(buf)
		if err != nil {
			return
		}
		p := append([]byte(nil), buf[:n]...)
		if r.down != nil {
			p = r.down(p)
		}
		if p == nil || r.dead.Load() {
			continue
		}
		if rate := r.rate.Load(); rate > 0 && int64(len(r.lane))*1200*8 > rate*int64(queueTime)/int64(time.Second) {
			continue // the queue of a narrow road is short
		}
		select {
		case r.lane <- p:
		default:
		}
	}
}

// pace hands datagrams to the guest, no faster than the road allows.
func (r *relay) pace(stop chan struct{}) {
	free := time.Now() // when the road is free again
	for {
		var p []byte
		select {
		case <-stop:
			return
		case p = <-r.lane:
		}
		if rate := r.rate.Load(); rate > 0 {
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(int64(len(p)) * 8 * int64(time.Second) / rate))
			if wait := free.Sub(now); wait > time.Millisecond {
				time.Sleep(wait)
			}
		}
		r.toGuest(p)
	}
}

func (r *relay) toServer(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back != nil {
		_, _ = r.back.Write(p)
	}
}

func (r *relay) toGuest(p []byte) {
	r.mu.Lock()
	guest := r.guest
	r.mu.Unlock()
	if guest.IsValid() {
		_, _ = r.front.WriteToUDPAddrPort(p, guest)
	}
}

// isRTP recognises media among STUN, DTLS and RTCP (RFC 7983, RFC 5761).
func isRTP(p []byte) bool {
	return len(p) > 12 && p[0]>>6 == 2 && (p[1] < 192 || p[1] > 223)
}
