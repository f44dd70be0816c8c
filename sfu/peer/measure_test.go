package peer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v3"
)

func TestStampRoundTrip(t *testing.T) {
	want := stamp{source: 7, sequence: 1 << 31, sent: now(), measured: true}
	payload := make([]byte, 80)
	want.put(payload)
	got, ok := readStamp(payload)
	if !ok || got != want {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
	for _, b := range [][]byte{nil, payload[:stampSize-1], payload[:79], make([]byte, 80)} {
		if s, ok := readStamp(b); ok {
			t.Errorf("%d bytes without a stamp gave %+v", len(b), s)
		}
	}
}

// packets returns stamped packets with the given numbers.
func packets(source uint32, numbers ...uint32) [][]byte {
	var all [][]byte
	for _, n := range numbers {
		b := make([]byte, 40)
		stamp{source: source, sequence: n, measured: true}.put(b)
		all = append(all, b)
	}
	return all
}

func TestMeterJudgesOrder(t *testing.T) {
	for _, x := range []struct {
		name                             string
		packets                          [][]byte
		lost, duplicates, late, measured uint64
	}{
		{"in order", packets(1, 5, 6, 7), 0, 0, 0, 3},
		{"gap", packets(1, 5, 6, 10), 3, 0, 0, 3},
		{"late", packets(1, 5, 7, 6), 0, 0, 1, 3},
		{"duplicate", packets(1, 5, 6, 6, 5), 0, 2, 0, 2},
		{"late twice", packets(1, 5, 7, 6, 6), 0, 1, 1, 3},
		{"too late to tell", packets(1, 5, 100, 6), 94, 1, 0, 2},
		{"around zero", packets(1, 1<<32-1, 0, 1), 0, 0, 0, 3},
		{"before the first", packets(1, 5, 4), 0, 0, 1, 2},
		{"another source", append(packets(1, 100), packets(2, 3, 5)...), 1, 0, 0, 3},
	} {
		var m meter
		for _, p := range x.packets {
			m.add(p, 0)
		}
		if m.Lost != x.lost || m.Duplicates != x.duplicates || m.Late != x.late || m.Measured != x.measured {
			t.Errorf("%s: lost %d, duplicates %d, late %d, measured %d; want %d %d %d %d", x.name,
				m.Lost, m.Duplicates, m.Late, m.Measured, x.lost, x.duplicates, x.late, x.measured)
		}
	}
	var m meter
	m.add([]byte("not one of ours, though long enough"), 0)
	if m.Foreign != 1 || m.Packets != 1 || m.Measured != 0 {
		t.Errorf("a foreign packet counts as %+v", m.TrackStats)
	}
}

func TestMeterMeasuresJitter(t *testing.T) {
	var m meter
	for i := range 400 {
		b := make([]byte, 40)
		stamp{sequence: uint32(i), sent: int64(i) * 20e6, measured: true}.put(b)
		m.add(b, int64(i)*20e6+1e6+int64(i%2)*2e6) // 1 ms or 3 ms under way
	}
	if m.Jitter < 1900*time.Microsecond || m.Jitter > 2*time.Millisecond {
		t.Errorf("jitter %v, want nearly 2ms", m.Jitter)
	}
	if p := m.Latency.Percentile(.4); p < time.Millisecond || p > 1100*time.Microsecond {
		t.Errorf("40 %% took up to %v, want 1ms", p)
	}
}

func TestHistogramPercentiles(t *testing.T) {
	var h Histogram
	if h.Percentile(.5) != 0 {
		t.Errorf("percentile of nothing: %v", h.Percentile(.5))
	}
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(rand.ExpFloat64() * float64(20*time.Millisecond)).Truncate(time.Microsecond)
		h.Add(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{.01, .5, .95, .99, 1} {
		want := values[max(int(q*float64(len(values)))-1, 0)]
		got := h.Percentile(q)
		if got < want || float64(got) > float64(want)*1.07+2000 {
			t.Errorf("percentile %v: %v, want %v and at most 7 %% more", q, got, want)
		}
	}
	var sum Histogram
	sum.Merge(&h)
	sum.Merge(&h)
	if sum.Count != 2*h.Count || sum.Percentile(.95) != h.Percentile(.95) {
		t.Errorf("merged twice: %d, p95 %v; want %d, %v", sum.Count, sum.Percentile(.95), 2*h.Count, h.Percentile(.95))
	}
	if rest := sum.Less(&h); rest != h {
		t.Errorf("twice less once: %d, want %d", rest.Count, h.Count)
	}
	h.Add(-time.Second)
	h.Add(time.Hour)
	if top := h.Percentile(1); top < time.Minute {
		t.Errorf("an hour counts as %v", top)
	}
}

func TestWindow(t *testing.T) {
	var w Window
	if w.marks() || !(*Window)(nil).marks() {
		t.Error("a closed window marks packets, or none does not")
	}
	w.Open()
	if !w.marks() {
		t.Error("an open window marks nothing")
	}
	w.Close()
	if w.marks() {
		t.Error("a closed window marks packets")
	}
}

func TestVideoPayloads(t *testing.T) {
	payload := make([]byte, videoMinimum)
	for _, x := range []struct {
		part videoPart
		key  bool
	}{
		{videoPart{first: true, key: true, picture: 300}, true},
		{videoPart{first: false, key: true, picture: 300}, false},
		{videoPart{first: true, picture: 301}, false},
	} {
		putVideo(webrtc.MimeTypeVP8, payload, x.part)
		var p codecs.VP8Packet
		if _, err := p.Unmarshal(payload); err != nil {
			t.Fatalf("%+v: %v", x.part, err)
		}
		if p.PictureID != x.part.picture || (p.S == 1) != x.part.first {
			t.Errorf("%+v reads as picture %d, S %d", x.part, p.PictureID, p.S)
		}
		if got := isKeyFrame(webrtc.MimeTypeVP8, payload); got != x.key {
			t.Errorf("%+v: key frame %v", x.part, got)
		}
		putVideo(webrtc.MimeTypeAV1, payload, x.part)
		if got := isKeyFrame(webrtc.MimeTypeAV1, payload); got != x.key {
			t.Errorf("AV1 %+v: key frame %v", x.part, got)
		}
	}
	for _, short := range [][]byte{nil, {0x10}, {0x90, 0x80}, {0x90, 0xff, 0xff, 0}} {
		if isKeyFrame(webrtc.MimeTypeVP8, short) {
			t.Errorf("%x is a key frame", short)
		}
	}
}

func TestPayloadOf(t *testing.T) {
	p := rtp.Packet{Header: rtp.Header{Version: 2, CSRC: []uint32{1, 2}}, Payload: []byte{1, 2, 3}}
	if err := p.SetExtension(1, []byte{9}); err != nil {
		t.Fatal(err)
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	head, err := payloadOf(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Payload, b[head:]); diff != "" {
		t.Error(diff)
	}
	for n := range head {
		if _, err := payloadOf(b[:n]); err == nil {
			t.Errorf("%d bytes of a header of %d parse", n, head)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(packets(1, 1)[0])
	f.Add([]byte{0x90, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m meter
		m.add(b, 0)
		if head, err := payloadOf(b); err == nil {
			isKeyFrame(webrtc.MimeTypeVP8, b[head:])
			isKeyFrame(webrtc.MimeTypeAV1, b[head:])
		}
	})
}
