package turn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
)

func TestFramer(t *testing.T) {
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint).Raw
	var stream []byte
	var want [][]byte
	for _, frame := range [][]byte{request, channelFrame(0x4000, nil), channelFrame(0x7FFF, []byte{1}), channelFrame(0x4001, []byte("four")), request, channelFrame(0x4000, make([]byte, 1500))} {
		stream = append(stream, frame...)
		if frame[0]>>6 == 1 {
			frame = frame[:channelHeader+int(binary.BigEndian.Uint16(frame[2:]))]
		}
		want = append(want, frame)
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream), "by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"halves": iotest.HalfReader(bytes.NewReader(stream)), "error with data": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		f := newFramer(r)
		var got [][]byte
		for {
			b, err := f.next(maxFrame)
			if err != nil {
				if err != io.EOF {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
			got = append(got, bytes.Clone(b))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestFramerErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stream []byte
		limit  uint32
		want   error
	}{
		{"end", nil, maxFrame, io.EOF},
		{"cut header", []byte{0, 1}, maxFrame, io.ErrUnexpectedEOF},
		{"cut cookie", stunFrame(0, 0)[:6], maxFrame, io.ErrUnexpectedEOF},
		{"cut body", stunFrame(8, 4), maxFrame, io.ErrUnexpectedEOF},
		{"cut padding", []byte{0x40, 0, 0, 1, 9}, maxFrame, io.ErrUnexpectedEOF},
		{"no cookie", make([]byte, 20), maxFrame, errNotTURN},
		{"odd length", stunFrame(2, 2), maxFrame, errNotTURN},
		{"high bits", []byte{0x80, 0, 0, 0}, maxFrame, errNotTURN},
		{"too long for a stranger", stunFrame(4080, 0), maxStrangerFrame, errFrameTooLong},
		{"channel too long for a stranger", channelHead(4093), maxStrangerFrame, errFrameTooLong},
		{"0xFFEC", stunFrame(0xFFEC, 0), maxStrangerFrame, errFrameTooLong},
		{"0xFFFF", channelHead(0xFFFF), maxStrangerFrame, errFrameTooLong},
	} {
		if _, err := newFramer(bytes.NewReader(tc.stream)).next(tc.limit); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if _, err := newFramer(stuck{}).next(maxFrame); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("reader without progress: %v", err)
	}
}

// stuck is a reader that never gets anywhere.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// FuzzFrame: whatever the stream and however it is cut, frames are frames, in
// order, and nothing is read twice or invented.
func FuzzFrame(f *testing.F) {
	for _, b := range hostileStreams {
		f.Add(b, true)
	}
	f.Add(append(stunFrame(0, 0), channelFrame(0x4000, []byte("abc"))...), false)
	f.Add(append(append(channelHead(1600), make([]byte, 1600)...), stunFrame(4, 4)...), false)
	f.Fuzz(func(t *testing.T, stream []byte, byByte bool) {
		var r io.Reader = bytes.NewReader(stream)
		if byByte {
			r = iotest.OneByteReader(r)
		}
		fr := newFramer(r)
		rest := stream
		for {
			b, err := fr.next(maxFrame)
			if err != nil {
				return
			}
			if len(b) < channelHeader || len(b) > maxDatagram || !looksLikeTURN(b) {
				t.Fatalf("frame %x", b)
			}
			at := bytes.Index(rest, b)
			if at < 0 {
				t.Fatalf("frame %x is not in what is left of the stream", b)
			}
			rest = rest[at+len(b):]
		}
	})
}
