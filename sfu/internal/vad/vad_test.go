package vad

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An event is a change of state and when it came.
type event struct {
	At time.Duration
	On bool
}

// run pushes one level each 20 ms and returns the changes.
func run(levels []uint8) []event {
	var m Monitor
	var out []event
	start := time.Unix(0, 0)
	for i, l := range levels {
		at := time.Duration(i) * 20 * time.Millisecond
		if on, changed := m.Push(l, start.Add(at)); changed {
			out = append(out, event{at, on})
		}
	}
	return out
}

func repeat(n int, levels ...uint8) []uint8 {
	out := make([]uint8, 0, n*len(levels))
	for range n {
		out = append(out, levels...)
	}
	return out
}

func TestMonitor(t *testing.T) {
	silence := repeat(50, 127)
	tests := []struct {
		name   string
		levels []uint8
		want   []event
	}{
		{"speech begins with the 51st level", append(repeat(50, 127), 40), []event{{time.Second, true}}},
		{
			"speech ends two seconds later at the earliest",
			append(append(append(repeat(50, 127), 40), repeat(50, 40, 110)...), repeat(500, 127)...),
			[]event{{time.Second, true}, {3980 * time.Millisecond, false}},
		},
		{"one quiet packet is nothing", append(append(repeat(50, 127), 100), repeat(200, 127)...), nil},
		{"level 52 is the limit", append(append([]uint8{}, silence...), 52), []event{{time.Second, true}}},
		{"level 53 is above it", append(append([]uint8{}, silence...), 53), nil},
		{"no decision before a full window", append(repeat(25, 127, 0), 127), []event{{time.Second, true}}},
		{"levels beyond the range count as silence", repeat(200, 255), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, run(tt.levels)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResetNeedsAWholeWindow(t *testing.T) {
	var m Monitor
	now := time.Unix(0, 0)
	for range 50 {
		m.Push(127, now)
	}
	if on, _ := m.Push(40, now); !on {
		t.Fatal("no speech before the reset")
	}
	m.Reset()
	for i := range 50 {
		if on, changed := m.Push(uint8(i%2)*127, now); on || changed {
			t.Fatalf("level %d after the reset: on=%v changed=%v", i, on, changed)
		}
	}
	if on, changed := m.Push(0, now); !on || !changed {
		t.Fatal("no speech after a whole new window")
	}
}

func BenchmarkPush(b *testing.B) {
	var m Monitor
	now := time.Unix(0, 0)
	for i := 0; b.Loop(); i++ {
		m.Push(uint8(i), now)
	}
}
