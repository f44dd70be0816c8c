package sfu

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v3"
)

// A knownCodec is one that the SFU forwards.
type knownCodec struct {
	mime   string
	rtpmap string // as in the attribute of that name
	pt     uint8  // in our own offers
}

// knownCodecs is what the SFU forwards, as registerCodecs registers it.
var knownCodecs = []knownCodec{
	{webrtc.MimeTypeOpus, "opus/48000/2", 111},
	{webrtc.MimeTypeVP8, "VP8/90000", 96},
	{webrtc.MimeTypeAV1, "AV1/90000", 45},
}

// maxFormats is how many formats of one media section are looked at. Browsers
// have a codec in a handful of variants.
const maxFormats = 16

// named is the codecs that a media section names and the SFU knows, in the order
// of the section.
type named []webrtc.RTPCodecParameters

// find returns the first format of a codec.
func (n named) find(mime string) (webrtc.RTPCodecParameters, bool) {
	for _, c := range n {
		if strings.EqualFold(c.MimeType, mime) {
			return c, true
		}
	}
	return webrtc.RTPCodecParameters{}, false
}

// has reports whether a payload type is among the formats.
func (n named) has(pt string) bool {
	return slices.ContainsFunc(n, func(c webrtc.RTPCodecParameters) bool {
		return strconv.Itoa(int(c.PayloadType)) == pt
	})
}

// agreedCodecs is sectionCodecs of a section that is not turned down (RFC 8843
// §6: port 0, unless the transport is another section's).
func agreedCodecs(m *sdp.MediaDescription) named {
	if _, bundled := m.Attribute("bundle-only"); m.MediaName.Port.Value == 0 && !bundled {
		return nil
	}
	return sectionCodecs(m)
}

// sectionCodecs reads which of the known codecs a section names.
func sectionCodecs(m *sdp.MediaDescription) named {
	mimes := map[string]string{}
	feedback := map[string][]webrtc.RTCPFeedback{}
	for _, a := range m.Attributes {
		pt, value, _ := strings.Cut(a.Value, " ")
		switch a.Key {
		case "rtpmap":
			for _, k := range knownCodecs {
				if strings.EqualFold(k.rtpmap, value) && strings.HasPrefix(k.mime, m.MediaName.Media+"/") {
					mimes[pt] = k.mime
				}
			}
		case "rtcp-fb":
			kind, parameter, _ := strings.Cut(value, " ")
			feedback[pt] = append(feedback[pt], webrtc.RTCPFeedback{Type: kind, Parameter: parameter})
		}
	}
	var out named
	for _, format := range m.MediaName.Formats {
		pt, err := strconv.ParseUint(format, 10, 7)
		if err != nil || mimes[format] == "" || out.has(format) || len(out) == maxFormats {
			continue
		}
		c := webrtc.RTPCodecParameters{PayloadType: webrtc.PayloadType(pt)}
		c.MimeType = mimes[format]
		c.RTCPFeedback = append(slices.Clone(feedback[format]), feedback["*"]...)
		out = append(out, c)
	}
	return out
}

// strip leaves nothing in a section of what pion reads about formats but that of
// the named ones. pion looks at all attributes anew for each format, and gives up
// at one that it finds no attribute of.
func strip(m *sdp.MediaDescription, names named) {
	m.MediaName.Formats = m.MediaName.Formats[:0]
	for _, c := range names {
		m.MediaName.Formats = append(m.MediaName.Formats, strconv.Itoa(int(c.PayloadType)))
	}
	if len(names) == 0 {
		m.MediaName.Formats = []string{"0"} // which pion takes for none
	}
	seen := map[string]bool{}
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a sdp.Attribute) bool {
		pt, _, _ := strings.Cut(a.Value, " ")
		switch a.Key {
		case "rtpmap", "fmtp":
			again := seen[a.Key+pt]
			seen[a.Key+pt] = true
			return again || !names.has(pt)
		case "rtcp-fb":
			again := seen[a.Value]
			seen[a.Value] = true
			return again || pt != "*" && !names.has(pt)
		}
		return false
	})
}

