package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/packetio"
)

// passLimit is how many bytes may wait for ICE, which is not slow: datagrams
// beyond are lost, as in a socket's buffer.
const passLimit = 1 << 20

// bulkNet gives the ICE agent of one peer sockets of its Bulk.
type bulkNet struct {
	transport.Net
	bulk  *Bulk
	tally *tally
}

func (b *Bulk) network(t *tally) transport.Net { return &bulkNet{b.net, b, t} }

// ListenUDP implements transport.Net, for IPv4.
func (n *bulkNet) ListenUDP(_ string, local *net.UDPAddr) (transport.UDPConn, error) {
	return n.bulk.listen(n.tally, local)
}

// ListenPacket implements transport.Net, for IPv4.
func (n *bulkNet) ListenPacket(network, address string) (net.PacketConn, error) {
	local, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return n.bulk.listen(n.tally, local)
}

// A bulkConn is one socket of a Bulk, outside of Go's own poller.
type bulkConn struct {
	bulk  *Bulk
	tally *tally
	local *net.UDPAddr
	queue *packetio.Buffer // address and datagram, for ICE

	fd     int
	mu     sync.RWMutex // held while fd is used to send or closed; guards the following
	closed bool         // fd may be another socket's number
}

func (b *Bulk) listen(t *tally, local *net.UDPAddr) (*bulkConn, error) {
	fail := func(err error) (*bulkConn, error) { return nil, fmt.Errorf("open socket at %s: %w", local, err) }
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	var address syscall.SockaddrInet4
	copy(address.Addr[:], local.IP.To4())
	address.Port = local.Port
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, bulkBuffer)
	err = syscall.Bind(fd, &address)
	var bound syscall.Sockaddr
	if err == nil {
		bound, err = syscall.Getsockname(fd)
	}
	c := &bulkConn{bulk: b, tally: t, fd: fd, queue: packetio.NewBuffer()}
	c.queue.SetLimitSize(passLimit)
	if in, is := bound.(*syscall.SockaddrInet4); is && err == nil {
		c.local = &net.UDPAddr{IP: net.IP(in.Addr[:]), Port: in.Port}
		err = b.poll.add(c)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return fail(err)
	}
	return c, nil
}

// addressSize is the length of the sender's address before a queued datagram.
const addressSize = net.IPv4len + 2

// pass queues a datagram for ICE.
func (c *bulkConn) pass(datagram []byte, from *syscall.RawSockaddrInet4) {
	queued := make([]byte, addressSize, addressSize+len(datagram))
	copy(queued, from.Addr[:])
	port := (*[2]byte)(unsafe.Pointer(&from.Port)) // in network order
	queued[4], queued[5] = port[0], port[1]
	_, _ = c.queue.Write(append(queued, datagram...))
}

// ReadFrom implements net.PacketConn.
func (c *bulkConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDP(b)
	if err != nil {
		return 0, nil, err
	}
	return n, from, nil
}

// ReadFromUDP implements transport.UDPConn.
func (c *bulkConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	var queued [addressSize + maxDatagram]byte
	n, err := c.queue.Read(queued[:])
	if err != nil {
		return 0, nil, err
	}
	from := &net.UDPAddr{IP: net.IP(append([]byte(nil), queued[:net.IPv4len]...)), Port: int(binary.BigEndian.Uint16(queued[net.IPv4len:]))}
	return copy(b, queued[addressSize:n]), from, nil
}

// WriteTo implements net.PacketConn. A full socket loses the datagram, as a full
// network does.
func (c *bulkConn) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, is := to.(*net.UDPAddr)
	if !is {
		return 0, fmt.Errorf("send to %v: %w", to, errors.ErrUnsupported)
	}
	return c.WriteToUDP(b, udp)
}

// WriteToUDP implements transport.UDPConn.
func (c *bulkConn) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) {
	ip := to.IP.To4()
	if ip == nil {
		return 0, fmt.Errorf("send to %v: %w", to, errors.ErrUnsupported)
	}
	address := syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(ip)}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if err := syscall.Sendto(c.fd, b, 0, &address); err != nil && err != syscall.EAGAIN {
		return 0, fmt.Errorf("send to %v: %w", to, err)
	}
	return len(b), nil
}

// Close implements net.PacketConn.
func (c *bulkConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	return errors.Join(c.queue.Close(), c.bulk.poll.remove(c))
}

// LocalAddr implements net.PacketConn.
func (c *bulkConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements transport.UDPConn: the socket is connected to nobody.
func (c *bulkConn) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.PacketConn; a write never waits.
func (c *bulkConn) SetDeadline(t time.Time) error { return c.queue.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *bulkConn) SetReadDeadline(t time.Time) error { return c.queue.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn; a write never waits.
func (c *bulkConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer implement transport.UDPConn; the sockets
// have what they need.
func (c *bulkConn) SetReadBuffer(int) error  { return nil }
func (c *bulkConn) SetWriteBuffer(int) error { return nil }

// Read, Write, ReadMsgUDP and WriteMsgUDP complete transport.UDPConn; ICE uses
// none of them.
func (c *bulkConn) Read([]byte) (int, error)  { return 0, errors.ErrUnsupported }
func (c *bulkConn) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (c *bulkConn) ReadMsgUDP([]byte, []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	return 0, 0, 0, nil, errors.ErrUnsupported
}

func (c *bulkConn) WriteMsgUDP([]byte, []byte, *net.UDPAddr) (n, oobn int, err error) {
	return 0, 0, errors.ErrUnsupported
}
