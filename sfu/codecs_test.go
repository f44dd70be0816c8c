package sfu

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

const sdpHead = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"

func parseSDP(t *testing.T, text string) *sdp.SessionDescription {
	t.Helper()
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		t.Fatal(err)
	}
	return &d
}

// formats lists the known codecs of the section with a mid, as mime and payload
// type.
func formats(t *testing.T, text, mid string) []string {
	t.Helper()
	var out []string
	for _, m := range parseSDP(t, text).MediaDescriptions {
		if v, _ := m.Attribute("mid"); v != mid {
			continue
		}
		for _, c := range sectionCodecs(m) {
			out = append(out, fmt.Sprintf("%s:%d", strings.ToLower(strings.TrimPrefix(c.MimeType, "video/")), c.PayloadType))
		}
	}
	return out
}

func (n named) String() string {
	var out []string
	for _, c := range n {
		out = append(out, c.MimeType)
	}
	return strings.Join(out, " ")
}

func TestSectionCodecs(t *testing.T) {
	text := sdpHead + "m=video 9 UDP/TLS/RTP/SAVPF 97 45 96 96 500 x 98\r\n" +
		"a=rtpmap:96 vp8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:* nack pli\r\n" +
		"a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:45 AV1/90000\r\na=fmtp:45 profile=0\r\na=rtpmap:98 opus/48000/2\r\na=rtpmap:99 VP8/90000\r\n"
	m := parseSDP(t, text).MediaDescriptions[0]
	got := sectionCodecs(m)
	var want named
	for _, c := range []struct {
		mime string
		pt   webrtc.PayloadType
		fb   []webrtc.RTCPFeedback
	}{
		{webrtc.MimeTypeAV1, 45, []webrtc.RTCPFeedback{{Type: "nack", Parameter: "pli"}}},
		{webrtc.MimeTypeVP8, 96, []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack", Parameter: "pli"}}},
	} {
		p := webrtc.RTPCodecParameters{PayloadType: c.pt}
		p.MimeType, p.RTCPFeedback = c.mime, c.fb
		want = append(want, p)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(webrtc.RTPCodecParameters{})); diff != "" {
		t.Errorf("codecs (-want +got):\n%s", diff)
	}
	strip(m, got)
	if diff := cmp.Diff([]string{"45", "96"}, m.MediaName.Formats); diff != "" {
		t.Errorf("formats that are left (-want +got):\n%s", diff)
	}
	if n := len(m.Attributes); n != 6 {
		t.Errorf("%d attributes are left, want 6: %v", n, m.Attributes)
	}
	m.MediaName.Port.Value = 0
	if got := agreedCodecs(m); got != nil {
		t.Errorf("a section that was turned down names %s", got)
	}
	m.WithPropertyAttribute("bundle-only")
	if got := agreedCodecs(m); len(got) != 2 {
		t.Errorf("a section on another's transport names %q", got)
	}
}

// TestFormatsAreBounded: pion's cost of a section is the product of its formats
// and its attributes.
func TestFormatsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(sdpHead + "m=video 9 UDP/TLS/RTP/SAVPF" + strings.Repeat(" 96 97", 20000) + "\r\n")
	for range 5000 {
		b.WriteString("a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n")
	}
	m := parseSDP(t, b.String()).MediaDescriptions[0]
	strip(m, sectionCodecs(m))
	if f, a := len(m.MediaName.Formats), len(m.Attributes); f != 1 || a != 2 {
		t.Errorf("%d formats and %d attributes are left, want 1 and 2", f, a)
	}
}

