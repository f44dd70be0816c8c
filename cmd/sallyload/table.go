package main

import (
	"fmt"
	"io"
	"strings"
)

// write prints the medians as a Markdown table, with a pair of rows for each
// load of two targets and the ratio between them.
func (c *Comparison) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", c.Machine)
	for i, name := range c.Targets {
		if len(c.Targets) > 1 {
			fmt.Fprintf(&b, "%s: %s\n", letter(i), name)
		}
	}
	b.WriteString("\n| load | target | packets/s out | CPU µs/packet out | CPU % of a core | p50 ms | p99 ms | loss % | KiB/session | join p95 ms | sallyload CPU % |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range c.Loads {
		for i, m := range r.Medians {
			r.row(&b, i, m)
		}
		if x := r.Ratios; x != nil {
			fmt.Fprintf(&b, "| %s | A/B | | **%s** | %s | | %s | | %s | | |\n", r.Load, share(x.CPUPerOut), share(x.CPUPercent), share(x.P99), share(x.PerSession))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) row(b *strings.Builder, i int, m *Median) {
	if m == nil {
		fmt.Fprintf(b, "| %s | %s | – | – | – | – | – | – | – | – | – |\n", r.Load, letter(i))
		return
	}
	out := "–"
	if m.PerSecond > 0 {
		out = fmt.Sprintf("%.1f", m.CPUPerOut)
	}
	fmt.Fprintf(b, "| %s | %s | %.0f | %s | %.1f | %.2f | %.2f | %s | %.0f | %.0f | %.0f |\n", r.Load, letter(i), m.PerSecond, out,
		m.CPUPercent, m.P50/1000, m.P99/1000, loss(m.Loss), m.PerSession, m.JoinP95/1000, m.LoadCPU)
}

func letter(i int) string { return string(rune('A' + i)) }

func share(x *float64) string {
	if x == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", *x)
}

// loss tells no loss from a little.
func loss(percent float64) string {
	if percent == 0 {
		return "0"
	}
	return fmt.Sprintf("%.3f", percent)
}
