package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecodeJSON reads the texts that browsers put into rtc messages. What is
// read must survive being written and read again.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`{"candidate":"candidate:1 1 udp 1 192.0.2.1 5000 typ host","sdpMid":"0","sdpMLineIndex":0}`,
		`{"candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.9 8443 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null},"type":"candidate"}`,
		`{"candidate":"","sdpMid":null,"usernameFragment":"abcd"}`,
		`{"candidate":{"candidate":{"candidate":"x"}}}`,
		`{"type":"offer","sdp":"v=0\r\n"}`,
		`{"type":"answer","sdp":"\ud800"}`,
		`{"screenStreamID":"st1"}`,
		`{"videoStreamID":"st2","screenStreamID":"st1"}`,
		`[[[[`, `{"sdpMLineIndex":1e99}`, "null",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := DecodeCandidate(data); err == nil {
			for _, b := range [][]byte{EncodeCandidate(c), EncodeBareCandidate(c)} {
				again, err := DecodeCandidate(b)
				if diff := cmp.Diff(c, again); err != nil || diff != "" {
					t.Fatalf("candidate changed on the way: %v (-want +got):\n%s", err, diff)
				}
			}
		}
		if d, err := DecodeDescription(data); err == nil {
			again, err := DecodeDescription(EncodeDescription(d))
			if diff := cmp.Diff(d, again); err != nil || diff != "" {
				t.Fatalf("description changed on the way: %v (-want +got):\n%s", err, diff)
			}
		}
		for _, k := range []Kind{KindScreenOn, KindVideoOn} {
			if id, err := DecodeStream(k, data); err == nil {
				if again, err := DecodeStream(k, EncodeStream(k, id)); err != nil || again != id {
					t.Fatalf("stream %q changed to %q on the way: %v", id, again, err)
				}
			}
		}
	})
}
