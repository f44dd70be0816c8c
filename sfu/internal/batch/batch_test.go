package batch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

const wait = 30 * time.Second

// ways runs a test on the portable and the fast way, and on the fast one without
// segments.
func ways(t *testing.T, f func(t *testing.T, o Options)) {
	for name, o := range map[string]Options{"fast": {}, "one by one": {NoSegments: true}, "portable": {Portable: true}} {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}

var families = []string{"127.0.0.1:0", "[::1]:0", "[::]:0"}

// open opens one socket, which ends with the test.
func open(t testing.TB, at string, o Options) *Socket {
	t.Helper()
	all, err := Listen(netip.MustParseAddrPort(at), 1, false, o)
	if err != nil {
		if at != families[0] {
			t.Skipf("SKIPPED, NOT TESTED: no IPv6 here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = all[0].Close() })
	return all[0]
}

// reach is where a client of this machine sends to reach s.
func reach(s *Socket) netip.AddrPort {
	if s.Local().Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Local().Port())
	}
	return s.Local()
}

func client(t testing.TB, s *Socket) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(reach(s)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	_ = c.SetDeadline(time.Now().Add(wait))
	return c
}

func sourceOf(c *net.UDPConn) netip.AddrPort {
	return unmapped(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// What is sent arrives, in order, whole, and from whom it came.
func TestRead(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		for _, at := range families {
			t.Run(at, func(t *testing.T) {
				s := open(t, at, o)
				c := client(t, s)
				var want []string
				for i := range 100 {
					p := bytes.Repeat([]byte{byte(i)}, 1+i*15)
					if len(p) > MaxDatagram {
						p = p[:MaxDatagram]
					}
					want = append(want, string(p))
					if _, err := c.Write(p); err != nil {
						t.Fatal(err)
					}
				}
				b := NewBatch()
				for got := 0; got < len(want); {
					n, err := s.Read(b)
					if err != nil {
						t.Fatal(err)
					}
					for i := range n {
						p, from := b.Packet(i)
						if string(p) != want[got] || from != sourceOf(c) {
							t.Fatalf("packet %d: %d bytes %x… from %s, want %d from %s", got, len(p), p[:1], from, len(want[got]), sourceOf(c))
						}
						got++
					}
				}
			})
		}
	})
}

func TestOversizedIsNoticed(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		s := open(t, families[0], o)
		if _, err := client(t, s).Write(make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
		b := NewBatch()
		if n, err := s.Read(b); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if p, _ := b.Packet(0); len(p) <= MaxDatagram {
			t.Errorf("%d bytes", len(p))
		}
	})
}

func TestCloseEndsRead(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		s := open(t, families[0], o)
		ended := make(chan error)
		go func() {
			_, err := s.Read(NewBatch())
			ended <- err
		}()
		_ = s.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read ends with %v", err)
		}
		var lost int
		out := NewOut(s, func(why Loss, n int) {
			if why == LossClosed {
				lost += n
			}
		})
		copy(out.Reserve(1), "x")
		out.Commit(netip.MustParseAddrPort("127.0.0.1:9"), 1)
		out.Flush()
		if lost != 1 {
			t.Errorf("%d lost after Close", lost)
		}
	})
}

// What is committed arrives once, in order, unharmed by what is cut and joined
// on the way, for several destinations.
func TestSend(t *testing.T) {
	sizes := []int{1200, 1200, 1200, 700, 700, 80, 80, 90, 1, MaxDatagram, MaxDatagram}
	ways(t, func(t *testing.T, o Options) {
		for _, at := range families {
			t.Run(at, func(t *testing.T) {
				s := open(t, at, o)
				clients := []*net.UDPConn{client(t, s), client(t, s), client(t, s)}
				out := NewOut(s, func(why Loss, n int) { t.Errorf("%d lost: %d", n, why) })
				want := make([][]string, len(clients))
				for round := range 30 { // more than an Out holds
					for k, c := range clients {
						for i, size := range sizes {
							p := bytes.Repeat([]byte{byte(round), byte(k), byte(i)}, size)[:size]
							want[k] = append(want[k], string(p))
							copy(out.Reserve(MaxDatagram), p)
							out.Commit(sourceOf(c), size)
						}
					}
					out.Reserve(100)
					out.Commit(sourceOf(clients[0]), 0) // nothing
					if round%7 == 0 {
						out.Flush()
					}
				}
				out.Flush()
				if !out.Empty() {
					t.Error("not empty after Flush")
				}
				buf := make([]byte, 2*MaxDatagram)
				for k, c := range clients {
					for i, w := range want[k] {
						if n, err := c.Read(buf); err != nil || string(buf[:n]) != w {
							t.Fatalf("client %d, packet %d: %d bytes, %v; want %d", k, i, n, err, len(w))
						}
					}
				}
			})
		}
	})
}

