package gateway

import "math"

// A framing follows the messages of an HTTP/1 connection, as bytes of the client
// pass, and stops at the first one that two parsers could understand differently
// (RFC 9112 section 11.2): from there on, one of them would take for a request
// what the other takes for a body. Its zero value is before the first request.
//
//	           ┌────────────────────────────── no body ──┐
//	request line ─> fields ─> end of head ─┬─ length ─> body ─────────────────────────> request line
//	                  └──<──┘              └─ chunked ─> size ─> chunk ─> … 0 ─> trailer fields ─> request line
//
// It looks for what net/http forgives and hides: folded lines, bare CR and LF,
// Content-Length twice or beside Transfer-Encoding, codings other than chunked.
// Behind a request to upgrade it looks at nothing: if that is declined, the
// connection must end.
// All else is net/http's to judge. It keeps no bytes but those of names and
// values that decide, and steps over bodies.
type framing struct {
	at    step
	fault string // what is wrong with the byte that it stopped at; "" so far
	heads int    // complete ones

	version int // how much of "HTTP/1.1" the last word of the request line is; -1: something else
	field   field
	name    word // of the field, in lower case
	value   word // of a field that decides
	host    bool // seen in this head, as are the next two
	coded   bool
	sized   bool
	upgrade bool
	trailer bool // fields are those behind the last chunk

	left   uint64 // bytes of the body or the chunk to come
	digits int    // of the chunk's size
}

// A step is where in a message the next byte belongs.
type step uint8

const (
	atStart step = iota // before a request line, or one empty line
	atEmpty             // behind the CR of that empty line
	atAgain             // before a request line and nothing else
	inLine
	endLine // behind a CR, as are all end…
	atField // where a field or the empty line begins
	inName
	inValue
	endValue
	endFields
	inBody
	inSize
	inExtension
	endSize
	inChunk
	afterChunk
	endChunk
	inTunnel // behind a request to upgrade, which may be of another protocol
)

// after is what follows a body or a chunk.
func (s step) after() step {
	if s == inBody {
		return atStart
	}
	return afterChunk
}

// scan passes p on its way and returns how many of its bytes are fine: all,
// unless fault says what is wrong with the next.
func (f *framing) scan(p []byte) int {
	for i := 0; i < len(p); {
		if f.fault != "" {
			return i
		}
		switch f.at {
		case inBody, inChunk:
			n := min(f.left, uint64(len(p)-i))
			f.left -= n
			i += int(n)
			if f.left == 0 {
				f.at = f.at.after()
			}
			continue
		case inTunnel:
			return len(p)
		case inLine, inName, inValue: // most bytes of most heads
			if i += f.skip(p[i:]); i == len(p) {
				return i
			}
		}
		if f.take(p[i]); f.fault == "" {
			i++
		}
	}
	return len(p)
}

// skip passes the bytes at the beginning of p that take would do nothing with
// but keep them, and returns how many.
func (f *framing) skip(p []byte) (n int) {
	switch {
	case f.at == inLine && f.version < 0:
		for n < len(p) && text[p[n]] && p[n] != ' ' {
			n++
		}
	case f.at == inName:
		for n < len(p) && token[p[n]] != 0 {
			f.name.add(token[p[n]])
			n++
		}
	case f.at == inValue && f.field == fieldOther:
		for n < len(p) && text[p[n]] {
			n++
		}
	}
	return n
}

// inHead reports whether the next byte belongs to a head, so that no handler
// has seen the request yet.
func (f *framing) inHead() bool { return f.at < inBody && !f.trailer }

// take passes one byte that is none of a body.
func (f *framing) take(c byte) {
	switch f.at {
	case atStart, atAgain:
		f.begin(c)
	case inLine:
		f.line(c)
	case atField:
		f.beginField(c)
	case inName:
		f.inName(c)
	case inValue:
		f.inValue(c)
	case inSize, inExtension:
		f.size(c)
	case afterChunk:
		f.expect(c, '\r', endChunk, "chunk longer than its size")
	default:
		f.lineEnd(c)
	}
}

// lineEnd passes the byte behind a CR.
func (f *framing) lineEnd(c byte) {
	if c != '\n' {
		f.fault = "CR without LF"
		return
	}
	switch f.at {
	case atEmpty:
		f.at = atAgain
	case endLine:
		f.at = atField
	case endValue:
		f.endField()
	case endFields:
		f.endHead()
	case endSize:
		f.endOfSize()
	case endChunk:
		f.at, f.digits = inSize, 0
	}
}

func (f *framing) expect(c, want byte, next step, fault string) {
	if c != want {
		f.fault = fault
		return
	}
	f.at = next
}

// begin passes the first byte of a request. Some old clients end a body with an
// empty line that is not part of it (RFC 9112 section 2.2).
func (f *framing) begin(c byte) {
	if c == '\r' && f.at == atStart {
		f.at = atEmpty
		return
	}
	*f = framing{at: inLine, heads: f.heads, version: -1}
	f.line(c)
}

const version11 = "HTTP/1.1"

func (f *framing) line(c byte) {
	switch {
	case c == '\r':
		f.at = endLine
	case !text[c]:
		f.fault = "control character in the request line"
	case c == ' ':
		f.version = 0
	case f.version >= 0 && f.version < len(version11) && c == version11[f.version]:
		f.version++
	default:
		f.version = -1
	}
}

// size passes a byte of the line before a chunk.
func (f *framing) size(c byte) {
	digit, isDigit := hex(c)
	switch {
	case f.at == inSize && isDigit && f.digits < 16 && f.left <= math.MaxInt64>>4:
		f.left, f.digits = f.left<<4|digit, f.digits+1
	case f.digits == 0:
		f.fault = "chunk without a size"
	case c == '\r':
		f.at = endSize
	case f.at == inSize && c == ';':
		f.at = inExtension
	case f.at == inSize || !text[c]:
		f.fault = "malformed size of a chunk"
	}
}

func (f *framing) endOfSize() {
	if f.left > 0 {
		f.at = inChunk
		return
	}
	f.at, f.trailer = atField, true
}
