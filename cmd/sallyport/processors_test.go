package main

import (
	"log/slog"
	"testing"
	"time"
)

// TestThrift gives loads in percent of a core, one for each look, and wants the
// number of processors after each stretch of them.
func TestThrift(t *testing.T) {
	type stretch struct {
		load   int
		looks  int
		single bool
	}
	five := int(lightFor / processorsLook)
	for _, test := range []struct {
		name string
		load []stretch
	}{
		{"light load takes its time", []stretch{{10, five - 1, false}, {10, 1, true}}},
		{"heavy load does not", []stretch{{10, five, true}, {80, 1, false}}},
		{"the same load leaves things as they are", []stretch{{50, five, false}, {10, 2 * five, true}, {50, 2 * five, true}}},
		{"one busy moment", []stretch{{10, five - 1, false}, {90, 1, false}, {10, five / 2, true}}},
		{"heavy again and again", []stretch{{10, five / 2, false}, {90, five, false}, {10, five - 1, false}, {10, 1, true}}},
		{"back and forth", []stretch{{1, five, true}, {99, 1, false}, {1, five - 1, false}, {1, 1, true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var used time.Duration
			single := false
			th := newThrift(slog.New(slog.DiscardHandler))
			th.used = func() time.Duration { return used }
			th.one, th.all = func() { single = true }, func() { single = false }
			for i, s := range test.load {
				for range s.looks {
					used += processorsLook / 100 * time.Duration(s.load)
					th.look(processorsLook)
				}
				if single != s.single {
					t.Fatalf("stretch %d: one processor: %t, want %t", i, single, s.single)
				}
			}
		})
	}
}

func TestProcessorTimePasses(t *testing.T) {
	before := processorTime()
	for deadline := time.Now().Add(10 * time.Second); processorTime() == before; {
		if time.Now().After(deadline) {
			t.Fatal("10 s of work took no processor time")
		}
	}
}
