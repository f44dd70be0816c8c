package sfu

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pion/stun"
)

// stunMessage is a message of a type without attributes.
func stunMessage(t testing.TB, method stun.Method, class stun.MessageClass) []byte {
	t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.NewType(method, class))
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func TestClassify(t *testing.T) {
	request := bindingRequest(t, "local:remote")
	edited := func(at int, b ...byte) []byte {
		p := bytes.Clone(request)
		copy(p[at:], b)
		return p
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want datagramKind
	}{
		{"nothing", nil, kindUnknown},
		{"too short", []byte{0x80, 0, 0}, kindUnknown},
		{"Binding request", request, kindCheck},
		{"Binding request without user", stunMessage(t, stun.MethodBinding, stun.ClassRequest), kindCheck},
		{"Binding success", stunMessage(t, stun.MethodBinding, stun.ClassSuccessResponse), kindAnswer},
		{"Binding error", stunMessage(t, stun.MethodBinding, stun.ClassErrorResponse), kindAnswer},
		{"Binding indication", stunMessage(t, stun.MethodBinding, stun.ClassIndication), kindAnswer},
		{"Allocate", stunMessage(t, stun.MethodAllocate, stun.ClassRequest), kindTURN},
		{"Refresh", stunMessage(t, stun.MethodRefresh, stun.ClassRequest), kindTURN},
		{"Send", stunMessage(t, stun.MethodSend, stun.ClassIndication), kindTURN},
		{"the highest method that RFC 7983 leaves room for", stunMessage(t, 0xFF, stun.ClassRequest), kindTURN},
		{"without magic cookie", edited(4, 0, 0, 0, 0), kindUnknown},
		{"length beyond the datagram", edited(2, 0xFF, 0xFC), kindUnknown},
		{"length before its end", edited(2, 0, 0), kindUnknown},
		{"length no multiple of four", append(edited(3, request[3]+1), 0), kindUnknown},
		{"STUN header cut", request[:19], kindUnknown},
		{"unassigned", bytes.Repeat([]byte{4}, 40), kindUnknown},
		{"ZRTP", bytes.Repeat([]byte{16}, 40), kindUnknown},
		{"lowest DTLS", bytes.Repeat([]byte{20}, 40), kindMedia},
		{"highest DTLS", bytes.Repeat([]byte{63}, 40), kindMedia},
		{"lowest channel", []byte{0x40, 0, 0, 0}, kindTURN},
		{"highest channel of RFC 8656", []byte{0x4F, 0xFF, 0, 0}, kindTURN},
		{"highest channel of RFC 5766", []byte{0x7F, 0xFE, 0, 0}, kindTURN},
		{"lowest RTP", bytes.Repeat([]byte{128}, 40), kindMedia},
		{"highest RTP", bytes.Repeat([]byte{191}, 40), kindMedia},
		{"lowest QUIC long header", bytes.Repeat([]byte{192}, 40), kindQUIC},
		{"highest QUIC long header", bytes.Repeat([]byte{255}, 40), kindQUIC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := classify(tt.in); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	p := bindingRequest(t, "local:remote")
	if n := testing.AllocsPerRun(100, func() { classify(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(bindingRequest(f, "local:remote"))
	f.Add(stunMessage(f, stun.MethodAllocate, stun.ClassRequest))
	f.Add([]byte{0x40, 0, 0, 0})
	f.Add([]byte{0x80, 111, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		kind := classify(p)
		ufrag, check := requestUfrag(p)
		if kind == kindCheck || kind == kindAnswer || kind == kindTURN && p[0] < 64 {
			m := &stun.Message{Raw: bytes.Clone(p)}
			err := m.Decode() // of attributes classify knows nothing
			if err == nil && (m.Type.Method == stun.MethodBinding) == (kind == kindTURN) {
				t.Errorf("%s is of kind %d", m.Type, kind)
			}
			if len(p)%4 != 0 || binary.BigEndian.Uint32(p[4:]) != stunCookie {
				t.Errorf("no STUN, but of kind %d", kind)
			}
		}
		if kind != kindCheck && check && int(binary.BigEndian.Uint16(p[2:])) == len(p)-stunHeader && len(p)%4 == 0 {
			t.Errorf("a request for %q is of kind %d", ufrag, kind)
		}
	})
}
