package gateway

import "encoding/binary"

// frames follows the frame headers of one direction of a WebSocket (RFC 6455
// section 5.2) without looking at payloads: its zero value is between frames.
type frames struct {
	header [14]byte
	have   int    // bytes of header seen
	left   uint64 // bytes of payload to come
	closed bool   // a Close frame has begun, which is the last of its direction
}

const closeOpcode = 8

func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if size, payload := f.parse(); f.have >= 2 && f.have == size {
			f.have, f.left = 0, payload
			f.closed = f.closed || f.header[0]&0x0f == closeOpcode
		}
	}
}

// parse returns the header's length and, once all of it is there, the payload's.
func (f *frames) parse() (size int, payload uint64) {
	size, payload = 2, uint64(f.header[1]&0x7f)
	switch payload {
	case 126:
		size, payload = 4, uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		size, payload = 10, binary.BigEndian.Uint64(f.header[2:])
	}
	if f.header[1]&0x80 != 0 {
		size += 4 // masking key
	}
	return size, payload
}
