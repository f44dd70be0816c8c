package sfu

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// A pulse tells how regularly this process runs.
type pulse struct {
	done  chan struct{}
	all   sync.WaitGroup
	worst time.Duration // what the last beat was late at most; whoever has stopped it may read it
}

func startPulse() *pulse {
	p := &pulse{done: make(chan struct{})}
	p.all.Go(func() {
		const beat = 5 * time.Millisecond
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-p.done:
				return
			case <-tick.C:
			}
			now := time.Now()
			p.worst, last = max(p.worst, now.Sub(last)-beat), now
		}
	})
	return p
}

// stop returns for how long the process did not run at most.
func (p *pulse) stop() time.Duration {
	close(p.done)
	p.all.Wait()
	return p.worst
}

// others returns the processor time that everything but this process has taken,
// since the machine began; 0 where the system does not tell as Linux does.
func others() time.Duration {
	const tick = time.Second / 100 // of both files (proc(5))
	whole, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	var user, nice, system int64
	_, _ = fmt.Sscanf(string(whole), "cpu %d %d %d", &user, &nice, &system)
	f := strings.Fields(string(own[strings.LastIndexByte(string(own), ')')+1:])) // from the third field on
	var u, s int64
	if len(f) > 12 {
		_, _ = fmt.Sscan(f[11]+" "+f[12], &u, &s)
	}
	return time.Duration(user+nice+system-u-s) * tick
}
