// Flood sends UDP packets that nobody has asked for, at a steady rate, each from
// another address. It is a program of its own, so that the tests of the gateway
// can attack it while they themselves pay for the race detector.
//
//	flood -to 127.0.0.1:443 -from 10.9.0.0/16 -rate 50000 -for 5s garbage|allocate
//
// The addresses must be local ones (ip route add local 10.9.0.0/16 dev lo). It
// prints how many packets it has sent.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	tick  = 5 * time.Millisecond
	batch = 64
)

func main() {
	log.SetFlags(0)
	to := flag.String("to", "", "`address` to send to")
	from := flag.String("from", "", "`network` of the senders")
	rate := flag.Int("rate", 1000, "packets a second")
	length := flag.Duration("for", time.Second, "how long")
	flag.Parse()
	if *length > time.Minute || *rate > 200_000 {
		log.Fatal("that is not a test any more")
	}
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		log.Fatal(err)
	}
	_ = conn.SetReadBuffer(1) // nobody reads the answers
	target, err := net.ResolveUDPAddr("udp4", *to)
	if err != nil {
		log.Fatal(err)
	}
	f := flood{out: ipv4.NewPacketConn(conn), to: target, from: netip.MustParsePrefix(*from)}
	f.fill(flag.Arg(0) == "allocate")
	fmt.Println(f.run(*rate, *length))
}

// A flood is a supply of packets.
type flood struct {
	out   *ipv4.PacketConn
	to    *net.UDPAddr
	from  netip.Prefix
	stock []ipv4.Message
}

// fill makes packets and senders, which then come round again and again.
func (f *flood) fill(allocate bool) {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	for i := range 16 * batch {
		b := noise(random, i)
		if allocate {
			b = request(random)
		}
		sender := f.from.Addr().As4()
		binary.BigEndian.PutUint32(sender[:], binary.BigEndian.Uint32(sender[:])|random.Uint32N(1<<(32-f.from.Bits())))
		control := ipv4.ControlMessage{Src: net.IP(sender[:])}
		f.stock = append(f.stock, ipv4.Message{Buffers: [][]byte{b}, OOB: control.Marshal(), Addr: f.to})
	}
}

// request is an Allocate without credentials, for a relay of UDP (RFC 8656 §7.1).
func request(random *rand.Rand) []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint16(b, 3)
	binary.BigEndian.PutUint16(b[2:], 8)
	binary.BigEndian.PutUint32(b[4:], 0x2112A442)
	for i := 8; i < 20; i++ {
		b[i] = byte(random.Uint32())
	}
	binary.BigEndian.PutUint16(b[20:], 0x19)
	binary.BigEndian.PutUint16(b[22:], 4)
	b[24] = 17
	return b
}

// noise is what looks, from its first byte, like each protocol on the port.
func noise(random *rand.Rand, i int) []byte {
	sizes := []int{1, 19, 20, 100, 300, 1200}
	b := make([]byte, sizes[random.IntN(len(sizes))])
	for j := range b {
		b[j] = byte(random.Uint32())
	}
	first := []byte{0x00, 0x01, 0x14, 0x16, 0x40, 0x80, 0xC0} // STUN, DTLS, ChannelData, RTP, QUIC
	b[0] = first[i%len(first)]
	return b
}

// run sends, and returns how many packets it has sent. What it cannot send in time
// it leaves out.
func (f *flood) run(rate int, length time.Duration) (sent int) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	end := time.Now().Add(length)
	for next := 0; time.Now().Before(end); <-ticker.C {
		for due := int(float64(rate) * tick.Seconds()); due > 0; {
			n, err := f.out.WriteBatch(f.stock[next:next+min(batch, due)], 0)
			if err != nil {
				n = 1 // that one cannot be sent
			} else {
				sent += n
			}
			due, next = due-n, (next+n)%(len(f.stock)-batch)
		}
	}
	return sent
}
