package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
)

var update = flag.Bool("update", false, "write the golden files")

func complaints(all []complaint) string {
	var b strings.Builder
	printComplaints(&b, "", all)
	return b.String()
}

// TestBadFiles compares all that is said about each broken file, to the letter.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d broken files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file)
			got := complaints(assemble(name, readDocument(source, name), nil).faults)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 {
				t.Errorf("%s is not broken", file)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSampleIsTheDefault reads the config.yaml that is shipped: it must say
// exactly what a missing file means, and name every key there is.
func TestSampleIsTheDefault(t *testing.T) {
	source, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc := readDocument(source, "config.yaml")
	if len(doc.faults) > 0 {
		t.Fatal(complaints(doc.faults))
	}
	got, err := merge(doc.tree, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(gateway.Default(), got); diff != "" {
		t.Errorf("config.yaml differs from Default (-default +file):\n%s", diff)
	}
	keys := 0
	schema().each(func(f *field) {
		keys++
		if _, ok := doc.at[f.path]; !ok {
			t.Errorf("config.yaml lacks %s", f.path)
		}
	})
	if keys < 45 {
		t.Errorf("schema has %d keys only", keys)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(source)), "\n") {
		_, value, _ := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); value != "" && !strings.Contains(line, "#") {
			t.Errorf("config.yaml:%d: no comment: %s", i+1, line)
		}
	}
}

// TestDefaultLacksOnlyTheUnknowable: what an empty file lacks is what nobody
// can guess, and nothing else.
func TestDefaultLacksOnlyTheUnknowable(t *testing.T) {
	var keys []string
	for _, p := range gateway.Default().Validate() {
		keys = append(keys, p.Key)
	}
	if want := []string{"domain", "turn.secret_file"}; !slices.Equal(keys, want) {
		t.Errorf("missing in Default: %v, want %v", keys, want)
	}
}

// TestGoodFiles loads each file, and compares with what printing it and loading
// that again gives.
func TestGoodFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	if len(files) < 5 {
		t.Fatalf("found %d good files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			first := load(file, nil)
			if len(first.faults) > 0 {
				t.Fatal(complaints(first.faults))
			}
			var printed bytes.Buffer
			if err := printConfig(&printed, first.Config); err != nil {
				t.Fatal(err)
			}
			second := assemble("printed.yaml", readDocument(printed.Bytes(), "printed.yaml"), nil)
			if len(second.faults) > 0 {
				t.Fatalf("%s\n%s", complaints(second.faults), printed.String())
			}
			if diff := cmp.Diff(first.Config, second.Config); diff != "" {
				t.Errorf("printed configuration differs:\n%s", diff)
			}
		})
	}
}

// TestEveryKeyCanBeSet sets each key to a value other than its default, in a
// file and in the environment, and finds it in the Config.
func TestEveryKeyCanBeSet(t *testing.T) {
	values := map[kind]string{
		aText: "other", aNumber: "7", aDuration: "7s", manyTexts: "[seven, eight]",
		manySections: "[{id: seven, key_file: /k}]",
	}
	schema().each(func(f *field) {
		if f.kind == aSection {
			return
		}
		value := values[f.kind]
		if f.path == "access.rules" {
			value = "[{path: /seven, allow: [seven]}]"
		}
		if f.kind == aFlag {
			value = map[bool]string{true: "false", false: "true"}[f.path == "turn.enabled"]
		}
		settings, faults := readEnviron([]string{variable(f.path) + "=" + value})
		if len(faults) > 0 {
			t.Errorf("%s: %s", f.path, complaints(faults))
			return
		}
		byEnv, err := merge(nil, settings)
		if err != nil {
			t.Errorf("%s: %v", f.path, err)
		}
		if cmp.Equal(byEnv, gateway.Default()) {
			t.Errorf("%s=%s changes nothing", variable(f.path), value)
		}
		parts := strings.Split(f.path, ".")
		source := strings.Join(parts, ": {") + ": " + value + strings.Repeat("}", len(parts)-1) + "\n"
		doc := readDocument([]byte(source), "f")
		byFile, err := merge(doc.tree, nil)
		if err != nil || len(doc.faults) > 0 {
			t.Errorf("%s: %v %s", source, err, complaints(doc.faults))
		}
		if diff := cmp.Diff(byEnv, byFile); diff != "" {
			t.Errorf("%s: file and environment differ:\n%s", f.path, diff)
		}
	})
}