// widen makes the first video section of a description name every video codec,
// for pion alone: it narrows what it will ever negotiate to the codecs of the
// first section it sees, and a participant may name one in one section and
// another in the next (rtcd protocol §4.11). What is added gets the payload type
// that another section gives it, or ours, or else any that is free.
func widen(d *sdp.SessionDescription) {
	taken := map[string]bool{}
	var first *sdp.MediaDescription
	var all named
	for _, m := range d.MediaDescriptions {
		for _, a := range m.Attributes {
			if a.Key == "rtpmap" {
				pt, _, _ := strings.Cut(a.Value, " ")
				taken[pt] = true
			}
		}
		if m.MediaName.Media == "video" {
			all = append(all, sectionCodecs(m)...)
			if first == nil {
				first = m
			}
		}
	}
	if first == nil {
		return
	}
	mine := sectionCodecs(first)
	for _, k := range knownCodecs {
		if _, ok := mine.find(k.mime); ok || !strings.HasPrefix(k.mime, "video/") {
			continue
		}
		pt := ""
		if c, ok := all.find(k.mime); ok {
			pt = strconv.Itoa(int(c.PayloadType))
		} else if pt = freeType(k.pt, taken); pt == "" {
			continue
		}
		taken[pt] = true
		if len(first.MediaName.Formats) == 1 && first.MediaName.Formats[0] == "0" {
			first.MediaName.Formats = nil
		}
		first.MediaName.Formats = append(first.MediaName.Formats, pt)
		first.WithValueAttribute("rtpmap", pt+" "+k.rtpmap)
		for _, f := range videoFeedback {
			first.WithValueAttribute("rtcp-fb", strings.TrimSpace(pt+" "+f.Type+" "+f.Parameter))
		}
		first.WithValueAttribute("rtcp-fb", pt+" transport-cc")
	}
}

// freeType returns a dynamic payload type that is not taken (RFC 5761 §4), want
// if possible, or "".
func freeType(want uint8, taken map[string]bool) string {
	if pt := strconv.Itoa(int(want)); !taken[pt] {
		return pt
	}
	for n := 127; n >= 35; n-- {
		if pt := strconv.Itoa(n); !taken[pt] && (n < 64 || n >= 96) {
			return pt
		}
	}
	return ""
}

// narrowAnswer takes the formats out of our answer that the participant has not
// offered: see widen.
func narrowAnswer(answer string, offered map[string]named) (string, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(answer); err != nil {
		return "", err
	}
	changed := false
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		kept := slices.DeleteFunc(sectionCodecs(m), func(c webrtc.RTPCodecParameters) bool {
			_, ok := offered[mid].find(c.MimeType)
			return !ok
		})
		if len(kept) > 0 && len(kept) < len(m.MediaName.Formats) {
			strip(m, kept)
			changed = true
		}
	}
	if !changed {
		return answer, nil
	}
	b, err := d.Marshal()
	return string(b), err
}

// hears writes down what the participant has said of its sections, and tells the
// tracks on them.
func (s *Session) hears(sections map[string]named) {
	for mid, names := range sections {
		s.codecs[mid] = names
	}
	for _, t := range s.pc.GetTransceivers() {
		if t.Sender() == nil {
			continue
		}
		if d, ok := t.Sender().Track().(*down); ok {
			d.agreed = s.codecs[t.Mid()]
		}
	}
}

// place adds a track to the connection, on a free section whose codecs the
// participant has named or on a new one. pion takes the first that is free:
// those that will not do are occupied meanwhile.
func (s *Session) place(d *down) (*webrtc.RTPSender, error) {
	var passed []*webrtc.RTPSender
	defer func() {
		for _, p := range passed {
			if err := s.pc.RemoveTrack(p); err != nil {
				s.log.Debug("free section", "err", err)
			}
		}
	}()
	for {
		sender, err := s.pc.AddTrack(d)
		if err != nil || s.suits(sender, d.up.mime()) {
			return sender, err
		}
		passed = append(passed, sender)
	}
}

// suits reports whether the section of a sender may carry a codec, as far as is
// known.
func (s *Session) suits(sender *webrtc.RTPSender, mime string) bool {
	for _, t := range s.pc.GetTransceivers() {
		if t.Sender() == sender && t.Mid() != "" {
			names, known := s.codecs[t.Mid()]
			_, ok := names.find(mime)
			return ok || !known
		}
	}
	return true
}