func TestWidenAndNarrow(t *testing.T) {
	vp8 := section("video", "96", "VP8/90000", "1")
	for _, tt := range []struct {
		name, sections string
		want           []string // of the first section, once widened
	}{
		{"VP8 only", vp8, []string{"vp8:96", "av1:45"}},
		{"AV1 only", section("video", "41", "AV1/90000", "1"), []string{"av1:41", "vp8:96"}},
		{"both", strings.Replace(vp8, "SAVPF 96", "SAVPF 96 45", 1) + "a=rtpmap:45 AV1/90000\r\n", []string{"vp8:96", "av1:45"}},
		{"AV1 in another section", vp8 + section("video", "41", "AV1/90000", "2"), []string{"vp8:96", "av1:41"}},
		{"our payload type is taken", vp8 + section("audio", "45", "opus/48000/2", "2"), []string{"vp8:96", "av1:127"}},
		{"after audio", section("audio", "111", "opus/48000/2", "0") + vp8, []string{"vp8:96", "av1:45"}},
		{"nothing known", section("video", "0", "H264/90000", "1"), []string{"vp8:96", "av1:45"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := parseSDP(t, sdpHead+tt.sections)
			offered := map[string]named{}
			for _, m := range d.MediaDescriptions {
				mid, _ := m.Attribute("mid")
				offered[mid] = sectionCodecs(m)
			}
			before := formats(t, sdpHead+tt.sections, "1")
			widen(d)
			b, err := d.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, formats(t, string(b), "1")); diff != "" {
				t.Errorf("widened (-want +got):\n%s", diff)
			}
			if before == nil {
				return // an answer would have nothing left
			}
			answer, err := narrowAnswer(string(b), offered)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, formats(t, answer, "1")); diff != "" {
				t.Errorf("narrowed again (-want +got):\n%s", diff)
			}
		})
	}
}

// wide makes a pion guest hear every codec from the first answer on: its library
// narrows itself too, which browsers do not.
func wide(s string) string {
	var d sdp.SessionDescription
	if !strings.HasPrefix(s, "v=0") || d.UnmarshalString(s) != nil {
		return s
	}
	widen(&d)
	b, err := d.Marshal()
	if err != nil {
		return s
	}
	return string(b)
}

// publishAlone publishes a track on a new section that names its codec only.
func (g *guest) publishAlone(mime string) *source {
	g.t.Helper()
	s := &source{g: g, stop: make(chan struct{}), level: 127}
	var err error
	if s.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, "track-"+mime, "screen"); err != nil {
		g.t.Fatal(err)
	}
	g.negotiate(func() {
		tr, err := g.pc.AddTransceiverFromTrack(s.track)
		if err != nil {
			g.t.Fatal(err)
		}
		s.sender = tr.Sender()
		for _, k := range knownCodecs {
			if k.mime == mime {
				c := webrtc.RTPCodecParameters{PayloadType: webrtc.PayloadType(k.pt)}
				c.MimeType, c.ClockRate = mime, 90000
				if err := tr.SetCodecPreferences([]webrtc.RTPCodecParameters{c}); err != nil {
					g.t.Fatal(err)
				}
			}
		}
	})
	s.wg.Go(s.send)
	s.wg.Go(s.feedback)
	g.t.Cleanup(s.end)
	return s
}

// TestOneSectionForEachCodec: as the Calls web client publishes a screen.
func TestOneSectionForEachCodec(t *testing.T) {
	for name, order := range map[string][]string{"VP8 first": {webrtc.MimeTypeVP8, webrtc.MimeTypeAV1}, "AV1 first": {webrtc.MimeTypeAV1, webrtc.MimeTypeVP8}} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t)
			pub := join(t, srv, "call", "alpha", guestOptions{av1: true, rewrite: wide})
			plain, modern := join(t, srv, "call", "plain", guestOptions{}), join(t, srv, "call", "modern", guestOptions{av1: true})
			pub.sess.ScreenOn("screen")
			for i, mime := range order {
				pub.publishAlone(mime)
				want := strings.ToLower(strings.TrimPrefix(mime, "video/"))
				got := formats(t, pub.pc.CurrentLocalDescription().SDP, []string{"1", "2"}[i])
				if len(got) != 1 || !strings.HasPrefix(got[0], want) {
					t.Fatalf("the offer of section %d names %v, want %s only", i+1, got, want)
				}
			}
			gets := func(g *guest, mime string) {
				t.Helper()
				until(t, g.name+" to get "+mime, func() bool {
					g.mu.Lock()
					defer g.mu.Unlock()
					for _, h := range g.heard {
						if h.track.Codec().MimeType == mime && len(h.packets) > 5 {
							return true
						}
					}
					return false
				})
			}
			gets(modern, webrtc.MimeTypeAV1)
			gets(plain, webrtc.MimeTypeVP8)
		})
	}
}