// TestManyFaults: a file made of faults costs little and says little.
func TestManyFaults(t *testing.T) {
	for name, source := range map[string]string{
		"unknown keys":   strings.Repeat("unknown_key_again_and_again: 1\n", maxFile/31),
		"not text":       "turn: {relay_to: [" + strings.Repeat("1,", maxElements) + "]}",
		"no values":      "turn: {relay_to: [" + strings.Repeat("x,", maxElements) + "]}",
		"empty sections": "sfu: {api: {clients: [" + strings.Repeat("{},", maxElements) + "]}}",
	} {
		l := assemble("f", readDocument([]byte(source), "f"), nil)
		if len(l.faults) != maxComplaints+1 {
			t.Errorf("%s: %d complaints", name, len(l.faults))
		} else if last := l.faults[maxComplaints].text; last != moreText {
			t.Errorf("%s: last complaint is %q", name, last)
		}
	}
}

// TestLargeInput: what a file of the largest size can be made of is refused
// with few words.
func TestLargeInput(t *testing.T) {
	for name, test := range map[string]struct{ source, want string }{
		"brackets": {strings.Repeat("[", maxFile), "f:1:1: not valid YAML: exceeded max depth of 10000"},
		"braces":   {strings.Repeat("{a: ", maxFile/4), "f:1:1: not valid YAML: exceeded max depth of 10000"},
		"dashes":   {strings.Repeat("- ", maxFile/2), "f:1:1: not valid YAML: exceeded max depth of 10000"},
		"late":     {strings.Repeat("# no configuration\n", maxFile/20) + "a: b: c", "f:52429:1: not valid YAML: mapping values are not allowed in this context"},
		"list":     {"turn: {relay_to: [" + strings.Repeat("a,", maxFile/2-20) + "]}", "f:1:18: turn.relay_to: has 524268 elements: at most 1000 are possible"},
		"sections": {"sfu: {api: {clients: [" + strings.Repeat("{},", maxFile/4) + "]}}", "f:1:22: sfu.api.clients: has 262144 elements: at most 1000 are possible"},
	} {
		l := assemble("f", readDocument([]byte(test.source), "f"), nil)
		if len(l.faults) != 1 || l.faults[0].String() != test.want {
			t.Errorf("%s: %d complaints, the first %.200s", name, len(l.faults), l.faults[0])
		}
	}
}

func TestFileTooLarge(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, bytes.Repeat([]byte("#\n"), maxFile), 0o600); err != nil {
		t.Fatal(err)
	}
	l := load(name, nil)
	if got, want := complaints(l.faults), name+": larger than 1048576 bytes: this is not a configuration\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"upsteam", "upstream", 1}, {"doamin", "domain", 1}, {"hold", "hsts", 3}, {strings.Repeat("a", 100), "a", 64}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// FuzzLoad: whatever a file and a variable hold, loading ends, and without a
// fault the result is valid and survives being printed.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(source, "SALLYPORT_TLS={source: selfsigned}")
		}
	}
	f.Add([]byte("domain: a.example.com\nturn: {enabled: false}\n"), "SALLYPORT_UPSTREAM=[http://10.0.0.1]")
	f.Fuzz(func(t *testing.T, source []byte, variable string) {
		l := assemble("f", readDocument(source, "f"), []string{variable})
		for _, fault := range l.faults {
			if fault.at == (place{}) || strings.Contains(fault.String(), "\n") && fault.at.env == "" {
				t.Errorf("complaint %q", fault)
			}
		}
		if len(l.faults) > 0 {
			return
		}
		var printed bytes.Buffer
		if err := printConfig(&printed, l.Config); err != nil {
			t.Fatal(err)
		}
		again := assemble("p", readDocument(printed.Bytes(), "p"), nil)
		if len(again.faults) > 0 || !reflect.DeepEqual(l.Config, again.Config) {
			t.Errorf("%s\n%s", complaints(again.faults), cmp.Diff(l.Config, again.Config))
		}
	})
}
