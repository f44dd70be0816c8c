package sfu

import (
	"slices"

	"github.com/pion/webrtc/v3"
)

// maxTold is how many tracks are offered to a participant who answers through
// Mattermost, which takes descriptions of up to 64 KiB (rtcd protocol §5.5): a
// browser's answer has half a KiB and more for each, besides what it publishes
// itself. On a longer one it would be cut off from everything.
const maxTold = 90

// spareSections is how many media sections of a description are left to what a
// participant may yet publish.
const spareSections = 10

// fit leaves out of the tracks that a participant should receive what it could not
// answer to: the voices of those who are muted, then those of the last. What can
// be seen comes first. Whoever signals on the data channel gets what the
// sections of a description suffice for.
func fit(want []*up, most int) []*up {
	if len(want) <= most {
		return want
	}
	return important(want)[:most]
}

// important orders tracks by what is missed most.
func important(want []*up) []*up {
	rank := func(u *up) int {
		switch {
		case u.kind() != classVoice:
			return 0
		case u.on.Load():
			return 1
		}
		return 2
	}
	out := slices.Clone(want)
	slices.SortStableFunc(out, func(a, b *up) int { return rank(a) - rank(b) })
	return out
}

// fitSections is fit where a description has so many sections at most. have is how
// many it has of each kind: there is never one less, but one that is free is used
// again.
func fitSections(want []*up, have map[webrtc.RTPCodecType]int, most int) []*up {
	most -= 1 + spareSections // one is the data channels'
	total := 0
	for _, n := range have {
		total += n
	}
	if total+len(want) <= most {
		return want
	}
	var out []*up
	used := map[webrtc.RTPCodecType]int{}
	for _, u := range important(want) {
		kind := webrtc.RTPCodecTypeVideo
		if c := u.kind(); c == classVoice || c == classScreenAudio {
			kind = webrtc.RTPCodecTypeAudio
		}
		if used[kind] >= have[kind] { // it needs one more
			if total >= most {
				continue
			}
			total++
		}
		used[kind]++
		out = append(out, u)
	}
	return out
}

// fitting leaves out of the wanted tracks what the participant cannot be offered.
func (s *Session) fitting(all []*up) []*up {
	want := all
	if !s.member.DCSignaling {
		want = fit(want, s.told)
	}
	have := map[webrtc.RTPCodecType]int{}
	for _, t := range s.pc.GetTransceivers() {
		have[t.Kind()]++
	}
	want = fitSections(want, have, s.sections)
	s.crowded.Store(len(want) < len(all) || !s.member.DCSignaling && len(want) == s.told)
	return want
}
