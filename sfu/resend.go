package sfu

import (
	"slices"
	"sync"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// resendLength is how many packets of a stream can be sent again, a power of two:
// two seconds of a screen share.
const resendLength = 512

// resends makes the interceptor that sends packets again when a receiver says
// that they are missing (NACK, RFC 4585 §6.2.1). pion's takes a packet that comes
// late, because it was lost on its way to us, for the newest, and forgets those
// between.
type resends struct{}

// NewInterceptor implements interceptor.Factory: one for each connection.
func (resends) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &resender{streams: map[uint32]*resendStream{}}, nil
}

type resender struct {
	interceptor.NoOp

	mu      sync.Mutex               // guards the following
	streams map[uint32]*resendStream // by SSRC
}

// A resendStream keeps copies of the last packets of one outgoing stream.
type resendStream struct {
	next interceptor.RTPWriter

	mu   sync.Mutex // guards the following
	ring []kept     // by sequence number; takes its memory with the first packet
}

type kept struct {
	header  rtp.Header
	payload []byte
}

// BindLocalStream implements interceptor.Interceptor.
func (r *resender) BindLocalStream(info *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	if !slices.Contains(info.RTCPFeedback, interceptor.RTCPFeedback{Type: "nack"}) {
		return next
	}
	s := &resendStream{next: next}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams[info.SSRC] = s
	return s
}

// UnbindLocalStream implements interceptor.Interceptor.
func (r *resender) UnbindLocalStream(info *interceptor.StreamInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, info.SSRC)
}

// BindRTCPReader implements interceptor.Interceptor: it looks for NACKs.
func (r *resender) BindRTCPReader(next interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := next.Read(b, a)
		if err != nil {
			return n, a, err
		}
		if a == nil {
			a = interceptor.Attributes{}
		}
		packets, err := a.GetRTCPPackets(b[:n])
		if err != nil {
			return n, a, err
		}
		for _, p := range packets {
			if nack, ok := p.(*rtcp.TransportLayerNack); ok {
				r.answer(nack)
			}
		}
		return n, a, nil
	})
}

func (r *resender) answer(nack *rtcp.TransportLayerNack) {
	r.mu.Lock()
	s := r.streams[nack.MediaSSRC]
	r.mu.Unlock()
	if s == nil {
		return
	}
	buf := make([]byte, 0, maxDatagram)
	for i := range nack.Nacks {
		nack.Nacks[i].Range(func(seq uint16) bool {
			header, payload, ok := s.find(seq, buf)
			if ok {
				_, _ = s.next.Write(&header, payload, interceptor.Attributes{}) // the next NACK tells
			}
			return true
		})
	}
}

// Write implements interceptor.RTPWriter: it keeps a copy of the packet.
func (s *resendStream) Write(header *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
	s.mu.Lock()
	if s.ring == nil {
		s.ring = make([]kept, resendLength)
	}
	k := &s.ring[header.SequenceNumber%resendLength]
	k.header = header.Clone()
	k.payload = append(k.payload[:0], payload...)
	s.mu.Unlock()
	return s.next.Write(header, payload, a)
}

// find returns a packet that was sent, its payload in buf.
func (s *resendStream) find(seq uint16, buf []byte) (rtp.Header, []byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring == nil {
		return rtp.Header{}, nil, false
	}
	k := &s.ring[seq%resendLength]
	if k.header.SequenceNumber != seq || k.payload == nil {
		return rtp.Header{}, nil, false
	}
	return k.header, append(buf[:0], k.payload...), true
}
