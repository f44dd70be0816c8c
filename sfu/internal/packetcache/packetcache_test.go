package packetcache

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

// payload makes the payload of packet i.
func payload(i, n int) []byte {
	p := make([]byte, n)
	for k := range p {
		p[k] = byte(i*31 + k)
	}
	return p
}

// TestNewestAreThere: after every packet the newest ones are there as they were
// put, back to as many as fit, and what is given out is never something else.
func TestNewestAreThere(t *testing.T) {
	for _, size := range []int{1000, 4096, 5000} {
		c := New(size, 64)
		r := rand.New(rand.NewPCG(2, uint64(size)))
		var all [][]byte
		for i := range 3000 {
			all = append(all, payload(i, max(0, r.IntN(size/4)-size/16)))
			if ref := c.Put(all[i]); ref != Ref(i+1) {
				t.Fatalf("packet %d is named %d", i, ref)
			}
			held, gone := 0, false
			for k := i; k >= max(0, i-100); k-- {
				p, ok := c.Get(Ref(k+1), nil)
				if ok && !bytes.Equal(p, all[k]) {
					t.Fatalf("size %d: packet %d is another after packet %d", size, k, i)
				}
				if ok && gone {
					t.Fatalf("size %d: packet %d is there and a newer one is not", size, k)
				}
				if gone = gone || !ok; ok {
					held += len(p)
				}
				if !ok && i-k < 64 && held < size/2 {
					t.Fatalf("size %d: packet %d is gone, %d bytes after", size, k, held)
				}
			}
		}
	}
}

func TestWhatDoesNotFit(t *testing.T) {
	c := New(100, 4)
	if ref := c.Put(make([]byte, 101)); ref != 0 {
		t.Errorf("a payload that is too large is named %d", ref)
	}
	if _, ok := c.Get(0, nil); ok {
		t.Error("got what has no name")
	}
	if _, ok := c.Get(1, nil); ok {
		t.Error("got what was never put")
	}
	ref := c.Put(make([]byte, 100))
	if p, ok := c.Get(ref, []byte{1}); !ok || len(p) != 101 || p[0] != 1 {
		t.Error("a payload that just fits is not appended")
	}
	if _, ok := c.Get(ref+1, nil); ok {
		t.Error("got what is to come")
	}
	var none Cache
	if none.Put([]byte{1}) != 0 {
		t.Error("the zero cache keeps something")
	}
}

func TestConcurrentUse(t *testing.T) {
	c := New(10_000, 128)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ref := range Ref(5000) {
				if p, ok := c.Get(ref, nil); ok && !bytes.Equal(p, payload(int(ref)-1, 100)) {
					t.Errorf("packet %d is another", ref)
				}
			}
		})
	}
	for i := range 5000 {
		c.Put(payload(i, 100))
	}
	wg.Wait()
}

func TestLog(t *testing.T) {
	var l Log
	if _, ok := l.Find(0); ok {
		t.Error("the empty log knows a packet")
	}
	for i := range 70_000 {
		l.Add(Sent{Seq: uint16(i), Ref: Ref(i + 1), Number: uint16(3 * i)})
	}
	newest := 69_999
	for i := newest; i > newest-2*Memory; i-- {
		s, ok := l.Find(uint16(i))
		if want := i > newest-Memory; ok != want || ok && (s.Ref != Ref(i+1) || s.Number != uint16(3*i)) {
			t.Fatalf("packet %d: %v %+v, want %v", i, ok, s, want)
		}
	}
	l.Add(Sent{Seq: 7}) // padding: nothing to send again
	if _, ok := l.Find(7); ok {
		t.Error("found padding")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	c, l, p, seq := New(1<<16, 128), Log{}, make([]byte, 1100), uint16(0)
	out := make([]byte, 0, 1500)
	c.Put(p)
	l.Add(Sent{})
	if a := testing.AllocsPerRun(1000, func() {
		seq++
		l.Add(Sent{Seq: seq, Ref: c.Put(p)})
		s, ok := l.Find(seq)
		if _, there := c.Get(s.Ref, out); !ok || !there {
			t.Fatal("gone")
		}
	}); a != 0 {
		t.Errorf("%v allocations for a packet", a)
	}
}

func BenchmarkPut(b *testing.B) {
	c, p := New(512<<10, 1024), make([]byte, 1100)
	b.ReportAllocs()
	for b.Loop() {
		c.Put(p)
	}
}

// A packet that comes late takes nothing from those that are newer.
func TestLatePacketsAreFound(t *testing.T) {
	var l Log
	for i, seq := range []uint16{1, 2, 4, 5, 3, 6} {
		l.Add(Sent{Seq: seq, Ref: Ref(i + 1)})
	}
	for seq := range uint16(6) {
		if _, ok := l.Find(seq + 1); !ok {
			t.Errorf("packet %d is not found", seq+1)
		}
	}
}