// A message that cannot be sent is lost alone.
func TestRefusedMessage(t *testing.T) {
	nowhere := netip.MustParseAddrPort("127.0.0.1:0") // EINVAL
	ways(t, func(t *testing.T, o Options) {
		s := open(t, families[0], o)
		c := client(t, s)
		lost := map[Loss]int{}
		out := NewOut(s, func(why Loss, n int) { lost[why] += n })
		for _, x := range []struct {
			p  string
			to netip.AddrPort
		}{
			{"a", sourceOf(c)}, {"b", nowhere}, {"c", nowhere}, {"d", sourceOf(c)}, {"e", netip.MustParseAddrPort("[2001:db8::1]:9")}, {"f", sourceOf(c)},
		} {
			copy(out.Reserve(1), x.p)
			out.Commit(x.to, 1)
		}
		out.Flush()
		if len(lost) != 1 || lost[LossRefused] != 3 {
			t.Errorf("lost %v", lost)
		}
		buf := make([]byte, 10)
		for _, want := range []string{"a", "d", "f"} {
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
				t.Errorf("got %q, %v; want %s", buf[:n], err, want)
			}
		}
	})
}

// A group shares an address, and nobody gets in between.
func TestGroup(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		group, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), 3, false, o)
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if CanShare {
			want = 3
		}
		if len(group) != want {
			t.Fatalf("%d sockets", len(group))
		}
		if other, err := Listen(group[0].Local(), 2, false, o); err == nil {
			t.Errorf("a second group %v shares %s", other, group[0].Local())
		}
		heard := make(chan string, 100)
		done := make(chan struct{})
		for _, s := range group {
			if s.Local() != group[0].Local() {
				t.Errorf("%s and %s", s.Local(), group[0].Local())
			}
			go func() {
				b := NewBatch()
				for {
					n, err := s.Read(b)
					if err != nil {
						done <- struct{}{}
						return
					}
					for i := range n {
						p, _ := b.Packet(i)
						heard <- string(p)
					}
				}
			}()
		}
		var sent, got []string
		for i := range 50 {
			sent = append(sent, fmt.Sprint(i))
			if _, err := client(t, group[0]).Write([]byte(sent[i])); err != nil {
				t.Fatal(err)
			}
		}
		for range sent {
			got = append(got, <-heard)
		}
		slices.Sort(sent)
		slices.Sort(got)
		if !slices.Equal(sent, got) {
			t.Errorf("got %v", got)
		}
		for _, s := range group {
			_ = s.Close()
		}
		for range group {
			<-done
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	ways(t, func(t *testing.T, o Options) {
		for _, at := range families {
			t.Run(at, func(t *testing.T) {
				s := open(t, at, o)
				c := client(t, s)
				b, out := NewBatch(), NewOut(s, nil)
				p, from := make([]byte, 100), sourceOf(c)
				buf := make([]byte, 200)
				n := testing.AllocsPerRun(50, func() {
					for range 4 {
						_, _ = c.Write(p)
					}
					for got := 0; got < 4; {
						n, err := s.Read(b)
						if err != nil {
							t.Fatal(err)
						}
						got += n
					}
					for range 4 {
						copy(out.Reserve(100), p)
						out.Commit(from, 100)
					}
					out.Flush()
					for range 4 {
						_, _ = c.Read(buf)
					}
				})
				if n != 0 {
					t.Errorf("%v allocations", n)
				}
			})
		}
	})
}
