package peer

import (
	"encoding/binary"
	"net"
)

// A bulkStream is the connection to a TURN server of a peer with a Bulk. Like the
// Bulk's sockets it takes out what is counted; the reader gets the rest, in whole
// messages.
type bulkStream struct {
	net.Conn
	tally *tally

	// The reader's alone:
	buf  []byte // what was read, from the start of a message
	pass int    // bytes of buf that are for the reader
}

// streamBuffer is how much is read at once.
const streamBuffer = 64 << 10

// counted makes d's connections count.
func (d dialer) counted(t *tally) dialer {
	return func(network, address string) (net.Conn, error) {
		c, err := d(network, address)
		if err != nil {
			return nil, err
		}
		return &bulkStream{Conn: c, tally: t, buf: make([]byte, 0, streamBuffer)}, nil
	}
}

// Read implements net.Conn.
func (s *bulkStream) Read(p []byte) (int, error) {
	for s.pass == 0 {
		n, err := s.Conn.Read(s.buf[len(s.buf):cap(s.buf)])
		if err != nil {
			return 0, err
		}
		s.buf = s.buf[:len(s.buf)+n]
		s.sort()
	}
	n := copy(p, s.buf[:s.pass])
	s.pass -= n
	s.buf = append(s.buf[:0], s.buf[n:]...)
	return n, nil
}

// sort leaves in buf what is not counted.
func (s *bulkStream) sort() {
	kept, rest := 0, s.buf
	for n := messageLength(rest); n > 0 && n <= len(rest); n = messageLength(rest) {
		if !s.tally.count(rest[:n]) {
			kept += copy(s.buf[kept:], rest[:n])
		}
		rest = rest[n:]
	}
	s.buf = s.buf[:kept+copy(s.buf[kept:], rest)]
	s.pass = kept
}

// messageLength returns how long the message is that b begins with, on a stream
// (RFC 8656 section 12.5); 0 if b does not tell yet.
func messageLength(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>6 == 1 {
		return 4 + (n+3)&^3
	}
	return 20 + n
}
