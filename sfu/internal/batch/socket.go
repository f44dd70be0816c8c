package batch

import (
	"net"
	"net/netip"
)

const (
	// Size is how many datagrams one Read returns at most.
	Size = 32
	// MaxDatagram is the longest datagram, in bytes: what an Ethernet frame
	// holds.
	MaxDatagram = 1500
)

// Options tune a Socket. The zero value is right for a server.
type Options struct {
	// Portable takes the way that works on every system.
	Portable bool
	// NoSegments sends no datagrams as segments of one message.
	NoSegments bool
}

// A Socket is a UDP socket. Its methods may be called from any goroutine.
type Socket struct {
	conn  *net.UDPConn
	local netip.AddrPort
	fast  *fastSocket // nil: portable
}

// New makes a Socket of conn, which it owns from now on.
func New(conn *net.UDPConn, o Options) (*Socket, error) {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Socket{conn: conn, local: unmapped(local)}
	if o.Portable {
		return s, nil
	}
	var err error
	s.fast, err = newFast(conn, o)
	return s, err
}

// Listen opens a group of UDP sockets on addr; the kernel spreads the remote
// addresses over them, one to each. It opens fewer where a system allows only
// one socket for an address. If port is 0 all get the same free one. Nobody else
// may have addr, unless beside says that ListenFirst has opened it, or all
// addresses, for this process.
func Listen(addr netip.AddrPort, sockets int, beside bool, o Options) ([]*Socket, error) {
	var all []*Socket
	open := ListenFirst
	if beside {
		open = ListenBeside
	}
	for len(all) < sockets {
		conn, err := open(addr)
		if err == nil {
			var s *Socket
			if s, err = New(conn, o); err == nil {
				all = append(all, s)
			} else {
				_ = conn.Close()
			}
		}
		if err != nil {
			for _, s := range all {
				_ = s.Close()
			}
			return nil, err
		}
		if !CanShare {
			break
		}
		addr = netip.AddrPortFrom(addr.Addr(), all[0].local.Port())
		open = ListenBeside
	}
	return all, nil
}

// Read waits for datagrams and puts them in b. It returns how many there are.
// net.ErrClosed ends the reading; any other error concerns some datagram.
func (s *Socket) Read(b *Batch) (int, error) {
	if s.fast != nil {
		return s.fast.read(b)
	}
	n, from, err := s.conn.ReadFromUDPAddrPort(b.buffer(0))
	if err != nil {
		return 0, err
	}
	b.sizes[0], b.from[0] = n, unmapped(from)
	return 1, nil
}

// WriteToUDPAddrPort sends one datagram at once.
func (s *Socket) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	if s.fast != nil && s.fast.send(p, to) {
		return len(p), nil
	}
	return s.conn.WriteToUDPAddrPort(p, to)
}

// SetBuffers asks the kernel for receive and send buffers of so many bytes. It
// grants what it will.
func (s *Socket) SetBuffers(bytes int) {
	_ = s.conn.SetReadBuffer(bytes)
	_ = s.conn.SetWriteBuffer(bytes)
}

// Local is where the socket is bound.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Close ends every Read.
func (s *Socket) Close() error { return s.conn.Close() }

// A Batch is what one Read takes: datagrams and their sources.
type Batch struct {
	bufs  []byte
	sizes [Size]int
	from  [Size]netip.AddrPort
	fast  fastBatch
}

// slot is the room of one datagram: one byte more than the longest, to notice
// what was cut off.
const slot = MaxDatagram + 1

// NewBatch makes an empty Batch.
func NewBatch() *Batch {
	b := &Batch{bufs: make([]byte, Size*slot)}
	b.fast.init(b)
	return b
}

func (b *Batch) buffer(i int) []byte { return b.bufs[i*slot : (i+1)*slot] }

// Packet returns the i-th datagram of the last Read and where it came from. One
// longer than MaxDatagram was cut off. The slice may be written to, and is valid
// until the next Read.
func (b *Batch) Packet(i int) ([]byte, netip.AddrPort) {
	return b.bufs[i*slot : i*slot+b.sizes[i] : (i+1)*slot], b.from[i]
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
