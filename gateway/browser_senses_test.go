package gateway_test

import (
	"fmt"
	"time"
)

// A medium is one stream that arrives, as watch.js says.
type medium struct {
	Name                         string
	Codec                        string
	PacketsReceived, PacketsLost int
	TotalAudioEnergy             float64
	FramesDecoded                int
	FrameWidth, FrameHeight      int
	KeyFramesDecoded             int
	BytesReceived                int
	FreezeCount                  int
	FrozenSeconds                float64
}

func (c *caller) media() map[string]medium {
	c.t.Helper()
	var list []medium
	c.eval(`watchMedia()`, &list)
	out := map[string]medium{}
	for _, m := range list {
		out[m.Name] = m
	}
	return out
}

// until asks every 100 ms whether something has come true.
func (c *caller) until(what string, holds func() error) {
	c.t.Helper()
	deadline := time.Now().Add(45 * time.Second)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s (%s): %s: %v", c.name, c.ways, what, err)
		}
		time.Sleep(100 * time.Millisecond) // between two looks
	}
}

// hears waits for a second of sound from each of the streams, with something in
// it and hardly any loss.
func (c *caller) hears(names ...string) {
	c.t.Helper()
	before := c.media()
	c.until("hear", func() error {
		now := c.media()
		for _, name := range names {
			x, y := before[name], now[name]
			packets, lost := y.PacketsReceived-x.PacketsReceived, y.PacketsLost-x.PacketsLost
			if packets < 50 || y.TotalAudioEnergy <= x.TotalAudioEnergy || lost*20 > packets {
				return fmt.Errorf("%s: %d packets, %d lost, energy %g → %g", name, packets, lost, x.TotalAudioEnergy, y.TotalAudioEnergy)
			}
		}
		return nil
	})
}

// silent waits until nothing comes of a stream for half a second.
func (c *caller) silent(name string) {
	c.t.Helper()
	packets, since := -1, time.Now()
	c.until("silence", func() error {
		if n := c.media()[name].PacketsReceived; n != packets {
			packets, since = n, time.Now()
		}
		if time.Since(since) < 500*time.Millisecond {
			return fmt.Errorf("%s: %d packets", name, packets)
		}
		return nil
	})
}

// A reading is what watch.js reads of the screen's counter.
type reading struct {
	Value   int
	Lag     int // milliseconds
	Problem string
}

func (c *caller) reads() (r reading) {
	c.t.Helper()
	c.eval(`(() => { try { return watchCounter('#screen-video'); } catch (error) { return {problem: error.message}; } })()`, &r)
	return r
}

// A picture may be usually and at most so old, in milliseconds: the low layer has
// five a second, and the machine much else to do.
const (
	usualLag = 1000
	mostLag  = 4000
)

// seesCounter waits for a picture of the screen that can be read and is of now.
func (c *caller) seesCounter() {
	c.t.Helper()
	c.until("see the screen", func() error {
		if r := c.reads(); r.Problem != "" || r.Lag > usualLag {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// counts looks at the counter for two seconds, longer where the machine is slow to
// look: it can always be read, it moves, and it does not fall behind.
func (c *caller) counts() {
	c.t.Helper()
	first, best, worst := c.reads(), mostLag, 0
	seen := map[int]bool{}
	began := time.Now()
	for took := time.Duration(0); took < 2*time.Second || len(seen) < 4 && took < 8*time.Second; took = time.Since(began) {
		time.Sleep(50 * time.Millisecond)
		r := c.reads()
		if r.Problem != "" {
			c.t.Errorf("%s (%s): %s", c.name, c.ways, r.Problem)
			return
		}
		seen[r.Value], best, worst = true, min(best, r.Lag), max(worst, r.Lag)
	}
	advance := (c.reads().Value - first.Value) & 0xffff
	if best > usualLag || worst > mostLag || len(seen) < 4 || advance == 0 || advance > mostLag/20 {
		c.t.Errorf("%s (%s): the counter advanced by %d in %v, in %d steps, %d to %d ms late", c.name, c.ways, advance, time.Since(began), len(seen), best, worst)
	}
	c.t.Logf("%s: %d pictures in %v, %d to %d ms late", c.name, len(seen), time.Since(began), best, worst)
}

// rate waits until so many pictures a second are decoded.
func (c *caller) rate(name string, least int) {
	c.t.Helper()
	before, since := 0, time.Time{}
	c.until("high layer", func() error {
		if time.Since(since) > 2*time.Second {
			before, since = c.media()[name].FramesDecoded, time.Now()
		}
		frames := c.media()[name].FramesDecoded - before
		if seconds := time.Since(since).Seconds(); seconds < 1 || float64(frames) < float64(least)*seconds {
			return fmt.Errorf("%d pictures in %.1f s", frames, seconds)
		}
		return nil
	})
}
