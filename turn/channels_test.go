package turn

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// caught is a client that keeps what it is sent.
type caught struct{ frames [][]byte }

func (c *caught) send(b []byte, _ netip.AddrPort) { c.frames = append(c.frames, bytes.Clone(b)) }

// A bench is an allocation with two aliases of one socket of the SFU, and what
// goes past pion.
type bench struct {
	*testing.T
	relay  *relay
	client *client
	caught *caught
	conn   *landing
	given  []string // to the SFU
}

func newBench(t *testing.T, bitrate int64) *bench {
	t.Helper()
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}, {testAliased, testLocal}})
	b := &bench{T: t, relay: testRelay(t, h, bitrate), caught: &caught{}, conn: h.landings[0]}
	b.client = newClient(1, source{via: b.caught}, overTCP)
	b.client.relay.Store(b.relay)
	b.conn.take = func(packets [][]byte, from netip.AddrPort) {
		for _, p := range packets {
			b.given = append(b.given, fmt.Sprintf("%s from %v", p, from.Port() == b.relay.at.Port()))
		}
	}
	return b
}

// binds publishes channels as of now.
func (b *bench) binds(channels map[uint16]netip.AddrPort) {
	all := make(map[uint16]channel)
	for n, peer := range channels {
		all[n] = channel{peer: peer, until: time.Now().Add(channelLifetime)}
	}
	b.relay.publish(b.client, all)
}

// down sends from the SFU and tells whether it went past pion.
func (b *bench) down(data string) bool {
	b.Helper()
	before := len(b.caught.frames)
	if _, err := b.conn.WriteToUDPAddrPort([]byte(data), b.relay.at); err != nil {
		b.Fatal(err)
	}
	return len(b.caught.frames) > before
}

// up tells whether a frame from the client went past pion.
func (b *bench) up(number uint16, data string) bool {
	h := newHaul()
	defer h.release()
	return h.add(b.client, channelFrame(number, []byte(data)))
}

// drains reads what pion would, all of it.
func (b *bench) drains(n int) {
	b.Helper()
	for range n {
		if _, _, err := b.relay.ReadFrom(make([]byte, 2000)); err != nil {
			b.Fatal(err)
		}
	}
	b.relay.slow.Add(-1) // as the next ReadFrom would
	b.relay.passing = false
}

var one = map[uint16]netip.AddrPort{0x4000: testNamed}

// Media goes past pion exactly while there is a living channel to who it comes
// from, or for.
func TestChannelsGoPastPion(t *testing.T) {
	for _, tt := range []struct {
		name     string
		do       func(*bench)
		up, down bool
	}{
		{"no channel", func(*bench) {}, false, false},
		{"a channel", func(b *bench) { b.binds(one) }, true, true},
		{"another number", func(b *bench) { b.binds(map[uint16]netip.AddrPort{0x4001: testNamed}) }, false, true},
		{"to another alias than was used last", func(b *bench) { b.binds(map[uint16]netip.AddrPort{0x4000: testAliased}) }, true, false},
		{"to the alias that was used last", func(b *bench) {
			b.binds(map[uint16]netip.AddrPort{0x4000: testAliased})
			b.up(0x4000, "used")
		}, true, true},
		{"to another peer", func(b *bench) { b.binds(map[uint16]netip.AddrPort{0x4000: testLocal}) }, false, false},
		{"almost expired", func(b *bench) { b.binds(one); time.Sleep(channelLifetime - 1) }, true, true},
		{"expired", func(b *bench) { b.binds(one); time.Sleep(channelLifetime) }, false, false},
		{"refreshed", func(b *bench) {
			b.binds(one)
			time.Sleep(channelLifetime - 1)
			b.binds(one)
			time.Sleep(channelLifetime - 1)
		}, true, true},
		{"gone", func(b *bench) { b.binds(one); b.binds(nil) }, false, false},
		{"pion has something that came before, down", func(b *bench) { b.down("first"); b.binds(one) }, true, false},
		{"and has had it", func(b *bench) { b.down("first"); b.binds(one); b.drains(1) }, true, true},
		{"pion lost something that came before", func(b *bench) {
			for range relayQueue + 10 {
				b.down("first")
			}
			b.binds(one)
			b.drains(relayQueue)
		}, true, true},
		{"the guard has something that came before, up", func(b *bench) { b.binds(one); b.client.slow.Add(1) }, false, true},
		{"the SFU is not in relay_to", func(b *bench) { b.binds(one); b.relay.peers.sfu = false }, false, true},
		{"the client has no allocation any more", func(b *bench) { b.binds(one); b.client.relay.Store(nil) }, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 0)
				tt.do(b)
				if down := b.down("down"); down != tt.down {
					t.Errorf("down past pion: %v", down)
				}
				if up := b.up(0x4000, "up"); up != tt.up {
					t.Errorf("up past pion: %v", up)
				}
			})
		})
	}
}

