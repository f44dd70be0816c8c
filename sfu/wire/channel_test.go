package wire

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tinylib/msgp/msgp"
)

// channelVectors pairs the golden messages of the data channel with their
// meaning; written = the bytes are also what Append makes.
func channelVectors() []channelVector {
	yes, no := true, false
	offer := Description{Type: "offer", SDP: "sdp"}
	return []channelVector{
		{"01", ChannelMessage{Type: ChannelPing}, false},
		{"cc01", ChannelMessage{Type: ChannelPing}, true},
		{"02", ChannelMessage{Type: ChannelPong}, false},
		{"cc02", ChannelMessage{Type: ChannelPong}, true},
		{"07", ChannelMessage{Type: ChannelLock}, false},
		{"07c0", ChannelMessage{Type: ChannelLock}, false},
		{"cc07", ChannelMessage{Type: ChannelLock}, true},
		{"cc07c3", ChannelMessage{Type: ChannelLock, Granted: &yes}, true},
		{"cc07c2", ChannelMessage{Type: ChannelLock, Granted: &no}, true},
		{"08", ChannelMessage{Type: ChannelUnlock}, false},
		{"cc08", ChannelMessage{Type: ChannelUnlock}, true},
		{"0400", ChannelMessage{Type: ChannelLoss}, false},
		{"0401", ChannelMessage{Type: ChannelLoss, Value: 1}, false},
		{"04cb3fa999999999999a", ChannelMessage{Type: ChannelLoss, Value: 0.05}, false},
		{"cc04cb3fa999999999999a", ChannelMessage{Type: ChannelLoss, Value: 0.05}, true},
		{"04ca3d4ccccd", ChannelMessage{Type: ChannelLoss, Value: float64(float32(0.05))}, false},
		{"05cb3f8930be0ded288d", ChannelMessage{Type: ChannelRTT, Value: 0.0123}, false},
		{"cc05cb3fb999999999999a", ChannelMessage{Type: ChannelRTT, Value: 0.1}, true},
		{"06cb3f60624dd2f1a9fc", ChannelMessage{Type: ChannelJitter, Value: 0.002}, false},
		{"cc06cb3f60624dd2f1a9fc", ChannelMessage{Type: ChannelJitter, Value: 0.002}, true},
		{"05ff", ChannelMessage{Type: ChannelRTT, Value: -1}, false},
		{"05cfffffffffffffffff", ChannelMessage{Type: ChannelRTT, Value: math.MaxUint64}, false},
		{"03c420789cab562aa92c4855b252ca4f4b4b2d52d2512a4e2900f240642d0085a0090b", ChannelMessage{Type: ChannelSDP, SDP: offer}, false},
		{"cc03c425789caa562aa92c4855b252ca4f4b4b2d52d2512a4e2950b20293b580000000ffff85a0090b", ChannelMessage{Type: ChannelSDP, SDP: offer}, false},
		{"cc0981a13182a474797065a5766f696365a973656e6465725f6964a57365737331",
			ChannelMessage{Type: ChannelMap, Media: map[string]Media{"1": {"voice", "sess1"}}}, true},
		{"cc0982a13182a474797065ac73637265656e2d617564696fa973656e6465725f6964a57365737342a13282a474797065a673637265656ea973656e6465725f6964a57365737342",
			ChannelMessage{Type: ChannelMap, Media: map[string]Media{"1": {"screen-audio", "sessB"}, "2": {"screen", "sessB"}}}, true},
		{"cc0980", ChannelMessage{Type: ChannelMap, Media: map[string]Media{}}, true},
	}
}

type channelVector struct {
	hex     string
	message ChannelMessage
	written bool
}

