package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tinylib/msgp/msgp"
)

// frames returns the golden frames by name.
func frames(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/envelopes.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[name] = unhex(t, digits)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("decode hex %q: %v", s, err)
	}
	return b
}

func fromPlugin(k Kind, data string) Envelope {
	e := Envelope{Type: TypeRTC, Message: Message{Session: "s1", Kind: k}}
	if data != "" {
		e.Message.Data = []byte(data)
	}
	return e
}

func fromServer(typ string, k Kind, data string) Envelope {
	e := fromPlugin(k, data)
	e.Type, e.Message.Group, e.Message.User, e.Message.Call = typ, "clientA", "u1", "c1"
	return e
}

func padded(first, last string) string { return first + strings.Repeat("a", 24) + last }

// golden holds what the frames named W… mean.
func golden() map[string]Envelope {
	c1 := Join{Call: "c1", User: "u1", Session: "s1", Channel: "h1"}
	w3, w3c := c1, c1
	w3.DCSignaling, w3.AV1Set, w3.DCSet = true, true, true
	return map[string]Envelope{
		"W1": {Type: TypeHello, ClientID: "clientA", ConnID: "ybndrfg8ejkmcpqxot1uwisza3"},
		"W2": {Type: TypeJoin, Join: Join{Call: padded("c", "1"), User: padded("u", "2"), Session: padded("s", "3"),
			Channel: padded("h", "4"), AV1: true, AV1Set: true, DCSet: true}},
		"W3":  {Type: TypeJoin, Join: w3},
		"W3b": {Type: TypeJoin, Join: c1},
		"W3c": {Type: TypeJoin, Join: w3c}, // av1Support nil counts as absent
		"W4":  {Type: TypeLeave, Session: "s1"},
		"W5":  {Type: TypeReconnect, Session: "s1"},
		"W6":  {Type: TypeClose, Session: "s1"},
		"W7":  fromPlugin(KindSDP, `{"type":"offer","sdp":"v=0\r\n"}`),
		"W8":  fromServer(TypeRTC, KindSDP, `{"type":"answer","sdp":"v=0\r\n"}`),
		"W9":  fromPlugin(KindICE, `{"candidate":"candidate:1 1 udp 1 192.0.2.1 5000 typ host","sdpMid":"0","sdpMLineIndex":0}`),
		"W10": fromServer(TypeRTC, KindICE, `{"candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.9 8443 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null},"type":"candidate"}`),
		"W11": fromPlugin(KindMute, ""),
		"W12": fromPlugin(KindUnmute, ""),
		"W13": fromPlugin(KindScreenOn, `{"screenStreamID":"st1"}`),
		"W14": fromPlugin(KindScreenOff, ""),
		"W15": fromServer(TypeVAD, KindVoiceOn, ""),
		"W16": fromServer(TypeVAD, KindVoiceOff, ""),
		"W17": fromPlugin(KindVideoOn, `{"videoStreamID":"st2"}`),
		"W18": fromPlugin(KindVideoOff, ""),
	}
}

func TestGoldenFramesDecodeAndEncode(t *testing.T) {
	want := golden()
	for name, frame := range frames(t) {
		if !strings.HasPrefix(name, "W") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			e, known := want[name]
			if !known {
				t.Fatal("nothing expected of this frame")
			}
			got, err := Decode(frame)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			encoded, err := e.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if name == "W3c" { // an unknown key cannot be written back
				return
			}
			if got := hex.EncodeToString(bytes.TrimPrefix(encoded, []byte("before"))); got != hex.EncodeToString(frame) {
				t.Errorf("encoded\n got %s\nwant %x", got, frame)
			}
		})
	}
}

