package sfu

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
)

const (
	// repairShare is how much may be spent on retransmissions, as a share of what
	// is sent: more only feeds the queue that lost the packets. repairMost is how
	// many bytes of that can be saved up, repairFirst what a stream begins with.
	repairShare = 5 // a fifth
	repairMost  = 48 << 10
	repairFirst = 16 << 10
)

// A stampedStream numbers the packets of one stream for the whole transport. It
// sits below the NACK buffer, so a retransmission has a number of its own, and
// there can be too many of them.
type stampedStream struct {
	congestion *congestion
	next       interceptor.RTPWriter
	id         uint8 // of the header extension

	mu     sync.Mutex // guards the following; the first three are reused for every packet
	header rtp.Header
	ext    []rtp.Extension
	number [2]byte

	begun   bool
	newest  uint16 // highest sequence number sent
	floor   uint16 // nothing before is sent again
	floored bool
	repair  int // bytes left for retransmissions
}

// Write implements interceptor.RTPWriter. It leaves header as it is: the NACK
// buffer keeps it.
func (s *stampedStream) Write(header *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := header.MarshalSize() + len(payload)
	if !s.allow(header.SequenceNumber, size) {
		return size, nil
	}
	s.ext = append(s.ext[:0], header.Extensions...)
	s.header = *header
	s.header.Extensions = s.ext
	c := s.congestion
	c.mu.Lock()
	binary.BigEndian.PutUint16(s.number[:], c.path.Send(time.Now(), size))
	c.mu.Unlock()
	if err := s.header.SetExtension(s.id, s.number[:]); err != nil {
		return 0, fmt.Errorf("set transport-wide sequence number: %w", err)
	}
	s.ext = s.header.Extensions
	return s.next.Write(&s.header, payload, a)
}

// allow reports whether a packet may go out. What is not newer than all before is
// a retransmission. It needs mu.
func (s *stampedStream) allow(seq uint16, size int) bool {
	if !s.begun {
		s.begun, s.newest, s.repair = true, seq-1, repairFirst
	}
	if int16(seq-s.newest) > 0 {
		s.newest = seq
		s.repair = min(s.repair+size/repairShare, repairMost)
		s.floored = s.floored && s.newest-s.floor < 1<<14 // before the numbers wrap
		return true
	}
	if s.floored && int16(seq-s.floor) < 0 || s.repair < size {
		return false
	}
	s.repair -= size
	return true
}

// flush gives up what was sent before the next packet.
func (s *stampedStream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floored, s.floor = s.begun, s.newest+1
	s.repair = repairMost // the key frame that follows must not want for it
}
