package main

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	// processorsLook is how often the load is looked at: the longest that a
	// sudden load has one processor alone.
	processorsLook = 100 * time.Millisecond
	// Shares of one core in percent: below lightLoad for lightFor on end, the
	// process has one processor; above heavyLoad it has all of them again. At 30 %
	// one saves a seventh, at 43 % it costs no more than several.
	lightLoad = 40
	heavyLoad = 60
	lightFor  = 5 * time.Second
)

// A thrift lets Go run on one processor while there is little to do. What waits
// for packets and timers then wakes one thread; with several, each packet also
// wakes a second one, which looks for work and goes to sleep again. For 200 idle
// participants these switches cost more than the work, for 160 of whom 40 speak a
// seventh of all. A GOMAXPROCS in the environment has the last word.
type thrift struct {
	log      *slog.Logger
	used     func() time.Duration // processor time of this process so far
	one, all func()               // set the number of processors

	single bool
	last   time.Duration // used, at the last look
	light  time.Duration // for how long the load has been light
}

func newThrift(logger *slog.Logger) *thrift {
	return &thrift{log: logger, used: processorTime, one: func() { runtime.GOMAXPROCS(1) }, all: runtime.SetDefaultGOMAXPROCS}
}

// Run chooses until ctx ends, and leaves all processors behind. It returns nil.
func (t *thrift) Run(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	t.last = t.used()
	tick := time.NewTicker(processorsLook)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-ctx.Done():
			if t.single {
				t.all()
			}
			return nil
		case <-tick.C:
			now := time.Now()
			t.look(now.Sub(before))
			before = now
		}
	}
}

// look judges the time since the last look.
func (t *thrift) look(passed time.Duration) {
	used := t.used()
	load := int(100 * (used - t.last) / max(passed, 1))
	t.last = used
	if load < lightLoad {
		t.light += passed
	} else {
		t.light -= min(t.light, 10*passed) // a second for a busy moment: the collector has such too
	}
	switch {
	case t.single && load > heavyLoad:
		t.single, t.light = false, 0
		t.all()
		t.log.Debug("processors", "load", load, "all", true)
	case !t.single && t.light >= lightFor:
		t.single = true
		t.one()
		t.log.Debug("processors", "load", load, "all", false)
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
