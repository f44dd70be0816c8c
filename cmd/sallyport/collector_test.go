package main

import (
	"testing"
	"time"
)

// TestCollector allocates at several rates and wants the room that the heap has
// in the end.
func TestCollector(t *testing.T) {
	const live = 8 << 20
	for _, test := range []struct {
		name     string
		rate     []int // bytes a second, each for 10 s
		min, max int   // percent
		sets     int   // at most
	}{
		{"silent participants", []int{1 << 20}, heapGrowth, heapGrowth, 0},
		{"many requests", []int{100 << 20}, 230, 320, 20},
		{"more than there is room for", []int{10 << 30}, 600, 800, 30},
		{"many, then none", []int{100 << 20, 0}, heapGrowth, heapGrowth, 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			var allocated uint64
			percent, sets := heapGrowth, 0
			c := newCollector()
			c.read = func() (uint64, uint64) { return allocated, live }
			c.set = func(p int) { percent, sets = p, sets+1 }
			for _, rate := range test.rate {
				for range int(10 * time.Second / collectorLook) {
					allocated += uint64(rate) * uint64(collectorLook) / uint64(time.Second)
					c.look(collectorLook)
				}
			}
			if percent < test.min || percent > test.max || sets > test.sets {
				t.Errorf("%d %% after %d changes, want %d to %d after %d at most", percent, sets, test.min, test.max, test.sets)
			}
		})
	}
}
