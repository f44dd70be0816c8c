package batch

import (
	"fmt"
	"net"
	"testing"
)

// benchWays are the ways whose cost is compared.
var benchWays = []struct {
	name string
	o    Options
}{{"portable", Options{Portable: true}}, {"one-by-one", Options{NoSegments: true}}, {"segments", Options{}}}

// BenchmarkSend is the cost of a datagram sent: video packets to one receiver in
// runs of so many, which is what segments are for, or voice to 50 receivers.
func BenchmarkSend(b *testing.B) {
	for _, x := range []struct{ size, run int }{{120, 1}, {1200, 1}, {1200, 4}, {1200, 12}, {1200, 40}} {
		for _, way := range benchWays {
			b.Run(fmt.Sprintf("size=%d/run=%d/%s", x.size, x.run, way.name), func(b *testing.B) {
				s := open(b, families[0], way.o)
				var to []*net.UDPConn
				for range 50 {
					to = append(to, client(b, s))
				}
				out, next := NewOut(s, nil), 0
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%x.run == 0 {
						next = (next + 1) % len(to)
					}
					out.Reserve(x.size)
					out.Commit(sourceOf(to[next]), x.size)
					if i%(50*x.run) == 0 {
						out.Flush()
					}
				}
			})
		}
	}
}

// BenchmarkRead is the cost of a datagram that waits in the kernel's buffer
// together with others.
func BenchmarkRead(b *testing.B) {
	for _, waiting := range []int{1, 4, 32} {
		for _, way := range benchWays[:2] {
			b.Run(fmt.Sprintf("waiting=%d/%s", waiting, way.name), func(b *testing.B) {
				s := open(b, families[0], way.o)
				c := client(b, s)
				batch, p := NewBatch(), make([]byte, 120)
				b.ReportAllocs()
				b.StopTimer()
				for i := 0; i < b.N; i += waiting {
					for range waiting {
						_, _ = c.Write(p)
					}
					b.StartTimer()
					for got := 0; got < waiting; {
						n, err := s.Read(batch)
						if err != nil {
							b.Fatal(err)
						}
						got += n
					}
					b.StopTimer()
				}
			})
		}
	}
}
