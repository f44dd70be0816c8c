package gateway

import "strconv"

// A field is what we look for in its value.
type field uint8

const (
	fieldOther field = iota
	fieldLength
	fieldCoding
)

// A word is the beginning of a string, and how long all of it is.
type word struct {
	text [20]byte // 2^63-1 has 19 digits, "transfer-encoding" 17 letters
	len  int
}

func (w *word) add(c byte) {
	if w.len < len(w.text) {
		w.text[w.len] = c
	}
	w.len = min(w.len+1, len(w.text)+1)
}

// whole is the string, or nil if it is longer than any that matters.
func (w *word) whole() []byte {
	if w.len > len(w.text) {
		return nil
	}
	return w.text[:w.len]
}

func (f *framing) beginField(c byte) {
	switch {
	case c == '\r':
		f.at = endFields
	case token[c] == 0: // white space, too: a folded line
		f.fault = "field does not begin with a name"
	default:
		f.at, f.name = inName, word{}
		f.inName(c)
	}
}

func (f *framing) inName(c byte) {
	switch {
	case c == ':':
		f.at, f.value = inValue, word{}
		f.fault = f.know()
	case token[c] == 0:
		f.fault = "name of a field is no token"
	default:
		f.name.add(token[c])
	}
}

// know says what is wrong with there being a field of this name.
func (f *framing) know() (fault string) {
	f.field = fieldOther
	twice := false
	switch string(f.name.whole()) {
	case "host":
		twice, f.host = f.host, true
	case "content-length":
		f.field, twice, f.sized = fieldLength, f.sized, true
	case "transfer-encoding":
		f.field, twice, f.coded = fieldCoding, f.coded, true
		if f.version != len(version11) {
			return "Transfer-Encoding in a version that has none"
		}
	case "upgrade":
		f.upgrade = true
		return ""
	default:
		return ""
	}
	switch {
	case f.trailer:
		return "trailer that belongs into a head"
	case twice:
		return "field that may come once came twice"
	case f.sized && f.coded:
		return "Content-Length beside Transfer-Encoding"
	}
	return ""
}

func (f *framing) inValue(c byte) {
	switch {
	case c == '\r':
		f.at = endValue
	case !text[c]:
		f.fault = "control character in a field"
	case f.field != fieldOther && (f.value.len > 0 || c != ' ' && c != '\t'):
		f.value.add(lower(c))
	}
}

// endField judges a value that decides how long the body is.
func (f *framing) endField() {
	f.at = atField
	value := f.value.whole()
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	switch f.field {
	case fieldCoding:
		if string(value) != "chunked" {
			f.fault = "Transfer-Encoding other than chunked"
		}
	case fieldLength:
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil {
			f.fault = "Content-Length that is no length"
		}
		f.left = n
	}
}

// endHead is where the empty line has passed.
func (f *framing) endHead() {
	switch {
	case f.trailer:
		f.at, f.trailer = atStart, false
		return
	case f.coded:
		f.at, f.digits = inSize, 0
	case f.left > 0:
		f.at = inBody
	case f.upgrade:
		f.at = inTunnel
	default:
		f.at = atStart
	}
	f.heads++
}

// text holds what may stand in a value: anything but control characters, of
// which the tab is none.
var text = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != 0x7f || c == '\t'
	}
	return t
}()

// token holds what may stand in a name (RFC 9110 section 5.6.2), in lower case;
// 0 is what may not.
var token = func() (t [256]byte) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = lower(c)
	}
	return t
}()

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func hex(c byte) (value uint64, ok bool) {
	switch c = lower(c); {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10, true
	}
	return 0, false
}
