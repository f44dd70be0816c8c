package examples

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A dashboard is what our tests look at of Grafana's.
type dashboard struct {
	Title  string
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr, LegendFormat string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "grafana/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardIsComplete: Grafana takes the file, and every panel asks for
// something.
func TestDashboardIsComplete(t *testing.T) {
	d := readDashboard(t)
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] {
			t.Errorf("panel %q: its id %d is taken", p.Title, p.ID)
		}
		seen[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") || target.Expr == "" {
				t.Errorf("panel %q: %s", p.Title, target.Expr)
			}
		}
	}
	if d.Title == "" || len(seen) < 10 {
		t.Errorf("%q has %d panels", d.Title, len(seen))
	}
}

// TestDashboardAsksForLabelsThatExist: what a query groups by and a legend shows
// are labels that the documentation gives to that metric.
func TestDashboardAsksForLabelsThatExist(t *testing.T) {
	labels := documentedLabels(t)
	metric := regexp.MustCompile(`\b(?:sallyport|rtcd|go)_[a-z0-9_]+`)
	by := regexp.MustCompile(`by \(([^)]*)\)`)
	legend := regexp.MustCompile(`{{(\w+)}}`)
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			known := []string{"instance", "le"}
			for _, name := range metric.FindAllString(target.Expr, -1) {
				known = append(known, labels[strings.TrimSuffix(name, "_bucket")]...)
				if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "rtcd_process_") && labels[strings.TrimSuffix(name, "_bucket")] == nil {
					t.Errorf("panel %q: docs/operations.md has no %s", p.Title, name)
				}
			}
			var used []string
			for _, found := range by.FindAllStringSubmatch(target.Expr, -1) {
				used = append(used, strings.Split(found[1], ", ")...)
			}
			for _, found := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				used = append(used, found[1])
			}
			for _, label := range used {
				if !slices.Contains(known, label) {
					t.Errorf("panel %q: %s has no label %s", p.Title, target.Expr, label)
				}
			}
		}
	}
}

// documentedLabels is the labels of each metric in the table of the documentation,
// not nil if it has none.
func documentedLabels(t *testing.T) map[string][]string {
	t.Helper()
	quoted := regexp.MustCompile("`([a-zA-Z0-9_]+)`")
	labels := map[string][]string{}
	for line := range strings.Lines(read(t, filepath.Join(root, "docs/operations.md"))) {
		cells := strings.Split(line, " | ")
		if len(cells) < 2 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, name := range quoted.FindAllStringSubmatch(cells[0], -1) {
			all := []string{}
			for _, label := range quoted.FindAllStringSubmatch(cells[1], -1) {
				all = append(all, label[1])
			}
			labels[name[1]] = all
		}
	}
	if len(labels) < 50 {
		t.Fatalf("found %d metrics: the search is broken", len(labels))
	}
	return labels
}

// TestDashboardPanelsDoNotOverlap: each has its place in the 24 columns.
func TestDashboardPanelsDoNotOverlap(t *testing.T) {
	taken := map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q lies over %q at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