func TestGoldenChannelMessages(t *testing.T) {
	for _, v := range channelVectors() {
		got, err := DecodeChannel(unhex(t, v.hex))
		if err != nil {
			t.Errorf("%s: %v", v.hex, err)
			continue
		}
		if diff := cmp.Diff(v.message, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v.hex, diff)
		}
		b, err := v.message.Append([]byte("before"))
		if err != nil {
			t.Errorf("%s does not encode: %v", v.hex, err)
		}
		b = bytes.TrimPrefix(b, []byte("before"))
		if v.written && hex.EncodeToString(b) != v.hex {
			t.Errorf("encoded %x, want %s", b, v.hex)
		}
		if back, err := DecodeChannel(b); err != nil || !cmp.Equal(v.message, back) {
			t.Errorf("%s does not come back: %+v, %v", v.hex, back, err)
		}
	}
}

func TestBadChannelMessagesAreRefused(t *testing.T) {
	for name, digits := range map[string]string{
		"unknown type":              "0a",
		"type 0":                    "00",
		"type negative":             "ff",
		"empty":                     "",
		"SDP without payload":       "03",
		"SDP is not zlib":           "03c403616263",
		"SDP is a number":           "0301",
		"type cut off":              "d101",
		"type is a string":          "a131",
		"loss without payload":      "04",
		"loss is a string":          "04a130",
		"loss is nil":               "04c0",
		"loss is NaN":               "04cb7ff8000000000001",
		"RTT is infinite":           "05cb7ff0000000000000",
		"jitter is -infinite":       "06caff800000",
		"RTT cut off":               "05cb3f89",
		"lock answer is a number":   "0701",
		"map without payload":       "09",
		"map is nil":                "09c0",
		"map of 4 billion":          "09dfffffffff",
		"map's entry is a number":   "0981a13101",
		"map's type is a number":    "0981a13181a47479706501",
		"map's entry of 4 billion":  "0981a131dfffffffff",
		"SDP inflates to something": hex.EncodeToString(packed(t, []byte(`{"type":"pranswer"}`))),
		"SDP is cut off":            "03c410789cab562aa92c4855b252ca4f4b4b2d",
	} {
		if m, err := DecodeChannel(unhex(t, digits)); err == nil {
			t.Errorf("%s is accepted: %+v", name, m)
		}
	}
}

// packed returns data as the payload of a ChannelSDP message, unbounded.
func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	b, err := deflate(data)
	if err != nil {
		t.Fatal(err)
	}
	return msgp.AppendBytes([]byte{3}, b)
}

func TestInflatingIsBounded(t *testing.T) {
	body := func(n int) []byte {
		s := `{"type":"offer","sdp":"` + strings.Repeat("v", n-len(`{"type":"offer","sdp":""}`)) + `"}`
		return []byte(s)
	}
	if _, err := DecodeChannel(packed(t, body(maxJSON))); err != nil {
		t.Errorf("a description of 1 MiB is refused: %v", err)
	}
	if _, err := DecodeChannel(packed(t, body(maxJSON+1))); err == nil {
		t.Error("a description of more than 1 MiB is accepted")
	}

	var bomb bytes.Buffer
	z := zlib.NewWriter(&bomb)
	if _, err := io.CopyN(z, zeros{}, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	message := msgp.AppendBytes([]byte{3}, bomb.Bytes())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodeChannel(message)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("16 MiB of zeros are accepted")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("refusing a bomb of %d bytes allocated %d", len(message), n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAppendRefusesUnknownChannelTypes(t *testing.T) {
	for _, typ := range []ChannelType{0, 10, 255} {
		if b, err := (ChannelMessage{Type: typ}).Append([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("type %d encodes to %x, %v", typ, b, err)
		}
	}
}

func FuzzDecodeChannel(f *testing.F) {
	for _, v := range channelVectors() {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeChannel(b)
		if err != nil {
			return
		}
		b, err = m.Append(nil)
		if err != nil {
			t.Fatalf("decoded %+v does not encode: %v", m, err)
		}
		again, err := DecodeChannel(b)
		if err != nil {
			t.Fatalf("encoded %+v does not decode: %v", m, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("changed on the way (-want +got):\n%s", diff)
		}
	})
}
