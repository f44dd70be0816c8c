package dtlskeys

import "encoding/binary"

const (
	recordHeader    = 13
	handshakeHeader = 12

	typeHandshake   = 22 // content type (RFC 6347 §4.1)
	typeServerHello = 2  // handshake type

	extUseSRTP = 14 // RFC 5764 §4.1.1
)

// A hello is what matters of a ServerHello.
type hello struct {
	random  [32]byte
	suite   uint16
	profile uint16 // 0 = none
}

// hellos are those that have passed in one direction.
type hellos struct {
	count     int
	first     hello
	different bool
}

// read looks for ServerHellos in a datagram: there may be several records in it,
// and several messages in a record. One that is fragmented does not count; it is
// the first of its flight and small, so nobody has a reason to.
func (h *hellos) read(p []byte) {
	for len(p) >= recordHeader {
		n := int(binary.BigEndian.Uint16(p[11:]))
		if len(p) < recordHeader+n {
			return
		}
		record := p[recordHeader : recordHeader+n]
		if p[0] == typeHandshake && p[1] == 0xFE && binary.BigEndian.Uint16(p[3:]) == 0 { // epoch 0 is not encrypted
			h.messages(record)
		}
		p = p[recordHeader+n:]
	}
}

func (h *hellos) messages(p []byte) {
	for len(p) >= handshakeHeader {
		whole, from, n := uint24(p[1:]), uint24(p[6:]), uint24(p[9:])
		if len(p) < handshakeHeader+n {
			return
		}
		if p[0] == typeServerHello && from == 0 && n == whole {
			if x, ok := parse(p[handshakeHeader : handshakeHeader+n]); ok {
				h.add(x)
			}
		}
		p = p[handshakeHeader+n:]
	}
}

// add notes one. The same again is a retransmission.
func (h *hellos) add(x hello) {
	if h.count == 0 {
		h.first = x
	}
	h.count = 1
	h.different = h.different || x != h.first
}

func uint24(p []byte) int { return int(p[0])<<16 | int(p[1])<<8 | int(p[2]) }

// parse reads the body of a ServerHello (RFC 5246 §7.4.1.3).
func parse(p []byte) (x hello, ok bool) {
	const fixed = 2 + 32 + 1 // version, random, length of the session ID
	if len(p) < fixed || p[0] != 0xFE {
		return x, false
	}
	copy(x.random[:], p[2:])
	session := int(p[34])
	p = p[fixed:]
	if len(p) < session+3 {
		return x, false
	}
	x.suite = binary.BigEndian.Uint16(p[session:])
	p = p[session+3:]
	if len(p) == 0 {
		return x, true
	}
	if len(p) < 2 || len(p) != 2+int(binary.BigEndian.Uint16(p)) {
		return x, false
	}
	for p = p[2:]; len(p) > 0; {
		if len(p) < 4 {
			return x, false
		}
		kind, n := binary.BigEndian.Uint16(p), int(binary.BigEndian.Uint16(p[2:]))
		if len(p) < 4+n {
			return x, false
		}
		if kind == extUseSRTP {
			if x.profile, ok = useSRTP(p[4 : 4+n]); !ok {
				return x, false
			}
		}
		p = p[4+n:]
	}
	return x, true
}

// useSRTP reads the extension: one profile and no MKI, as we offer none.
func useSRTP(p []byte) (profile uint16, ok bool) {
	if len(p) != 5 || binary.BigEndian.Uint16(p) != 2 || p[4] != 0 {
		return 0, false
	}
	profile = binary.BigEndian.Uint16(p[2:])
	return profile, profile != 0
}