func TestGoldenDataMatchesItsCodec(t *testing.T) {
	all := golden()
	zero, mid := uint16(0), "0"
	for name, c := range map[string]Candidate{
		"W9":  {Candidate: "candidate:1 1 udp 1 192.0.2.1 5000 typ host", SDPMid: &mid, SDPMLineIndex: &zero},
		"W10": {Candidate: "candidate:1 1 udp 1 192.0.2.9 8443 typ host", SDPMid: &mid, SDPMLineIndex: &zero},
	} {
		got, err := DecodeCandidate(all[name].Message.Data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if name == "W10" && !bytes.Equal(EncodeCandidate(c), all[name].Message.Data) {
			t.Errorf("%s encoded as %s", name, EncodeCandidate(c))
		}
	}
	for name, d := range map[string]Description{"W7": {"offer", "v=0\r\n"}, "W8": {"answer", "v=0\r\n"}} {
		got, err := DecodeDescription(all[name].Message.Data)
		if err != nil || got != d {
			t.Errorf("%s = %v, %v, want %v", name, got, err, d)
		}
		if enc := EncodeDescription(d); !bytes.Equal(enc, all[name].Message.Data) {
			t.Errorf("%s encoded as %s", name, enc)
		}
	}
	for name, id := range map[string]string{"W13": "st1", "W17": "st2"} {
		m := all[name].Message
		if got, err := DecodeStream(m.Kind, m.Data); err != nil || got != id {
			t.Errorf("%s = %q, %v, want %q", name, got, err, id)
		}
		if enc := EncodeStream(m.Kind, id); !bytes.Equal(enc, m.Data) {
			t.Errorf("%s encoded as %s", name, enc)
		}
	}
}

func TestTolerance(t *testing.T) {
	all := frames(t)
	mute := fromPlugin(KindMute, "")
	want := map[string]Envelope{
		"T1": mute, "T2": mute, "T3": mute, "T5": mute, "T6": mute, "T12": mute,
		"T4": fromPlugin(KindSDP, "{}"),
		"T8": {Type: TypeLeave},
	}
	for name, e := range want {
		got, err := Decode(all[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, name := range []string{"T7", "T9", "T11"} {
		if got, err := Decode(all[name]); err == nil || errors.Is(err, ErrUnknownType) {
			t.Errorf("%s = %v, %v, want a refusal", name, got, err)
		}
	}
	if got, err := Decode(all["T10"]); !errors.Is(err, ErrUnknownType) || got.Type != "foo" {
		t.Errorf("T10 = %v, %v, want type foo and %v", got, err, ErrUnknownType)
	}
}

func TestAnyKeyOrderAndStringWidthDecodes(t *testing.T) {
	wide := func(b []byte, s string) []byte { // str32
		return append(append(b, 0xdb, 0, 0, 0, byte(len(s))), s...)
	}
	b := wide(nil, "join")
	b = append(b, 0xdf, 0, 0, 0, 7) // map32
	b = msgp.AppendBool(wide(b, "dcSignaling"), true)
	for _, s := range []string{"channelID", "h1", "sessionID", "s1"} {
		b = wide(b, s)
	}
	b = msgp.AppendMapHeader(wide(b, "future"), 1)
	b = msgp.AppendArrayHeader(wide(b, "x"), 0)
	b = msgp.AppendString(wide(b, "av1Support"), "true") // not a boolean: absent
	for _, s := range []string{"userID", "u1", "callID", "c1"} {
		b = wide(b, s)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	want := Envelope{Type: TypeJoin, Join: Join{Call: "c1", User: "u1", Session: "s1", Channel: "h1", DCSignaling: true, DCSet: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMalformedEnvelopesAreRefused(t *testing.T) {
	for name, digits := range map[string]string{
		"empty":                  "",
		"type is a number":       "01c0",
		"no payload":             "a3727463",
		"payload is a number":    "a372746301",
		"kind 0":                 "a372746381a47479706500",
		"kind 11":                "a372746381a4747970650b",
		"kind negative":          "a372746381a474797065ff",
		"kind is a float":        "a372746381a474797065ca40400000",
		"session is a number":    "a56c6561766581a973657373696f6e494401",
		"call is a map":          "a46a6f696e81a663616c6c494480",
		"array too short":        "a372746391a0",
		"array too long":         "a372746397a0a0a27331a003c0c0",
		"key is a number":        "a372746381010a",
		"string runs off":        "a56c6561766581a973657373696f6e4944dbffffffff",
		"data runs off":          "a372746381a464617461c6ffffffff",
		"map of 4 billion":       "a3727463dfffffffff",
		"unknown array runs off": "a372746381a3666f6fddffffffff01",
	} {
		if got, err := Decode(unhex(t, digits)); err == nil || errors.Is(err, ErrUnknownType) {
			t.Errorf("%s: %+v, %v, want a refusal", name, got, err)
		}
	}
}

func TestNestingCostsNoStack(t *testing.T) {
	frame := append(unhex(t, "a372746382a474797065"), 3)
	frame = msgp.AppendString(frame, "future")
	frame = append(frame, bytes.Repeat([]byte{0x91}, 1<<20)...) // arrays in arrays in arrays
	start := time.Now()
	if _, err := Decode(append(frame, 0xc0)); err != nil {
		t.Errorf("a deep value of an unknown key is refused: %v", err)
	}
	if _, err := Decode(frame); err == nil {
		t.Error("a deep value without its end is accepted")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("skipping 1 MiB twice took %v", d)
	}
}

func TestUnknownTypeIsShortened(t *testing.T) {
	got, err := Decode(msgp.AppendString(nil, strings.Repeat("x", 1000)))
	if !errors.Is(err, ErrUnknownType) || got.Type != strings.Repeat("x", maxType) {
		t.Errorf("type %q, %v", got.Type, err)
	}
}

func TestDecodeKeepsNoReferenceToTheFrame(t *testing.T) {
	frame := frames(t)["W7"]
	got, err := Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if diff := cmp.Diff(golden()["W7"], got); diff != "" {
		t.Errorf("changed with the frame (-want +got):\n%s", diff)
	}
}

func TestAppendRefusesWhatDecodeWould(t *testing.T) {
	for _, e := range []Envelope{{}, {Type: "foo"}, {Type: TypeRTC}, fromPlugin(11, "")} {
		if b, err := e.Append([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("%+v encodes to %x, %v", e, b, err)
		}
	}
}

func TestLongDataTakesTheRightLength(t *testing.T) {
	for _, n := range []int{255, 256, 300, 65535, 65536, 1 << 20} {
		e := fromPlugin(KindSDP, strings.Repeat("x", n))
		b, err := e.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if n == 300 && !bytes.Contains(b, []byte{0xc5, 0x01, 0x2c}) {
			t.Error("300 bytes are not encoded as c5012c")
		}
		got, err := Decode(b)
		if err != nil || !bytes.Equal(e.Message.Data, got.Message.Data) {
			t.Errorf("%d bytes do not come back: %v", n, err)
		}
	}
}

func TestBadDataIsRefused(t *testing.T) {
	for _, s := range []string{``, `null x`, `{}`, `{"type":"rollback","sdp":""}`, `[]`, `{"type":1}`, strings.Repeat(" ", maxJSON) + `{"type":"offer"}`} {
		if d, err := DecodeDescription([]byte(s)); err == nil {
			t.Errorf("description %.40q = %+v", s, d)
		}
	}
	for _, s := range []string{``, `[]`, `"x"`, `{"candidate":1}`, `{"candidate":{"candidate":[]}}`, `{"candidate":"x","sdpMLineIndex":65536}`} {
		if c, err := DecodeCandidate([]byte(s)); err == nil {
			t.Errorf("candidate %q = %+v", s, c)
		}
	}
	for _, s := range []string{``, `{}`, `{"videoStreamID":"v"}`, `{"screenStreamID":5}`} {
		if id, err := DecodeStream(KindScreenOn, []byte(s)); err == nil {
			t.Errorf("stream %q = %q", s, id)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, frame := range frames(f) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := Decode(frame)
		if err != nil {
			return
		}
		b, err := e.Append(nil)
		if err != nil {
			t.Fatalf("decoded %+v does not encode: %v", e, err)
		}
		again, err := Decode(b)
		if err != nil {
			t.Fatalf("encoded %+v does not decode: %v", e, err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("changed on the way (-want +got):\n%s", diff)
		}
		_, _ = DecodeCandidate(e.Message.Data)
		_, _ = DecodeDescription(e.Message.Data)
		_, _ = DecodeStream(e.Message.Kind, e.Message.Data)
	})
}
