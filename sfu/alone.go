package sfu

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"sallyport/sfu/internal/batch"
)

// ListenAlone opens the shared port where there is no SFU to share it with: the
// same sockets, on the same addresses, or those that are given. Each SharedConn is
// the TURN server's alone: it gets everything, and only by Receive.
func ListenAlone(shared string, given ...*net.UDPConn) (*Sockets, error) {
	s := &Sockets{alone: true}
	err := s.takeShared(given)
	if err == nil && len(given) == 0 {
		err = s.openShared(shared, Config{IPv6: true}) // nobody is told of the addresses
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// receiveAlone is Receive without an SFU that reads.
func (c *SharedConn) receiveAlone(take func(p []byte, from netip.AddrPort)) {
	var readers sync.WaitGroup
	for _, k := range c.udp {
		readers.Go(func() { readAlone(k, take) })
	}
	readers.Wait()
}

// readAlone reads until the socket is closed. Any other error is a datagram lost:
// the kernel reports ICMP errors of single peers this way.
func readAlone(k *batch.Socket, take func(p []byte, from netip.AddrPort)) {
	b := batch.NewBatch()
	for {
		n, err := k.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(time.Millisecond) // an error that stays must not take a core
		}
		for i := range n {
			take(b.Packet(i))
		}
	}
}
