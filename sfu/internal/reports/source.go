// Package reports keeps the accounts that RTCP is made of: of what arrives (Source,
// Losses, Arrivals) and of how the timestamps of what is sent belong together
// (Clock, Timeline). It is pure: time is an argument, and nothing is sent.
//
//	packets in ──> Source   ──> receiver report       (RFC 3550 §6.4)
//	           ──> Losses   ──> NACK                  (RFC 4585 §6.2.1)
//	           ──> Arrivals ──> transport-cc feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01)
//	sender reports in ──> Clock, Timeline ──> sender reports out
//
// Nothing of it is safe for concurrent use.
package reports

import (
	"time"

	"github.com/pion/rtcp"
)

// A Source is the account of one incoming SSRC. Rate is the clock rate of its
// timestamps in Hz and has to be set.
type Source struct {
	Rate int

	begun    bool
	first    uint32 // extended sequence numbers (RFC 3550 §A.1)
	highest  uint32
	received uint32 // packets, each counted once

	expectedBefore, receivedBefore uint32 // at the last report

	start   time.Time
	transit int32  // of the last packet, in timestamp units
	jitter  uint32 // times 16

	reportNTP uint32 // middle of the NTP time of the last sender report
	reportAt  time.Time
}

// Push counts a packet. A packet must not be counted twice.
func (s *Source) Push(seq uint16, timestamp uint32, now time.Time) {
	if !s.begun {
		s.begun, s.start = true, now
		s.first, s.highest = 1<<16|uint32(seq), 1<<16|uint32(seq) // room for what comes late
		s.received = 1
		s.transit = -int32(timestamp)
		return
	}
	s.received++
	at := s.highest + uint32(int32(int16(seq-uint16(s.highest))))
	s.highest, s.first = max(s.highest, at), min(s.first, at)

	transit := int32(uint32(int64(now.Sub(s.start))*int64(s.Rate)/int64(time.Second))) - int32(timestamp)
	d := transit - s.transit
	s.transit = transit
	if d < 0 {
		d = -d
	}
	s.jitter += uint32(d) - (s.jitter+8)>>4 // RFC 3550 §A.8
}

// Reported notes a sender report of the source.
func (s *Source) Reported(ntp uint64, now time.Time) {
	s.reportNTP, s.reportAt = uint32(ntp>>16), now
}

// Begun reports whether a packet has been counted.
func (s *Source) Begun() bool { return s.begun }

// Report makes a reception report (RFC 3550 §6.4.1) of what came since the last
// one. Its SSRC is left to the caller.
func (s *Source) Report(now time.Time) rtcp.ReceptionReport {
	expected := s.highest - s.first + 1
	lost := int64(expected) - int64(s.received)
	expectedNow, receivedNow := expected-s.expectedBefore, s.received-s.receivedBefore
	s.expectedBefore, s.receivedBefore = expected, s.received
	r := rtcp.ReceptionReport{
		TotalLost:          uint32(min(max(lost, 0), 0x7FFFFF)),
		LastSequenceNumber: s.highest - 1<<16,
		Jitter:             s.jitter >> 4,
		LastSenderReport:   s.reportNTP,
	}
	if missing := int64(expectedNow) - int64(receivedNow); missing > 0 && expectedNow > 0 {
		r.FractionLost = uint8(min(missing*256/int64(expectedNow), 255))
	}
	if !s.reportAt.IsZero() {
		r.Delay = uint32(now.Sub(s.reportAt).Seconds() * 65536)
	}
	return r
}
