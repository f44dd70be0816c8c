package sfu

import "slices"

// maxTold is how many tracks are offered to a participant who answers through
// Mattermost, which takes descriptions of up to 64 KiB (rtcd protocol §5.5): a
// browser's answer has half a KiB and more for each, besides what it publishes
// itself. On a longer one it would be cut off from everything.
const maxTold = 90

// fit leaves out of the tracks that a participant should receive what it could not
// answer to: the voices of those who are muted, then those of the last. What can
// be seen comes first. Whoever signals on the data channel gets everything.
func fit(want []*up, most int) []*up {
	if len(want) <= most {
		return want
	}
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
	return out[:most]
}
