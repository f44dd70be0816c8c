package main

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"regexp"
	"slices"
	"strings"
)

// The picture's measures, in pixels.
const (
	width     = 1200
	rowHeight = 16
	thinnest  = 0.4 // narrower boxes are left out
	head      = 58  // title and legend
	letter    = 6.2 // of the font
)

// version is the last element of a module's path from its second version on.
var version = regexp.MustCompile(`^v[0-9]+$`)

// A node is a function called by another, with all samples below it.
type node struct {
	name  string
	value int64
	group *group // of most of it, by value
	parts map[*group]int64
	calls map[string]*node
}

func newNode(name string) *node {
	return &node{name: name, parts: map[*group]int64{}, calls: map[string]*node{}}
}

func (n *node) add(v int64, g *group) {
	n.value += v
	n.parts[g] += v
	if n.group == nil || n.parts[g] > n.parts[n.group] {
		n.group = g
	}
}

// tree merges the samples by their outermost functions.
func tree(samples []sample) *node {
	root := newNode("all")
	for _, s := range samples {
		g := groupOf(s.stack)
		at := root
		at.add(s.value, g)
		for _, function := range slices.Backward(s.stack) {
			next := at.calls[function]
			if next == nil {
				next = newNode(function)
				at.calls[function] = next
			}
			at = next
			at.add(s.value, g)
		}
	}
	return root
}

// A picture is an SVG under way.
type picture struct {
	strings.Builder
	total  int64
	height int
}

// draw writes a flame graph: a box for each function, as wide as the time spent
// in it and in what it called, which stands on it.
func draw(w io.Writer, title string, samples []sample) error {
	root := tree(samples)
	p := &picture{total: root.value, height: head + rowHeight*(visible(root, root.value)+1) + 4}
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace, monospace" font-size="10">`+"\n", width, p.height)
	fmt.Fprintf(p, `<rect width="%d" height="%d" fill="#ffffff"/><text x="4" y="14" font-size="13">%s</text>`+"\n", width, p.height, html.EscapeString(title))
	p.legend(samples)
	p.node(root, 0, 0)
	p.WriteString("</svg>\n")
	_, err := io.WriteString(w, p.String())
	return err
}

// visible returns how many rows above a node have a box that is drawn.
func visible(n *node, total int64) int {
	rows := 0
	for _, c := range n.calls {
		if span(c.value, total) >= thinnest {
			rows = max(rows, 1+visible(c, total))
		}
	}
	return rows
}

func span(value, total int64) float64 { return width * float64(value) / float64(max(total, 1)) }

func (p *picture) legend(samples []sample) {
	all, total := shares(samples)
	x, y := 4.0, 30
	for i, s := range all {
		if i == (len(all)+1)/2 {
			x, y = 4, 44
		}
		text := fmt.Sprintf("%s %.0f %%", s.group.name, 100*float64(s.value)/float64(max(total, 1)))
		fmt.Fprintf(p, `<rect x="%.0f" y="%d" width="9" height="9" fill="%s"/><text x="%.0f" y="%d" font-size="9">%s</text>`+"\n", x, y-8, s.group.colour, x+12, y, html.EscapeString(text))
		x += 24 + 5.4*float64(len(text))
	}
}

// node draws a function at x and those it calls above it.
func (p *picture) node(n *node, x float64, row int) {
	w := span(n.value, p.total)
	if w < thinnest {
		return
	}
	y := p.height - 4 - rowHeight*(row+1)
	name := html.EscapeString(n.name)
	fmt.Fprintf(p, `<g><title>%s: %.2f %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" stroke="#ffffff" stroke-width="0.5"/>`,
		name, 100*float64(n.value)/float64(max(p.total, 1)), x, y, w, rowHeight, n.group.colour)
	if fits := int(w/letter) - 1; fits > 2 {
		fmt.Fprintf(p, `<text x="%.1f" y="%d">%s</text>`, x+2, y+11, html.EscapeString(shorten(n.name, fits)))
	}
	p.WriteString("</g>\n")
	for _, c := range slices.SortedFunc(values(n.calls), func(a, b *node) int { return cmp.Compare(a.name, b.name) }) {
		p.node(c, x, row+1)
		x += span(c.value, p.total)
	}
}

func values(m map[string]*node) func(func(*node) bool) {
	return func(yield func(*node) bool) {
		for _, n := range m {
			if !yield(n) {
				return
			}
		}
	}
}

// shorten leaves out the path of a function's package and a version at its end.
func shorten(name string, fits int) string {
	at := strings.LastIndexByte(name, '/')
	if element, _, _ := strings.Cut(name[at+1:], "."); at > 0 && version.MatchString(element) {
		at = strings.LastIndexByte(name[:at], '/')
	}
	name = name[at+1:]
	if len(name) > fits {
		name = name[:fits]
	}
	return name
}
