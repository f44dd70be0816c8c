package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Comparison is the outcome of several runs: of each load against each target.
type Comparison struct {
	Machine string   `json:"machine"` // that sallyload ran on
	Targets []string `json:"targets"`
	Names   []string `json:"names"`
	Loads   []Result `json:"loads"`

	crowds bool // the table tells of coming and going too
}

// A Result is one load against all targets.
type Result struct {
	Load    string    `json:"load"`
	Medians []*Median `json:"medians"` // by target; null if the target cannot carry the load
	// Ratios are the first target's medians divided by the second's; null
	// without two, or where the second is 0.
	Ratios *Ratios     `json:"ratios,omitempty"`
	Runs   [][]*Report `json:"runs"` // by target
}

// A Median is the middle of several runs, each figure for itself.
type Median struct {
	CPUPerOut  float64 `json:"cpu_us_per_packet_out"`
	CPUPercent float64 `json:"cpu_percent"`
	PerSecond  float64 `json:"received_per_second"`
	Loss       float64 `json:"loss_percent"`
	P50        float64 `json:"latency_p50_us"`
	P99        float64 `json:"latency_p99_us"`
	PerSession float64 `json:"memory_kib_per_session"`
	JoinP95    float64 `json:"join_p95_us"`
	LeaveP95   float64 `json:"leave_p95_us"`
	LoadCPU    float64 `json:"load_cpu_percent"`
	Failed     float64 `json:"failed_joins"`
	Missing    float64 `json:"missing_tracks"`
}

// Ratios compare two targets; below 1 the first one needs less.
type Ratios struct {
	CPUPerOut  *float64 `json:"cpu_us_per_packet_out"`
	CPUPercent *float64 `json:"cpu_percent"`
	P99        *float64 `json:"latency_p99_us"`
	PerSession *float64 `json:"memory_kib_per_session"`
}

// compareAll runs every load of o against every target, in alternation so that
// what else the machine does falls on all of them. An interrupt or an error ends
// it with what has been measured until then.
func compareAll(ctx context.Context, o options, stderr io.Writer) (*Comparison, error) {
	c := &Comparison{Machine: machine(), Names: o.names, crowds: o.crowds}
	for _, t := range o.targets {
		c.Targets = append(c.Targets, t.name)
	}
	loads := o.loads
	if loads == nil {
		loads = []shape{o.shape()}
	}
	for _, s := range loads {
		result, err := o.repeat(ctx, s, stderr)
		c.Loads = append(c.Loads, result)
		if err != nil {
			return c, fmt.Errorf("load %s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return c, nil
}

// repeat runs one load against every target in turn.
func (o options) repeat(ctx context.Context, s shape, stderr io.Writer) (result Result, err error) {
	result = Result{Load: s.name, Runs: make([][]*Report, len(o.targets)), Medians: make([]*Median, len(o.targets))}
	defer result.conclude()
	lacks := make([]bool, len(o.targets))
	for run := range o.runs {
		order := make([]int, len(o.targets))
		for i := range order {
			order[i] = (i + run) % len(order)
		}
		for _, i := range order {
			if lacks[i] || ctx.Err() != nil {
				continue
			}
			fmt.Fprintf(stderr, "%s, run %d of %d: %s\n", s.name, run+1, o.runs, o.targets[i].name)
			r, err := runOne(ctx, o.load(s), o.targets[i], stderr)
			if errors.Is(err, errNotAnnounced) {
				lacks[i] = true // this road does not lead to every server
				continue
			}
			if err != nil {
				return result, err
			}
			if ctx.Err() != nil && run > 0 {
				break // cut short, and no use beside whole ones
			}
			r.Load = s.name
			fmt.Fprintln(stderr, "  "+r.line())
			result.Runs[i] = append(result.Runs[i], r)
		}
	}
	return result, nil
}

// conclude works out what the runs amount to.
func (result *Result) conclude() {
	for i, runs := range result.Runs {
		result.Medians[i] = medianOf(runs)
	}
	if m := result.Medians; len(m) == 2 && m[0] != nil && m[1] != nil {
		result.Ratios = &Ratios{
			CPUPerOut: ratio(m[0].CPUPerOut, m[1].CPUPerOut), CPUPercent: ratio(m[0].CPUPercent, m[1].CPUPercent),
			P99: ratio(m[0].P99, m[1].P99), PerSession: ratio(m[0].PerSession, m[1].PerSession),
		}
	}
}

// runOne starts the target if it is to be started, and puts it under load once.
func runOne(ctx context.Context, o options, t target, stderr io.Writer) (*Report, error) {
	s, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	l := &load{options: o, server: s, stderr: stderr}
	r, err := l.run(ctx)
	if err := errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	r.Target = t.name
	return r, nil
}

// medianOf returns nil for no runs.
func medianOf(runs []*Report) *Median {
	if len(runs) == 0 {
		return nil
	}
	return &Median{
		CPUPerOut:  median(runs, (*Report).perOut),
		CPUPercent: median(runs, func(r *Report) float64 { return r.server().CPUPercent }),
		PerSecond:  median(runs, func(r *Report) float64 { return r.Packets.PerSecond }),
		Loss:       median(runs, func(r *Report) float64 { return r.Packets.Loss }),
		P50:        median(runs, func(r *Report) float64 { return float64(r.LatencyUS.P50) }),
		P99:        median(runs, func(r *Report) float64 { return float64(r.LatencyUS.P99) }),
		PerSession: median(runs, func(r *Report) float64 { return r.server().PerSession }),
		JoinP95:    median(runs, func(r *Report) float64 { return float64(r.Joins.TimeUS.P95) }),
		LeaveP95:   median(runs, func(r *Report) float64 { return float64(r.Leaves.TimeUS.P95) }),
		LoadCPU:    median(runs, func(r *Report) float64 { return r.LoadCPU }),
		Failed:     median(runs, func(r *Report) float64 { return float64(r.Joins.Failed) }),
		Missing:    median(runs, func(r *Report) float64 { return float64(r.Tracks.Wanted - r.Tracks.Got) }),
	}
}

// perOut returns 0 where nothing came out.
func (r *Report) perOut() float64 {
	if r.Packets.Received == 0 {
		return 0
	}
	return r.server().PerOut
}

// line is a run in one line.
func (r *Report) line() string {
	return fmt.Sprintf("%d joined, %d failed, %d of %d tracks; %.0f packets/s out, %.1f µs each, loss %s %%, p99 %.2f ms",
		r.Joins.Wanted-r.Joins.Failed, r.Joins.Failed, r.Tracks.Got, r.Tracks.Wanted, r.Packets.PerSecond, r.perOut(), loss(r.Packets.Loss), float64(r.LatencyUS.P99)/1000)
}

// server returns what the processes spent, zeros if they are not known.
func (r *Report) server() Server {
	if r.Server == nil {
		return Server{}
	}
	return *r.Server
}

func median(runs []*Report, figure func(*Report) float64) float64 {
	values := make([]float64, 0, len(runs))
	for _, r := range runs {
		values = append(values, figure(r))
	}
	slices.SortFunc(values, cmp.Compare[float64])
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

func ratio(a, b float64) *float64 {
	if b == 0 {
		return nil
	}
	r := a / b
	return &r
}
