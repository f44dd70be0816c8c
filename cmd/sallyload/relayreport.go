package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Relays is what relaying packets costs. The subjects of its figures are the
// targets, the last of which does without TURN.
type Relays struct {
	Machine  string    `json:"machine"` // that sallyload ran on
	Targets  []string  `json:"targets"`
	Names    []string  `json:"names"`
	Rate     int       `json:"rate"`     // packets a second
	Repeated int       `json:"repeated"` // how often each was measured
	Loads    []Relayed `json:"loads"`
	Latency  []Delayed `json:"latency"`
	Idle     []Idle    `json:"idle"`
}

// Relayed is one load.
type Relayed struct {
	Path      string    `json:"path"`
	Direction direction `json:"direction"`
	Bytes     int       `json:"bytes"` // of payload in each packet
	Flows     int       `json:"flows"` // clients that send, or get, the packets
	Subjects  []Spent   `json:"subjects"`
	// Ratio is the first subject's processor time divided by the second's, and Alone
	// the same of what is left of both when the last subject's is taken off, which in
	// the noise may be nothing.
	Ratio *float64 `json:"ratio"`
	Alone *float64 `json:"ratio_alone"`
}

// Spent is what one subject spent on a load.
type Spent struct {
	CPU       float64   `json:"cpu_us_per_packet"` // median of the runs
	Loss      float64   `json:"loss_percent"`      // of all of them
	Runs      []float64 `json:"cpu_us_per_packet_of_runs"`
	PerSecond []float64 `json:"packets_per_second_of_runs"`
}

// Delayed is how long packets took from one client to another.
type Delayed struct {
	Path     string  `json:"path"`
	Rate     int     `json:"rate"`
	Subjects []Delay `json:"subjects"`
}

// Delay is one subject's part, medians of the runs.
type Delay struct {
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
}

// Idle is what allocations cost that nobody uses.
type Idle struct {
	Server      string  `json:"server"`
	Allocations int     `json:"allocations"`
	Failed      int     `json:"failed"`
	BeforeMiB   float64 `json:"memory_before_mib"`
	MemoryMiB   float64 `json:"memory_mib"`
}

func (c *Relayed) conclude() {
	ours, theirs := c.Subjects[0].CPU, c.Subjects[1].CPU
	without := c.Subjects[2].CPU
	c.Ratio, c.Alone = ratio(ours, theirs), ratio(max(ours-without, 0), max(theirs-without, 0))
}

// name is what -suite relay:PATTERN looks at.
func (c *Relayed) name() string {
	return fmt.Sprintf("%s %s %dx%d", c.Path, c.Direction, c.Flows, c.Bytes)
}

func (c *Relayed) line(names []string) string {
	s := c.Subjects
	return fmt.Sprintf("%s: %s %.1f µs (loss %s %%), %s %.1f µs (%s %%), without %.1f µs (%s %%); at %.0f packets/s",
		c.name(), names[0], s[0].CPU, loss(s[0].Loss), names[1], s[1].CPU, loss(s[1].Loss), s[2].CPU, loss(s[2].Loss), c.perSecond())
}

// perSecond is how many packets all subjects got at least, in the median.
func (c *Relayed) perSecond() float64 {
	least := math.Inf(1)
	for _, s := range c.Subjects {
		least = min(least, middle(s.PerSecond, func(x float64) float64 { return x }))
	}
	return least
}

func (c *Delayed) line(names []string) string {
	s := c.Subjects
	return fmt.Sprintf("%s at %d packets/s: p50 and p99 %s %.0f and %.0f µs, %s %.0f and %.0f µs, without %.0f and %.0f µs",
		c.Path, c.Rate, names[0], s[0].P50, s[0].P99, names[1], s[1].P50, s[1].P99, s[2].P50, s[2].P99)
}

func (x *Idle) line() string {
	return fmt.Sprintf("%d idle allocations: %s %.0f MiB, %.0f before", x.Allocations, x.Server, x.MemoryMiB, x.BeforeMiB)
}

// write prints Markdown tables.
func (r *Relays) write(w io.Writer) error {
	var b strings.Builder
	a, c := r.Names[0], r.Names[1]
	if len(r.Loads) > 0 {
		table(&b, "way | direction", "flows", "bytes", "packets/s", a+" µs/packet", c+" µs/packet", "*ratio*", "no TURN µs/packet",
			"relaying alone: "+a+" µs", c+" µs", "*ratio*", "loss %: "+a, c, "no TURN")
	}
	for _, l := range r.Loads {
		s := l.Subjects
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %.0f | %.1f | %.1f | **%s** | %.1f | %.1f | %.1f | %s | %s | %s | %s |\n", wayName(l.Path), l.Direction, l.Flows, l.Bytes, l.perSecond(),
			s[0].CPU, s[1].CPU, share(l.Ratio), s[2].CPU, s[0].CPU-s[2].CPU, s[1].CPU-s[2].CPU, share(l.Alone), loss(s[0].Loss), loss(s[1].Loss), loss(s[2].Loss))
	}
	if len(r.Latency) > 0 {
		table(&b, "way, up and down", a+" p50 ms", "p99 ms", c+" p50 ms", "p99 ms", "no TURN p50 ms", "p99 ms", "added p99 ms: "+a, c)
	}
	for _, l := range r.Latency {
		s := l.Subjects
		fmt.Fprintf(&b, "| %s |", wayName(l.Path))
		for _, us := range []float64{s[0].P50, s[0].P99, s[1].P50, s[1].P99, s[2].P50, s[2].P99, s[0].P99 - s[2].P99, s[1].P99 - s[2].P99} {
			fmt.Fprintf(&b, " %.2f |", us/1000)
		}
		b.WriteString("\n")
	}
	if len(r.Idle) > 0 {
		table(&b, "idle TURN/TLS allocations", "MiB before", "MiB with them", "KiB each")
	}
	for _, x := range r.Idle {
		n := x.Allocations - x.Failed
		fmt.Fprintf(&b, "| %s: %d | %.0f | %.0f | %.0f |\n", x.Server, n, x.BeforeMiB, x.MemoryMiB, (x.MemoryMiB-x.BeforeMiB)*1024/float64(max(n, 1)))
	}
	fmt.Fprintf(&b, "\nMedians of %d runs. %s.\n", r.Repeated, r.Machine)
	_, err := io.WriteString(w, strings.TrimPrefix(b.String(), "\n"))
	return err
}

// table begins a table. The columns are figures, but for the first.
func table(b *strings.Builder, first string, columns ...string) {
	fmt.Fprintf(b, "\n| %s | %s |\n|%s%s\n", first, strings.Join(columns, " | "),
		strings.Repeat("---|", 1+strings.Count(first, "|")), strings.Repeat("--:|", len(columns)))
}

// wayName is how tables call a path.
func wayName(path string) string {
	return strings.ToUpper(strings.ReplaceAll(path, "-", "/"))
}