// What goes past pion is what pion would have made, and counts as much.
func TestChannelsCarryTheSame(t *testing.T) {
	b := newBench(t, 0)
	b.binds(map[uint16]netip.AddrPort{0x4000: testNamed, 0x7FFE: testAliased})
	b.down("one")
	b.down("four")
	h := newHaul()
	for _, f := range []struct {
		number uint16
		data   string
	}{{0x4000, "a"}, {0x4000, "bc"}, {0x7FFE, ""}, {0x4000, "def"}} {
		if !h.add(b.client, channelFrame(f.number, []byte(f.data))) {
			t.Errorf("%q not taken", f.data)
		}
	}
	h.release()
	b.down("last")
	if diff := cmp.Diff([][]byte{channelFrame(0x4000, []byte("one")), channelFrame(0x4000, []byte("four")), channelFrame(0x4000, []byte("last"))}, b.caught.frames); diff != "" {
		t.Errorf("frames to the client (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a from true", "bc from true", " from true", "def from true"}, b.given); diff != "" {
		t.Errorf("packets to the SFU (-want +got):\n%s", diff)
	}
	f := b.relay.flow
	got := []float64{testCounter(t, f.upPackets), testCounter(t, f.upBytes), testCounter(t, f.downPackets), testCounter(t, f.downBytes)}
	if diff := cmp.Diff([]float64{4, 6, 3, 11}, got); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// The limit of an allocation holds past pion, too.
func TestChannelsKeepToTheBitrate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8*bucketMin)
		b.binds(one)
		big := string(make([]byte, 1000))
		for range 100 {
			b.up(0x4000, big)
			b.down(big)
		}
		passes := bucketMin / 1000
		if len(b.given) != passes || len(b.caught.frames) != passes {
			t.Errorf("%d packets up, %d down; want %d each", len(b.given), len(b.caught.frames), passes)
		}
		if got := testCounter(t, b.relay.metrics.drops.bitrate); got != float64(200-2*passes) {
			t.Errorf("%v counted as above the limit", got)
		}
	})
}

// Nothing passes once a relay is closed, whoever comes late.
func TestChannelsEndWithTheRelay(t *testing.T) {
	b := newBench(t, 0)
	b.binds(one)
	_ = b.relay.Close()
	for range 2 {
		if _, err := b.conn.WriteToUDPAddrPort([]byte("x"), b.relay.at); !errors.Is(err, ErrNoAllocation) || len(b.caught.frames) > 0 {
			t.Errorf("down: %v, %d frames", err, len(b.caught.frames))
		}
		if b.up(0x4000, "x") || len(b.given) > 0 {
			t.Error("up: taken")
		}
		b.binds(one) // pion has agreed to a channel meanwhile
	}
}

// After Close nobody is called any more.
func TestReceiveEndsWithTheHairpin(t *testing.T) {
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	r := testRelay(t, h, 0)
	inside, proceed, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l := h.landings[0]
	go func() {
		l.Receive(func([][]byte, netip.AddrPort) {
			inside <- struct{}{}
			<-proceed
		})
		close(ended)
	}()
	eventually(t, testWait, "somebody receives", func() bool {
		l.mu.RLock()
		defer l.mu.RUnlock()
		return l.take != nil
	})
	go func() { _, _ = r.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(testNamed)) }()
	<-inside
	_ = h.Close()
	select {
	case <-ended:
		t.Error("Receive has ended before the last call")
	default:
	}
	close(proceed)
	<-ended
	if l.give([][]byte{[]byte("y")}, r.at) {
		t.Error("given after Close")
	}
}
