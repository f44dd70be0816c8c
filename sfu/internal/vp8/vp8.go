// Package vp8 reads and rewrites the VP8 payload descriptor (RFC 7741 §4.2) as
// far as a selective forwarder needs it: where key frames begin, and the picture
// numbers, which have to go on without a gap when one encoding takes the place of
// another.
//
//	 0 1 2 3 4 5 6 7
//	|X|R|N|S|R| PID |   S: start of a partition
//	|I|L|T|K| RSV   |   if X
//	|M| PictureID   |   if I; two bytes if M
//	|   TL0PICIDX   |   if L
//	|TID|Y| KEYIDX  |   if T or K
//	|      VP8 …    |   first bit of the frame header: 0 = key frame
package vp8

// A Descriptor is what the descriptor of one packet says.
type Descriptor struct {
	Start    bool   // the packet begins a frame
	KeyFrame bool   // that is a key frame
	Picture  uint16 // 7 or 15 bits; 0 if there is none
	Base     uint8  // TL0PICIDX; 0 if there is none

	picture, base int // where they are; 0 = nowhere
	wide          bool
}

// Parse reads the descriptor of a packet. ok is false if it is cut short.
func Parse(p []byte) (d Descriptor, ok bool) {
	if len(p) < 1 {
		return d, false
	}
	d.Start = p[0]&0x10 != 0 && p[0]&0x07 == 0
	at := 1
	if p[0]&0x80 != 0 {
		if len(p) < 2 {
			return d, false
		}
		flags := p[1]
		at = 2
		if flags&0x80 != 0 {
			if len(p) < at+2 {
				return d, false
			}
			d.picture, d.wide = at, p[at]&0x80 != 0
			d.Picture = uint16(p[at] & 0x7F)
			at++
			if d.wide {
				d.Picture = d.Picture<<8 | uint16(p[at])
				at++
			}
		}
		if flags&0x40 != 0 {
			if len(p) < at+1 {
				return d, false
			}
			d.base, d.Base = at, p[at]
			at++
		}
		if flags&0x30 != 0 {
			at++
		}
	}
	if len(p) <= at {
		return d, false
	}
	d.KeyFrame = d.Start && p[at]&0x01 == 0
	return d, true
}

// Rewrite puts other numbers into p, which d has been parsed from, as far as it
// has any. Numbers that do not fit are cut to the width p has.
func (d Descriptor) Rewrite(p []byte, picture uint16, base uint8) {
	switch {
	case d.picture == 0:
	case d.wide:
		p[d.picture], p[d.picture+1] = 0x80|byte(picture>>8), byte(picture)
	default:
		p[d.picture] = byte(picture) & 0x7F
	}
	if d.base != 0 {
		p[d.base] = base
	}
}
