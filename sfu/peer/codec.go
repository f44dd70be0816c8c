package peer

import (
	"encoding/binary"
	"fmt"

	"github.com/pion/webrtc/v3"
)

// audioFrame is 20 ms of a 400 Hz tone in Opus: one CELT wideband frame coded
// without prediction, so that playing it over and over is a steady tone. It is
// packed as a frame of code 3 with padding (RFC 6716 section 3.2.5), and the
// padding, which decoders skip, is the stamp.
func audioFrame() []byte {
	const tone = "\x65\x15\x1a\xc4\x4d\xf4\x88\xaa\x01\x47\xb8\xfb\xdd\x05\x3b\x45\x53\x94\xd9\xab" +
		"\xf9\x4e\x88\xf1\x7e\x00\x07\x4d\x2b\x19\xba\x13\x80\x9d\x92\xb3\x3b\x00\x92\xfe" +
		"\xf3\xb5\x6f\xe9\x69\x33\xa2\xb1\xb9\xad\xf6\x27\xa1\x89\x0b\x69\xff\xb4\x53"
	frame := append([]byte{0xbb, 0x41, stampSize}, tone...)
	return append(frame, make([]byte, stampSize)...)
}

// vp8KeyFrame is a whole key frame of one pixel. Decoders ignore what follows
// it in the same frame.
const vp8KeyFrame = "\x30\x01\x00\x9d\x01\x2a\x01\x00\x01\x00\x0e\xc0\xfe\x25\xa4\x00\x03\x70\x00\x00\x00\x00"

// A videoPart says where in the video a packet stands.
type videoPart struct {
	key     bool   // of a key frame
	first   bool   // first packet of its frame
	picture uint16 // counts frames
}

// putVideo writes what a forwarder may look at to the head of a payload of the
// given codec. The rest is filler: frames other than key frames have the right
// shape but show nothing, as no picture is ever coded.
func putVideo(mime string, payload []byte, part videoPart) {
	if mime == webrtc.MimeTypeAV1 {
		putAV1(payload, part)
		return
	}
	// RFC 7741 section 4.2: X, S at the first packet; I; 15 bits of picture ID.
	payload[0] = 0x80
	if part.first {
		payload[0] |= 0x10
	}
	payload[1] = 0x80
	binary.BigEndian.PutUint16(payload[2:], 0x8000|part.picture)
	switch {
	case part.first && part.key:
		copy(payload[4:], vp8KeyFrame)
	case part.first:
		payload[4] = 0x11 // not a key frame, shown
	}
}

// putAV1 writes the aggregation header of one OBU element: it starts a coded
// video sequence (N), continues the OBU before (Z) or is continued (Y).
func putAV1(payload []byte, part videoPart) {
	payload[0] = 0x10
	if part.first && part.key {
		payload[0] |= 0x08
	}
	if !part.first {
		payload[0] |= 0x80
	}
}

// isKeyFrame reports whether an RTP payload begins a key frame.
func isKeyFrame(mime string, payload []byte) bool {
	if mime == webrtc.MimeTypeAV1 {
		return len(payload) > 0 && payload[0]&0x88 == 0x08
	}
	if len(payload) < 2 || payload[0]&0x10 == 0 {
		return false
	}
	head := 1
	if payload[0]&0x80 != 0 {
		head += vp8Extension(payload[1:])
	}
	return len(payload) > head && payload[head]&0x01 == 0
}

// vp8Extension returns the length of the extended part of a VP8 payload
// descriptor that begins with b.
func vp8Extension(b []byte) int {
	n := 1
	if b[0]&0x80 != 0 { // picture ID, of one byte or two
		n++
		if len(b) > 1 && b[1]&0x80 != 0 {
			n++
		}
	}
	if b[0]&0x40 != 0 { // level
		n++
	}
	if b[0]&0x30 != 0 { // temporal layer, key index
		n++
	}
	return n
}

// payloadOf returns where the payload of an RTP packet begins (RFC 3550
// section 5.1), without parsing the extensions, which this package never needs.
func payloadOf(packet []byte) (int, error) {
	if len(packet) < 12 || packet[0]>>6 != 2 {
		return 0, fmt.Errorf("parse RTP packet of %d bytes: no header", len(packet))
	}
	n := 12 + 4*int(packet[0]&0x0f)
	if packet[0]&0x10 != 0 {
		if len(packet) < n+4 {
			return 0, fmt.Errorf("parse RTP packet of %d bytes: cut extension", len(packet))
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(packet[n+2:]))
	}
	if n > len(packet) {
		return 0, fmt.Errorf("parse RTP packet of %d bytes: cut header", len(packet))
	}
	return n, nil
}
