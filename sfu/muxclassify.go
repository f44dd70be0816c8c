package sfu

import (
	"bytes"
	"encoding/binary"

	"github.com/pion/stun"
	"github.com/prometheus/client_golang/prometheus"
)

// A datagramKind says what a datagram is by its first bytes, and so whose it is
// on a port that the SFU shares with a TURN server.
type datagramKind uint8

// The kinds, with the first byte of each (RFC 9443 §3, which amends RFC 7983).
const (
	kindUnknown datagramKind = iota // nothing of anybody's
	kindCheck                       // 0..3: STUN Binding request: of a session, if it names its ufrag, else TURN's
	kindAnswer                      // 0..3: STUN Binding response or indication: the SFU's, by the remote address
	kindTURN                        // 0..3: any other STUN message; 64..127: ChannelData
	kindMedia                       // 20..63: DTLS; 128..191: RTP, RTCP: the SFU's, by the remote address
	kindQUIC                        // 192..255: long header; nobody takes it yet
)

// kindNames are the kinds as metrics call them.
var kindNames = [...]string{
	kindUnknown: "unknown", kindCheck: "check", kindAnswer: "answer", kindTURN: "turn", kindMedia: "media", kindQUIC: "quic",
}

// kindCounters count the datagrams of the shared port; without any, nobody does.
type kindCounters []prometheus.Counter

// classify tells the kind of a datagram. It reads at most the first bytes and
// allocates nothing.
//
// RFC 9443 leaves 64..79 to TURN channels and gives 80..127 to QUIC. Clients of
// RFC 5766 use channels up to 0x7FFE, so all of it is TURN's, which knows its
// channels and drops the rest. A QUIC server would have to be asked first, by
// its connections' addresses.
func classify(p []byte) datagramKind {
	if len(p) < 4 {
		return kindUnknown
	}
	switch b := p[0]; {
	case b < 4:
		return classifySTUN(p)
	case b < 20: // unassigned, and ZRTP
		return kindUnknown
	case b < 64:
		return kindMedia
	case b < 128:
		return kindTURN
	case b < 192:
		return kindMedia
	default:
		return kindQUIC
	}
}

// classifySTUN wants the whole message (RFC 8489 §5): its magic cookie, and a
// length that is the datagram's.
func classifySTUN(p []byte) datagramKind {
	const (
		methods = 0x3EEF // the bits of the method in the message type
		binding = 0x0001
	)
	if len(p) < stunHeader || binary.BigEndian.Uint32(p[4:]) != stunCookie {
		return kindUnknown
	}
	if size := int(binary.BigEndian.Uint16(p[2:])); size%4 != 0 || size != len(p)-stunHeader {
		return kindUnknown
	}
	switch t := binary.BigEndian.Uint16(p); {
	case t&methods != binding:
		return kindTURN
	case t == typeRequest:
		return kindCheck
	default:
		return kindAnswer
	}
}

// requestUfrag returns the local ufrag a STUN Binding request is meant for: what
// stands before the colon of its USERNAME (RFC 8445 §7.2.2). It reads at most
// the datagram and allocates nothing.
func requestUfrag(p []byte) ([]byte, bool) {
	const header = 20
	if len(p) < header || binary.BigEndian.Uint16(p) != 0x0001 || binary.BigEndian.Uint32(p[4:]) != 0x2112A442 {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size > len(p)-header {
		return nil, false
	}
	for rest := p[header : header+size]; len(rest) >= 4; {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if n > len(rest) {
			return nil, false
		}
		if kind == uint16(stun.AttrUsername) {
			if ufrag, _, ok := bytes.Cut(rest[:n], []byte(":")); ok && len(ufrag) > 0 {
				return ufrag, true
			}
			return nil, false
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return nil, false
}