// TestAnswerNamesWhatWasOffered: what only pion was told of does not get out.
func TestAnswerNamesWhatWasOffered(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{})
	a.offerEdited(func(s string) string {
		s = strings.Replace(s, "a=group:BUNDLE 0", "a=group:BUNDLE 0 7 8", 1)
		return s + section("video", "96", "VP8/90000", "7", "a=sendrecv") + section("video", "41", "AV1/90000", "8", "a=sendrecv")
	})
	answer := (<-a.answers).SDP
	if diff := cmp.Diff([][]string{{"vp8:96"}, {"av1:41"}}, [][]string{formats(t, answer, "7"), formats(t, answer, "8")}); diff != "" {
		t.Errorf("codecs of the answer (-want +got):\n%s", diff)
	}
}

// TestTrackGoesWhereItsCodecIsAgreed: a section on which the participant has
// named one codec carries no other, although it is free.
func TestTrackGoesWhereItsCodecIsAgreed(t *testing.T) {
	srv := startServer(t)
	pub, r := join(t, srv, "call", "alpha", guestOptions{av1: true}), join(t, srv, "call", "beta", guestOptions{av1: true, rewrite: wide})
	mine := r.publishAlone(webrtc.MimeTypeVP8) // nobody announced it: it is not distributed
	pub.sess.ScreenOn("screen")
	pub.publish(webrtc.MimeTypeAV1, "screen")
	h := r.hears(classScreen, "alpha")
	if h.track.Codec().MimeType != webrtc.MimeTypeAV1 {
		t.Errorf("got %s", h.track.Codec().MimeType)
	}
	var used []string
	for _, tr := range r.sess.pc.GetTransceivers() {
		if tr.Sender() != nil {
			used = append(used, tr.Mid())
		}
	}
	if len(used) != 1 || slices.Contains(used, "1") {
		t.Errorf("AV1 is sent on the sections %v: section 1 is for VP8 alone", used)
	}
	mine.end()
}

// TestAnswerToChromium: to its own words, with one section for VP8 in layers and
// one for AV1.
func TestAnswerToChromium(t *testing.T) {
	seed, err := os.ReadFile("testdata/fuzz/FuzzIntake/chromium-av1-section")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for line := range strings.Lines(string(seed)) {
		if quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "string("); ok {
			text, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
	}
	m := muteSignal{answers: make(chan wire.Description, 4), closed: make(chan struct{})}
	s, err := nowhereServer(t).Join(Member{Group: "g", Call: "c", User: "u", Session: "s"}, m)
	if err != nil {
		t.Fatal(err)
	}
	s.Describe(wire.Description{Type: "offer", SDP: texts[0]})
	<-m.answers
	s.postWait(func() { s.phase = active })
	s.Describe(wire.Description{Type: "offer", SDP: texts[2]})
	answer := (<-m.answers).SDP
	s.Leave()
	<-m.closed
	if diff := cmp.Diff([][]string{{"vp8:96"}, {"av1:45"}}, [][]string{formats(t, answer, "2"), formats(t, answer, "3")}); diff != "" {
		t.Errorf("codecs of the answer (-want +got):\n%s", diff)
	}
	for _, line := range []string{"a=rid:l recv", "a=rid:h recv", "a=fmtp:45 level-idx=5;profile=0;tier=0"} {
		if !strings.Contains(answer, line+"\r\n") {
			t.Errorf("the answer lacks %s", line)
		}
	}
}
