// Package rtpheader reads and writes RTP headers (RFC 3550 §5.1) and their
// extensions (RFC 8285) without allocating.
package rtpheader

import "encoding/binary"

// The profiles of a header extension (RFC 8285 §4.2 and §4.3).
const (
	oneByte = 0xBEDE
	twoByte = 0x1000 // the last four bits are anything
)

// A Packet is an RTP packet, or a view of one: Payload and the extension are parts
// of what was parsed.
type Packet struct {
	Marker  bool
	Type    uint8 // payload type
	Seq     uint16
	Time    uint32 // timestamp
	SSRC    uint32
	Payload []byte // without padding

	profile   uint16
	extension []byte
}

// Parse reads a packet. ok is false if it is none, or cut short.
func Parse(p []byte) (x Packet, ok bool) {
	if len(p) < 12 || p[0]>>6 != 2 {
		return x, false
	}
	x = Packet{
		Marker: p[1]&0x80 != 0,
		Type:   p[1] & 0x7F,
		Seq:    binary.BigEndian.Uint16(p[2:]),
		Time:   binary.BigEndian.Uint32(p[4:]),
		SSRC:   binary.BigEndian.Uint32(p[8:]),
	}
	at := 12 + 4*int(p[0]&0x0F)
	if p[0]&0x10 != 0 {
		if len(p) < at+4 {
			return x, false
		}
		n := 4 * int(binary.BigEndian.Uint16(p[at+2:]))
		if len(p) < at+4+n {
			return x, false
		}
		x.profile, x.extension = binary.BigEndian.Uint16(p[at:]), p[at+4:at+4+n]
		at += 4 + n
	}
	end := len(p)
	if end < at {
		return x, false
	}
	if p[0]&0x20 != 0 {
		if end == at || int(p[end-1]) > end-at || p[end-1] == 0 {
			return x, false
		}
		end -= int(p[end-1])
	}
	x.Payload = p[at:end]
	return x, true
}

// Extension returns the value of a header extension, a part of the packet, and nil
// if there is none. An ID of 0 is none.
func (x *Packet) Extension(id uint8) []byte {
	if id == 0 {
		return nil
	}
	switch {
	case x.profile == oneByte:
		return x.oneByte(id)
	case x.profile&0xFFF0 == twoByte:
		return x.twoByte(id)
	}
	return nil
}

func (x *Packet) oneByte(id uint8) []byte {
	for e := x.extension; len(e) > 0; {
		if e[0] == 0 { // padding
			e = e[1:]
			continue
		}
		this, n := e[0]>>4, int(e[0]&0x0F)+1
		if this == 15 || len(e) < 1+n { // 15 ends the list (RFC 8285 §4.2)
			return nil
		}
		if this == id {
			return e[1 : 1+n]
		}
		e = e[1+n:]
	}
	return nil
}

func (x *Packet) twoByte(id uint8) []byte {
	for e := x.extension; len(e) > 0; {
		if e[0] == 0 {
			e = e[1:]
			continue
		}
		if len(e) < 2 || len(e) < 2+int(e[1]) {
			return nil
		}
		if e[0] == id {
			return e[2 : 2+int(e[1])]
		}
		e = e[2+int(e[1]):]
	}
	return nil
}

// A Header is what is written before a payload.
type Header struct {
	Marker  bool
	Padding bool // the payload ends in padding
	Type    uint8
	Seq     uint16
	Time    uint32
	SSRC    uint32

	LevelID  uint8 // of the audio level (RFC 6464), 1 to 14; 0 = leave out
	Level    uint8
	NumberID uint8 // of the transport-wide sequence number, 1 to 14; 0 = leave out
	Number   uint16
}

// Length is how many bytes Append appends.
func (h *Header) Length() int {
	n := 0
	if h.LevelID != 0 {
		n += 2
	}
	if h.NumberID != 0 {
		n += 3
	}
	if n == 0 {
		return 12
	}
	return 12 + 4 + (n+3)&^3
}

// Append appends the header to dst.
func (h *Header) Append(dst []byte) []byte {
	first, second := byte(0x80), h.Type&0x7F
	if h.Padding {
		first |= 0x20
	}
	if h.LevelID|h.NumberID != 0 {
		first |= 0x10
	}
	if h.Marker {
		second |= 0x80
	}
	dst = append(dst, first, second)
	dst = binary.BigEndian.AppendUint16(dst, h.Seq)
	dst = binary.BigEndian.AppendUint32(dst, h.Time)
	dst = binary.BigEndian.AppendUint32(dst, h.SSRC)
	if first&0x10 == 0 {
		return dst
	}
	at := len(dst)
	dst = append(dst, oneByte>>8, oneByte&0xFF, 0, 0)
	if h.LevelID != 0 {
		dst = append(dst, h.LevelID<<4, h.Level)
	}
	if h.NumberID != 0 {
		dst = append(dst, h.NumberID<<4|1, byte(h.Number>>8), byte(h.Number))
	}
	for (len(dst)-at)%4 != 0 {
		dst = append(dst, 0)
	}
	dst[at+3] = byte((len(dst) - at - 4) / 4)
	return dst
}
