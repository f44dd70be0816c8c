package reports

import "time"

// ntpEpoch is 1900 as seconds before 1970 (RFC 3550 §4).
const ntpEpoch = 2_208_988_800

// NTP makes a 64-bit NTP timestamp of a time.
func NTP(t time.Time) uint64 {
	s := uint64(t.Unix() + ntpEpoch)
	return s<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// ntpTime is the inverse of NTP. What sender reports say may be any number.
func ntpTime(ntp uint64) time.Time {
	return time.Unix(int64(ntp>>32)-ntpEpoch, int64(ntp&0xFFFFFFFF*uint64(time.Second)>>32))
}

// clockSpan is how long the least delay of a report is taken for the difference
// of two clocks; then what came since is taken.
const clockSpan = 60 * time.Second

// A Clock is a participant's NTP clock beside ours. One Clock serves all streams
// of the participant, so that what was captured together stays together. The zero
// Clock knows nothing.
type Clock struct {
	begun  bool
	offset [2]time.Duration // least (our time - its time) of this span and of the last
	span   time.Time
}

// Heard notes that a report with that time arrived.
func (c *Clock) Heard(ntp uint64, now time.Time) {
	d := now.Sub(ntpTime(ntp))
	switch {
	case !c.begun:
		c.begun, c.span, c.offset = true, now, [2]time.Duration{d, d}
	case now.Sub(c.span) >= clockSpan:
		c.span, c.offset = now, [2]time.Duration{d, c.offset[0]}
	}
	c.offset[0] = min(c.offset[0], d)
}

// local is the time of the participant's clock in ours.
func (c *Clock) local(ntp uint64) time.Time {
	return ntpTime(ntp).Add(min(c.offset[0], c.offset[1]))
}

// A Timeline tells which timestamp of one stream is now. Rate is its clock rate in
// Hz and has to be set.
type Timeline struct {
	Rate int

	reported bool
	ntp      uint64 // of the last sender report
	rtp      uint32

	begun bool
	last  uint32 // timestamp of the newest packet
	at    time.Time
}

// Push notes a packet that is newer than all before.
func (l *Timeline) Push(timestamp uint32, now time.Time) {
	l.begun, l.last, l.at = true, timestamp, now
}

// Reported notes a sender report of the stream. The Clock has to hear of it too.
func (l *Timeline) Reported(ntp uint64, rtp uint32) { l.reported, l.ntp, l.rtp = true, ntp, rtp }

// Now returns the timestamp of now: by the last sender report, or without any by
// the newest packet. ok is false before there was one.
func (l *Timeline) Now(c *Clock, now time.Time) (timestamp uint32, ok bool) {
	if !l.begun {
		return 0, false
	}
	by := l.last + l.units(now.Sub(l.at))
	if !l.reported || !c.begun {
		return by, true
	}
	said := l.rtp + l.units(now.Sub(c.local(l.ntp)))
	if off := int32(said - by); off < -int32(10*l.Rate) || off > int32(10*l.Rate) {
		return by, true // a report that makes no sense
	}
	return said, true
}

func (l *Timeline) units(d time.Duration) uint32 {
	return uint32(int64(d.Seconds() * float64(l.Rate)))
}
