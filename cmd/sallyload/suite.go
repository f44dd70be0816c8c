package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/sfu/peer"
)

// A shape is one load of a suite.
type shape struct {
	name                  string
	calls, users, unmuted int
	screen                bool
	path                  peer.Path
}

// suites are the loads of docs/performance.md.
var suites = map[string][]shape{
	// One call of each kind, and the narrow paths.
	"standard": {
		{"20x8x2", 20, 8, 2, false, peer.UDP},
		{"1x50x2", 1, 50, 2, false, peer.UDP},
		{"1x200x2", 1, 200, 2, false, peer.UDP},
		{"2x10x2 screen", 2, 10, 2, true, peer.UDP},
		{"6x8x2", 6, 8, 2, false, peer.UDP},
		{"6x8x2 TCP", 6, 8, 2, false, peer.TCP},
		{"6x8x2 TURN/TLS", 6, 8, 2, false, peer.TURNTLS},
		{"25x8 idle", 25, 8, 0, false, peer.UDP},
	},
	// What the documentation of Mattermost Calls has figures for.
	"seed": {
		{"100x8x2", 100, 8, 2, false, peer.UDP},
		{"100x8x2 screen", 100, 8, 2, true, peer.UDP},
		{"10x50x2", 10, 50, 2, false, peer.UDP},
		{"10x50x2 screen", 10, 50, 2, true, peer.UDP},
		{"5x200x2", 5, 200, 2, false, peer.UDP},
		{"5x200x2 screen", 5, 200, 2, true, peer.UDP},
	},
	// Through TURN, and directly.
	"turn": {
		{"6x8x2", 6, 8, 2, false, peer.UDP},
		{"6x8x2 TURN/UDP", 6, 8, 2, false, peer.TURNUDP},
		{"6x8x2 TURN/TCP", 6, 8, 2, false, peer.TURNTCP},
		{"6x8x2 TURN/TLS", 6, 8, 2, false, peer.TURNTLS},
	},
	// Many in one call, and many calls.
	"big": {
		{"1x1000x2", 1, 1000, 2, false, peer.UDP},
		{"1x200x2 screen", 1, 200, 2, true, peer.UDP},
		{"250x2x1", 250, 2, 1, false, peer.UDP},
		{"1000x2x1", 1000, 2, 1, false, peer.UDP},
	},
	// What a profile is taken of.
	"profile": {
		{"20x8x2", 20, 8, 2, false, peer.UDP},
		{"1x50x2 screen", 1, 50, 2, true, peer.UDP},
	},
}

func suiteNames() string {
	return strings.Join(append(slices.Sorted(maps.Keys(suites)), relaySuiteName), ", ")
}

// suite returns the loads of "NAME", or those of "NAME:PATTERN,PATTERN…" whose
// names contain one of the patterns.
func suite(name string) ([]shape, error) {
	name, patterns, some := strings.Cut(name, ":")
	all, known := suites[name]
	if !known {
		return nil, fmt.Errorf("unknown suite %q: want one of %s", name, suiteNames())
	}
	if !some {
		return all, nil
	}
	var chosen []shape
	for _, s := range all {
		if matches(s.name, strings.Split(patterns, ",")) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no load of suite %s has %q in its name", name, patterns)
	}
	return chosen, nil
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(name, p) })
}

// load returns the options of one run.
func (o options) load(s shape) options {
	o.calls, o.users, o.unmuted, o.screen, o.camera, o.path = s.calls, s.users, s.unmuted, s.screen, false, s.path
	return o
}

// shape returns the load of the flags.
func (o *options) shape() shape {
	name := fmt.Sprintf("%dx%dx%d", o.calls, o.users, o.unmuted)
	if o.screen {
		name += " screen"
	}
	if o.camera {
		name += " camera"
	}
	if o.path != peer.Auto && o.path != peer.UDP {
		name += " " + o.path.String()
	}
	return shape{name, o.calls, o.users, o.unmuted, o.screen, o.path}
}
