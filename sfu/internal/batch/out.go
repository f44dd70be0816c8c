package batch

import (
	"errors"
	"net"
	"net/netip"
)

const (
	outBytes    = 64 << 10 // of datagrams that wait for a Flush
	outMessages = 64
	// The kernel cuts a message into 64 datagrams at most (UDP_MAX_SEGMENTS),
	// and it must fit into one of IP.
	maxSegments = 64
	maxMessage  = 65000
)

// A Loss says why datagrams were not sent.
type Loss int

// The reasons.
const (
	LossFull    Loss = iota // the kernel's buffer stayed full
	LossRefused             // the kernel would not send it, for want of a route perhaps
	LossClosed              // the socket is closed
)

// An Out collects datagrams for one socket. It belongs to one goroutine.
type Out struct {
	socket *Socket
	lost   func(why Loss, n int)

	buf   []byte
	used  int
	msgs  [outMessages]message
	count int
	fast  fastOut
}

// A message is one datagram, or several of one size to one destination of which
// the last may be shorter.
type message struct {
	to         netip.AddrPort
	start, end int // in buf
	segment    int // bytes of each datagram but the last
	segments   int
}

// NewOut makes an empty Out. lost is told of datagrams that could not be sent;
// it may be nil.
func NewOut(s *Socket, lost func(why Loss, n int)) *Out {
	o := &Out{socket: s, lost: lost, buf: make([]byte, outBytes)}
	o.fast.init()
	return o
}

// Reserve returns room for a datagram of up to n bytes, at most MaxDatagram. It
// may flush, and is to be followed by Commit or by nothing.
func (o *Out) Reserve(n int) []byte {
	if n > len(o.buf)-o.used || o.count == len(o.msgs) {
		o.Flush()
	}
	return o.buf[o.used : o.used+n : o.used+n]
}

// Commit makes the first n bytes of what Reserve has returned a datagram to an
// address. 0 makes none.
func (o *Out) Commit(to netip.AddrPort, n int) {
	if n == 0 {
		return
	}
	start := o.used
	o.used += n
	if o.count > 0 && o.socket.segments() {
		if m := &o.msgs[o.count-1]; m.takes(to, n) {
			m.end = o.used
			m.segments++
			return
		}
	}
	o.msgs[o.count] = message{to: to, start: start, end: o.used, segment: n, segments: 1}
	o.count++
}

// takes reports whether a datagram can be a further segment.
func (m *message) takes(to netip.AddrPort, n int) bool {
	size := m.end - m.start
	return m.to == to && n <= m.segment && size == m.segments*m.segment && // none was shorter
		m.segments < maxSegments && size+n <= maxMessage
}

// Empty reports whether there is nothing to flush.
func (o *Out) Empty() bool { return o.count == 0 }

// Flush sends what has been committed, in order. It waits a few milliseconds at
// most while the kernel's buffer is full, then it loses the rest: late media is
// worth nothing. A datagram that the kernel refuses concerns no other.
func (o *Out) Flush() {
	if o.count == 0 {
		return
	}
	if o.socket.fast != nil {
		o.fast.flush(o)
	} else {
		o.flushPortable()
	}
	o.count, o.used = 0, 0
}

func (o *Out) flushPortable() {
	for _, m := range o.msgs[:o.count] {
		for at := m.start; at < m.end; at += m.segment {
			_, err := o.socket.conn.WriteToUDPAddrPort(o.buf[at:min(at+m.segment, m.end)], m.to)
			switch {
			case errors.Is(err, net.ErrClosed):
				o.lose(LossClosed, 1)
			case err != nil:
				o.lose(LossRefused, 1)
			}
		}
	}
}

func (o *Out) lose(why Loss, n int) {
	if o.lost != nil && n > 0 {
		o.lost(why, n)
	}
}

// segments reports whether datagrams may be sent as segments of one message.
func (s *Socket) segments() bool { return s.fast != nil && s.fast.segments.Load() }
