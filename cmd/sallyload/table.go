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
	header := "| load | server | packets/s out | CPU µs/packet out | CPU % of a core | p50 ms | p99 ms | loss % | KiB/session | join p95 ms | sallyload CPU % |"
	if c.crowds {
		header += " leave p95 ms | failed joins | missing tracks |"
	}
	fmt.Fprintf(&b, "%s\n|---|---%s|\n", header, strings.Repeat("|--:", strings.Count(header, "|")-3))
	runs := 0
	for _, r := range c.Loads {
		for i, m := range r.Medians {
			runs = max(runs, len(r.Runs[i]))
			r.row(&b, c.Names[i], m, c.crowds)
		}
		if x := r.Ratios; x != nil {
			fmt.Fprintf(&b, "| %s | *ratio* | | **%s** | %s | | %s | | %s | | |\n", r.Load, share(x.CPUPerOut), share(x.CPUPercent), share(x.P99), share(x.PerSession))
		}
	}
	fmt.Fprintf(&b, "\nMedians of %d runs. %s.\n", runs, c.Machine)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) row(b *strings.Builder, name string, m *Median, crowd bool) {
	if m == nil {
		return // the load is not for this server
	}
	out, p50, p99 := "–", "–", "–"
	if m.PerSecond > 0 {
		out, p50, p99 = fmt.Sprintf("%.1f", m.CPUPerOut), fmt.Sprintf("%.2f", m.P50/1000), fmt.Sprintf("%.2f", m.P99/1000)
	}
	fmt.Fprintf(b, "| %s | %s | %.0f | %s | %.1f | %s | %s | %s | %.0f | %.0f | %.0f |", r.Load, name, m.PerSecond, out,
		m.CPUPercent, p50, p99, loss(m.Loss), m.PerSession, m.JoinP95/1000, m.LoadCPU)
	if crowd {
		fmt.Fprintf(b, " %.0f | %.0f | %.0f |", m.LeaveP95/1000, m.Failed, m.Missing)
	}
	b.WriteString("\n")
}

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
