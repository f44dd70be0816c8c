package gateway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "sallyport"

// arrows says which packages of ours a package may import: only those below it,
// and none beside it. A pattern's * stands for one element of a path.
var arrows = []struct {
	from string
	to   []string
}{
	{"cmd/sallyport", []string{"gateway", "gateway/admin", "gateway/demo", "gateway/doctor", "turn", "sfu/rtcd"}},
	{"cmd/sallyload", []string{"sfu/peer", "sfu/wire"}},
	{"cmd/sallyload/baseline", []string{"sfu/wire"}}, // what sallyload compares us with: not part of the product
	{"cmd/sallyload/flame", nil},
	{"cmd/sallyload/proxy", nil}, // a measuring rod, as baseline is
	{"gateway", []string{"gateway/admin", "gateway/doctor", "tls", "turn", "sfu", "sfu/rtcd"}},
	{"gateway/admin", nil},
	{"gateway/demo", []string{"sfu/peer", "sfu/wire"}},
	{"gateway/doctor", []string{"turn", "sfu/peer", "sfu/wire"}},
	{"tls", nil},
	{"turn", nil},
	{"sfu", []string{"sfu/wire", "sfu/internal/*"}},
	{"sfu/rtcd", []string{"sfu", "sfu/wire"}},
	{"sfu/peer", []string{"sfu/wire"}},
	{"sfu/conformance", nil}, // tests only
	{"sfu/wire", nil},
	{"examples", nil},
	{"sfu/internal/*", []string{"sfu/internal/*"}},
}

// walls says which packages of ours may import what nobody else may. A library
// that one package wraps is seen by no other, so it can be replaced there.
var walls = []struct {
	imported string // a package, and all below it
	by       []string
}{
	{"crypto/tls", []string{"tls", "gateway/doctor", "cmd/sallyload", "cmd/sallyload/proxy"}}, // they look at us from outside
	{"github.com/caddyserver/certmagic", []string{"tls"}},
	{"github.com/pion/turn", []string{"turn"}},
	{"github.com/pion/webrtc", []string{"sfu", "sfu/*", "sfu/internal/*", "cmd/sallyload/baseline"}},
	{"github.com/pion/ice", []string{"sfu", "sfu/*", "sfu/internal/*"}},
	{"github.com/knadh/koanf", []string{"cmd/sallyport"}},
	{"testing", nil}, // pion/ice links it all the same
}

// TestWalls keeps the house as it was planned: see doc.go. It looks at what is
// compiled into the product, not at tests.
func TestWalls(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		may, known := allowed(name)
		if !known {
			t.Errorf("%s: not in the table of arrows: say there what it may import", name)
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !matches(may, ours) {
				t.Errorf("%s imports %s: no arrow leads there", name, ours)
			}
			for _, w := range walls {
				if (imported == w.imported || strings.HasPrefix(imported, w.imported+"/")) && !matches(w.by, name) {
					t.Errorf("%s imports %s: only %v may", name, imported, w.by)
				}
			}
		}
	}
}

// TestArrowsPointDown: following the arrows one never comes back.
func TestArrowsPointDown(t *testing.T) {
	below := map[string][]string{}
	for _, a := range arrows {
		for _, to := range a.to {
			if a.from != to { // a pattern that covers several packages
				below[a.from] = append(below[a.from], to)
			}
		}
	}
	var walk func(at string, way []string)
	walk = func(at string, way []string) {
		if slices.Contains(way, at) {
			t.Fatalf("arrows lead in a circle: %v", append(way, at))
		}
		for _, next := range below[at] {
			walk(next, append(slices.Clone(way), at))
		}
	}
	for _, a := range arrows {
		walk(a.from, nil)
	}
	if matches(below["turn"], "sfu") || matches(below["sfu"], "turn") {
		t.Error("turn and sfu must not know each other")
	}
}

// TestWallsHold: the rules above do refuse something.
func TestWallsHold(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     bool
	}{
		{"gateway", "turn", true}, {"turn", "sfu", false}, {"sfu", "turn", false}, {"tls", "gateway", false},
		{"sfu/wire", "sfu", false}, {"sfu", "sfu/internal/rate", true}, {"sfu", "sfu/rtcd", false}, {"sfu/peer", "sfu", false},
	} {
		may, known := allowed(test.from)
		if got := matches(may, test.to); !known || got != test.want {
			t.Errorf("%s may import %s: %v, want %v", test.from, test.to, got, test.want)
		}
	}
	if _, known := allowed("gateway/other"); known {
		t.Error("a package that is in no table is known")
	}
}

func allowed(name string) (may []string, known bool) {
	for _, a := range arrows {
		if matches([]string{a.from}, name) {
			may, known = append(may, a.to...), true
		}
	}
	return may, known
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

type listed struct {
	ImportPath string
	Imports    []string
}

// listPackages asks the go command for every package of ours.
func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	command.Dir = ".."
	var problems bytes.Buffer
	command.Stderr = &problems
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, problems.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 2 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}
