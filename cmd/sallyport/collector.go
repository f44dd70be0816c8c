package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	collectorLook = 100 * time.Millisecond
	// The heap may grow by what is allocated in collectEvery, measured over
	// collectorMemory, or by heapGrowth if that is more, and by no more than mostRoom.
	collectEvery    = 250 * time.Millisecond
	collectorMemory = 2 * time.Second
	mostRoom        = 64 << 20
)

// A collector gives the heap room while much is allocated. A proxied request
// allocates some 10 KB; when the heap may grow by a quarter only, the
// garbage collector runs a hundred times a second under load and takes a third of the
// processor time. Media allocates next to nothing, and gets no room for it.
type collector struct {
	read func() (allocated, live uint64) // bytes: ever; in use after the last collection
	set  func(percent int)

	last    uint64
	rate    float64 // bytes a second, smoothed
	percent int
}

func newCollector() *collector {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	return &collector{
		percent: heapGrowth,
		set:     func(percent int) { debug.SetGCPercent(percent) },
		read: func() (allocated, live uint64) {
			metrics.Read(samples)
			return samples[0].Value.Uint64(), samples[1].Value.Uint64()
		},
	}
}

// Run gives room until ctx ends. A GOGC in the environment has the last word.
func (c *collector) Run(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	c.last, _ = c.read()
	tick := time.NewTicker(collectorLook)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			c.look(now.Sub(before))
			before = now
		}
	}
}

// look judges the time since the last look.
func (c *collector) look(passed time.Duration) {
	allocated, live := c.read()
	if passed <= 0 || live == 0 {
		return
	}
	now := float64(allocated-c.last) / passed.Seconds()
	c.last = allocated
	c.rate += (now - c.rate) * min(1, passed.Seconds()/collectorMemory.Seconds())
	room := min(c.rate*collectEvery.Seconds(), mostRoom)
	percent := max(heapGrowth, int(100*room/float64(live)))
	// Setting it stops the world: a little more or less is not worth it.
	if percent > c.percent*5/4 || percent < c.percent*3/4 || percent == heapGrowth && c.percent != heapGrowth {
		c.percent = percent
		c.set(percent)
	}
}
