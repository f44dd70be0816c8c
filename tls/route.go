package tls

import "encoding/binary"

// A kind is what the first bytes of a stream say it carries.
type kind uint8

const (
	kindUnknown kind = iota // nothing we serve
	kindTLS                 // a TLS record with a handshake
	kindSTUN                // a STUN message: a TURN client
	kindICE                 // a STUN message in an RFC 4571 frame: an ICE-TCP candidate
	kindHTTP                // a letter: an HTTP request line
	kindProxy               // a PROXY header, before one of the others
)

const (
	// headSize is how many bytes decide every stream: 2 of RFC 4571 length and
	// 8 of STUN header.
	headSize = 10

	// stunCookie is the magic cookie of RFC 8489 §5.
	stunCookie = 0x2112A442

	// stunHeader is the size of the smallest STUN message (RFC 8489 §5).
	stunHeader = 20
)

// classifyOuter tells what a TCP stream carries from its first bytes b. More is
// true while b is too short to tell; with headSize bytes it never is.
//
// It decides as early as it can, so that a client that sends one byte at a time
// and then waits for us is understood, and rubbish is not waited for.
func classifyOuter(b []byte) (k kind, more bool) {
	if len(b) == 0 {
		return kindUnknown, true
	}
	if k, more := classifyProxy(b); more || k == kindProxy {
		return k, more
	}
	switch {
	case isLetter(b[0]):
		return kindHTTP, false
	case b[0] == 0x16:
		return classifyRecord(b)
	default:
		return classifySTUN(b)
	}
}

// classifyInner does the same for the bytes inside TLS. There everything that
// is not STUN goes to the HTTP server, which knows how to refuse it.
func classifyInner(b []byte) (k kind, more bool) {
	if len(b) == 0 {
		return kindUnknown, true
	}
	k, more = classifySTUN(b)
	if more && !couldBeSTUN(b) || !more && k != kindSTUN {
		return kindHTTP, false
	}
	return k, more
}

// classifyRecord recognises a TLS handshake record: type 22, version 3.0 to 3.4
// (RFC 8446 §5.1 freezes it at 3.1 or 3.3). Three bytes must do, since a
// ClientHello of today spans two segments.
func classifyRecord(b []byte) (k kind, more bool) {
	if len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4 {
		return kindUnknown, false
	}
	if len(b) < 3 {
		return kindUnknown, true
	}
	return kindTLS, false
}

// classifySTUN recognises STUN, bare or in an RFC 4571 frame.
func classifySTUN(b []byte) (k kind, more bool) {
	bare, framed := couldBeSTUN(b), couldBeFramed(b)
	switch {
	case bare && len(b) >= 8:
		return kindSTUN, false
	case framed && len(b) >= headSize:
		return kindICE, false
	}
	return kindUnknown, bare || framed
}

// couldBeSTUN reports whether b may begin a STUN message: two zero bits, and
// the cookie at offset 4 as far as b reaches.
func couldBeSTUN(b []byte) bool {
	return len(b) > 0 && b[0]&0xC0 == 0 && cookiePrefix(b, 4)
}

// couldBeFramed reports whether b may begin a STUN message behind the two bytes
// of length that RFC 4571 puts in front.
func couldBeFramed(b []byte) bool {
	if len(b) >= 2 && binary.BigEndian.Uint16(b) < stunHeader {
		return false
	}
	return (len(b) < 3 || b[2]&0xC0 == 0) && cookiePrefix(b, 6)
}

// cookiePrefix reports whether the bytes of b from offset at on, if it reaches
// that far, begin the STUN cookie.
func cookiePrefix(b []byte, at int) bool {
	cookie := [4]byte{stunCookie >> 24, stunCookie >> 16 & 0xFF, stunCookie >> 8 & 0xFF, stunCookie & 0xFF}
	for i := at; i < min(len(b), at+len(cookie)); i++ {
		if b[i] != cookie[i-at] {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
