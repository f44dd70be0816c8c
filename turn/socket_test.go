package turn

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
)

// plainConn is a packet connection without the fast methods of *net.UDPConn.
type plainConn struct{ net.PacketConn }

// A socket on all addresses hears IPv4 as IPv6 in disguise.
func TestDualStackSocket(t *testing.T) {
	for name, wrap := range map[string]func(net.PacketConn) net.PacketConn{
		"UDPConn": func(c net.PacketConn) net.PacketConn { return c },
		"other":   func(c net.PacketConn) net.PacketConn { return plainConn{c} },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenPacket("udp", "[::]:0")
			if err != nil {
				t.Skipf("SKIPPED, NOT TESTED: no IPv6 here: %v", err)
			}
			s, err := New(Config{Realm: "example.com", RelayTo: []string{"sfu"}}, NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}}), Options{Secrets: [][]byte{[]byte(testSecret)}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx, nil, []net.PacketConn{wrap(conn)}) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
			for _, host := range []string{"127.0.0.1", "::1"} {
				r := &rig{T: t, server: s, addr: map[string]string{"udp": net.JoinHostPort(host, port)}}
				tk := r.talk("udp", "alice")
				m := tk.do(stun.MethodAllocate, requestUDP)
				tk.want(m, 0)
				if mapped, _ := parseXORAddress(attr(m, stun.AttrXORMappedAddress), m); mapped != addrPort(tk.conn.LocalAddr()) {
					t.Errorf("mapped address %v, want %v", mapped, tk.conn.LocalAddr())
				}
			}
		})
	}
}

// failing is a packet connection that fails a few times before it delivers.
type failing struct {
	net.PacketConn
	left int
}

func (f *failing) ReadFrom(b []byte) (int, net.Addr, error) {
	if f.left > 0 {
		f.left--
		return 0, nil, errors.New("icmp: something happened")
	}
	return f.PacketConn.ReadFrom(b)
}

func TestSocketSurvivesReadErrors(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	sh := newShard(1, &m.drops)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		newSocket(&failing{conn, 3}).run(ctx, &shards{all: []*shard{sh}}, m)
		close(ended)
	}()
	client, err := net.Dial("udp4", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	frame := channelFrame(0x4000, []byte("data"))
	if _, err := client.Write(frame); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-sh.stranger.packets:
		if !bytes.Equal(p.bytes(), frame) {
			t.Errorf("got %x", p.bytes())
		}
	case <-time.After(testWait):
		t.Error("nothing arrived")
	}
	cancel()
	<-ended
}

// givingConn is a packet connection that reads by itself.
type givingConn struct {
	net.PacketConn
	packets [][]byte
	from    netip.AddrPort
	done    chan struct{}
}

func (c *givingConn) Receive(take func([]byte, netip.AddrPort)) {
	for _, b := range c.packets {
		take(b, c.from)
		clear(b) // it is theirs
	}
	<-c.done
}

func (c *givingConn) Close() error { close(c.done); return nil }

// A connection that has Receive is not read, and keeps its buffers.
func TestSocketReceives(t *testing.T) {
	m, err := newMetrics(nil, newWatch().most)
	if err != nil {
		t.Fatal(err)
	}
	frame := channelFrame(0x4000, []byte("data"))
	conn := &givingConn{
		packets: [][]byte{make([]byte, maxDatagram+100), []byte("not TURN"), bytes.Clone(frame)},
		from:    netip.MustParseAddrPort("192.0.2.1:5000"), done: make(chan struct{}),
	}
	sh := newShard(1, &m.drops)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		newSocket(conn).run(ctx, &shards{all: []*shard{sh}}, m)
		close(ended)
	}()
	p := <-sh.stranger.packets
	if !bytes.Equal(p.bytes(), frame) || p.source.addr != conn.from {
		t.Errorf("got %x from %s", p.bytes(), p.source.addr)
	}
	if len(sh.stranger.packets) != 0 {
		t.Error("more than the frame was taken")
	}
	cancel()
	<-ended
}
