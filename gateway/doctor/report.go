package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// maxText bounds a text, in runes: what a stranger answers may be long.
const maxText = 400

// Status is how a check ended.
type Status string

// The four ends of a check.
const (
	Pass Status = "PASS"
	Warn Status = "WARN" // works, but not for everybody or not for long
	Fail Status = "FAIL"
	Skip Status = "SKIP" // could not be asked
)

// Report is what Run found, in the order of IDs.
type Report struct {
	// Version is that of the program that asked; the caller sets it.
	Version string  `json:"version"`
	Checks  []Check `json:"checks"`
}

// Check is the outcome of one check.
type Check struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Text is what was found, one printable line.
	Text string `json:"text"`
	// Fix is what to do; empty when there is nothing.
	Fix string `json:"fix"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"ms"`

	group string
}

// Failed reports whether a check failed.
func (r Report) Failed() bool { return r.count(Fail) > 0 }

func (r Report) count(s Status) int {
	n := 0
	for _, c := range r.Checks {
		if c.Status == s {
			n++
		}
	}
	return n
}

// WriteJSON prints the report as one JSON object, indented. Its keys are
// stable.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteText prints the report for people: groups, one line for each check with
// what to do below it, and a summary as the last line.
func (r Report) WriteText(w io.Writer) error {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.ID))
	}
	var out strings.Builder
	group := ""
	for _, c := range r.Checks {
		if c.group != group {
			group = c.group
			fmt.Fprintf(&out, "%s\n", group)
		}
		fmt.Fprintf(&out, "  %s  %-*s  %s\n", c.Status, width, c.ID, c.Text)
		if c.Fix != "" {
			fmt.Fprintf(&out, "  %*s    -> %s\n", width+len(Pass), "", c.Fix)
		}
	}
	fmt.Fprintf(&out, "\n%s\n", r.summary())
	if _, err := io.WriteString(w, out.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// summary is the report in one line.
func (r Report) summary() string {
	parts := []string{fmt.Sprintf("%d of %d checks passed", r.count(Pass), len(r.Checks))}
	for _, kind := range []struct {
		status Status
		word   string
	}{{Fail, "failed"}, {Warn, "to look at"}, {Skip, "skipped"}} {
		if n := r.count(kind.status); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind.word))
		}
	}
	return strings.Join(parts, ", ")
}

// A result is what a check returns.
type result struct {
	status    Status
	text, fix string
}

func passed(format string, a ...any) result { return result{Pass, fmt.Sprintf(format, a...), ""} }
func warned(format string, a ...any) result { return result{Warn, fmt.Sprintf(format, a...), ""} }
func failed(format string, a ...any) result { return result{Fail, fmt.Sprintf(format, a...), ""} }
func skipped(format string, a ...any) result {
	return result{Skip, fmt.Sprintf(format, a...), ""}
}

// todo says what to do about it.
func (r result) todo(format string, a ...any) result {
	r.fix = fmt.Sprintf(format, a...)
	return r
}

// oneLine makes s safe to print: what others answered may hold line breaks and
// terminal sequences.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return '?' // control characters, and those that turn the direction of text
		}
		return r
	}, strings.TrimSpace(s))
	if runes := []rune(s); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return s
}
