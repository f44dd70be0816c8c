package tls

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// stun is a STUN Allocate request of 20 bytes, framed the same behind its length.
var (
	stun   = unhex("0003 0000 2112a442 000102030405060708090a0b")
	framed = append([]byte{0, 20}, stun...)
	hello  = unhex("160301 0740 01000 73c 0303 0000")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name         string
		in           []byte
		outer, inner kind
		at           int // bytes after which outer is decided
	}{
		{"TLS 1.0 record", hello, kindTLS, kindHTTP, 3},
		{"TLS 1.2 record", unhex("160303 0740 0100"), kindTLS, kindHTTP, 3},
		{"record of SSL 2", unhex("802e 0103 0100 0000 1000"), kindUnknown, kindHTTP, 7},
		{"record version 2", unhex("160200 0000"), kindUnknown, kindHTTP, 2},
		{"record version 3.5", unhex("160305 0000"), kindUnknown, kindHTTP, 3},
		{"Allocate", stun, kindSTUN, kindSTUN, 8},
		{"Binding", unhex("0001 0000 2112a442 0001"), kindSTUN, kindSTUN, 8},
		{"STUN with a wrong cookie", unhex("0001 0000 2112a443 0001"), kindUnknown, kindHTTP, 8},
		{"ChannelData first", unhex("4000 0004 0102 0304 0506"), kindUnknown, kindHTTP, 7},
		{"ICE-TCP", framed, kindICE, kindHTTP, 10},
		{"frame too short for STUN", unhex("0013 0001 0000 2112a442"), kindUnknown, kindHTTP, 5},
		{"frame with a DTLS hello", unhex("0040 16fefd 0000 000000"), kindUnknown, kindHTTP, 7},
		{"GET", []byte("GET / HTTP/1.1\r\n"), kindHTTP, kindHTTP, 1},
		{"lower case", []byte("get / HTTP/1.1\r\n"), kindHTTP, kindHTTP, 1},
		{"HTTP/2 with prior knowledge", []byte("PRI * HTTP/2.0\r\n"), kindHTTP, kindHTTP, 3},
		{"empty line", []byte("\r\nGET / HTTP/1.1"), kindUnknown, kindHTTP, 5},
		{"SSH", []byte("SSH-2.0-x\r\n"), kindHTTP, kindHTTP, 1},
		{"PROXY v2", unhex("0d0a0d0a000d0a515549540a"), kindProxy, kindHTTP, 7},
		{"PROXY v1", []byte("PROXY TCP4 "), kindProxy, kindHTTP, 6},
		{"PROPFIND", []byte("PROPFIND / HTTP/1.1\r\n"), kindHTTP, kindHTTP, 4},
		{"zeros", make([]byte, 12), kindUnknown, kindHTTP, 5},
		{"ones", bytes.Repeat([]byte{0xFF}, 12), kindUnknown, kindHTTP, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, at := feed(classifyOuter, tt.in)
			if k != tt.outer || at != tt.at {
				t.Errorf("outer: kind %d after %d bytes, want %d after %d", k, at, tt.outer, tt.at)
			}
			if k, _ := feed(classifyInner, tt.in); k != tt.inner {
				t.Errorf("inner: kind %d, want %d", k, tt.inner)
			}
		})
	}
}

// feed gives classify one byte more at a time until it decides.
func feed(classify func([]byte) (kind, bool), in []byte) (kind, int) {
	for n := range len(in) + 1 {
		if k, more := classify(in[:n]); !more {
			return k, n
		}
	}
	return kindUnknown, -1
}

// FuzzClassify checks what the reading side relies on: a decision falls within
// headSize bytes, later bytes never change it, and each kind looks as promised.
func FuzzClassify(f *testing.F) {
	for _, seed := range [][]byte{stun, framed, hello, []byte("GET / HTTP/1.1\r\n"), []byte(proxyV1), []byte(proxyV2), {}, {0x16}, {0x16, 3}, make([]byte, 10)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, c := range []struct {
			name     string
			classify func([]byte) (kind, bool)
		}{{"outer", classifyOuter}, {"inner", classifyInner}} {
			k, at := feed(c.classify, in)
			switch {
			case at < 0 && len(in) >= headSize:
				t.Fatalf("%s: undecided after %d bytes", c.name, len(in))
			case at > headSize:
				t.Fatalf("%s: decided only after %d bytes", c.name, at)
			case at < 0:
				continue
			}
			if whole, more := c.classify(in); more || whole != k {
				t.Fatalf("%s: kind %d by bytes, kind %d at once", c.name, k, whole)
			}
			cookie := []byte{0x21, 0x12, 0xA4, 0x42}
			ok := true
			switch k {
			case kindSTUN:
				ok = in[0] < 0x40 && bytes.Equal(in[4:8], cookie)
			case kindICE:
				ok = c.name == "outer" && in[2] < 0x40 && bytes.Equal(in[6:10], cookie)
			case kindTLS:
				ok = c.name == "outer" && in[0] == 0x16 && in[1] == 3
			case kindProxy:
				ok = c.name == "outer" && (bytes.HasPrefix(in, []byte(proxyV1)) || bytes.HasPrefix(in, []byte(proxyV2[:proxyV2Mark])))
			case kindHTTP:
				ok = c.name == "inner" || isLetter(in[0])
			}
			if !ok {
				t.Fatalf("%s: % x is not of kind %d", c.name, in, k)
			}
		}
	})
}
