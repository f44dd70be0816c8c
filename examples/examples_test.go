// Package examples holds configurations to start from. Its tests see to it that
// they, and those in the documentation, are what the program accepts.
package examples

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// root is the root of the repository.
const root = ".."

// A sample is one configuration of Sallyport somewhere in an example or a page.
type sample struct{ name, text string }

// TestConfigurations runs every configuration through sallyport check.
func TestConfigurations(t *testing.T) {
	binary := build(t)
	samples := slices.Concat(configFiles(t), configMaps(t), configFences(t))
	if len(samples) < 7 {
		t.Fatalf("found %d configurations: the search is broken", len(samples))
	}
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			if _, complaints, err := check(t, binary, s.text); err != nil {
				t.Errorf("sallyport check: %v\n%s", err, complaints)
			} else if complaints != "" {
				t.Errorf("sallyport check complains:\n%s", complaints)
			}
		})
	}
}

// TestCheckRefuses: the test above can fail.
func TestCheckRefuses(t *testing.T) {
	binary := build(t)
	out, complaints, err := check(t, binary, "domain: chat.example.com\nupstrem: http://127.0.0.1:8065\n")
	if err == nil || !strings.Contains(complaints, "upstrem") {
		t.Errorf("a misspelt key passes:\n%s%s", out, complaints)
	}
}

// TestOverrides: the environment variables that the pages show.
func TestOverrides(t *testing.T) {
	binary := build(t)
	text := read(t, "systemd/config.yaml")
	out, complaints, err := check(t, binary, text,
		"SALLYPORT_TURN__SECRET_FILE=/etc/sallyport/turn-secret", "SALLYPORT_LISTEN__HTTP=",
		"SALLYPORT_SFU__API__CLIENTS=[{id: mattermost, key_file: /etc/sallyport/rtcd-key}]")
	if err != nil {
		t.Fatalf("sallyport check: %v\n%s", err, complaints)
	}
	for _, want := range []string{"secret_file: /etc/sallyport/turn-secret\n", "http: \"\"\n", "key_file: /etc/sallyport/rtcd-key\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, out)
		}
	}
}

// TestSampleConfigIsTheDefault: config.yaml in the root shows every key with
// its default, so that it and no file at all amount to the same.
func TestSampleConfigIsTheDefault(t *testing.T) {
	binary := build(t)
	needed := []string{"SALLYPORT_DOMAIN=chat.example.com", "SALLYPORT_TURN__SECRET_FILE=/etc/sallyport/turn-secret"}
	with, complaints, err := check(t, binary, read(t, filepath.Join(root, "config.yaml")), needed...)
	if err != nil {
		t.Fatalf("sallyport check: %v\n%s", err, complaints)
	}
	without, complaints, err := check(t, binary, "", needed...)
	if err != nil {
		t.Fatalf("sallyport check: %v\n%s", err, complaints)
	}
	if with != without {
		t.Errorf("config.yaml amounts to\n%s\nno file to\n%s", with, without)
	}
}

// TestMetricNames: dashboard, alerts and documentation name metrics that exist.
func TestMetricNames(t *testing.T) {
	known := metricNames(t)
	name := regexp.MustCompile(`\b(?:sallyport|rtcd)_[a-z0-9_]*[a-z0-9]`)
	for _, file := range []string{"grafana/dashboard.json", "grafana/alerts.yml", filepath.Join(root, "docs/operations.md"), filepath.Join(root, "docs/mattermost.md")} {
		used := name.FindAllString(read(t, file), -1)
		if len(used) < 3 {
			t.Errorf("%s: found %d metrics: the search is broken", file, len(used))
		}
		for _, n := range used {
			base := n
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !known[n] && !known[base] && !strings.HasPrefix(n, "rtcd_process") {
				t.Errorf("%s: there is no metric %s", file, n)
			}
		}
	}
}

// build compiles the command into a directory of the test.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sallyport")
	command := exec.Command("go", "build", "-o", binary, "./cmd/sallyport")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// check runs sallyport check on text. It leaves out the warnings that
// a secret's file does not exist: on this machine none does.
func check(t *testing.T, binary, text string, environ ...string) (out, complaints string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary, "check", "-config", file)
	command.Env = environ
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err = command.Run()
	for line := range strings.Lines(stderr.String()) {
		if !strings.Contains(line, "warning: ") || !strings.HasSuffix(line, " does not exist\n") {
			complaints += line
		}
	}
	return stdout.String(), complaints, err
}

// configFiles are the files config.yaml below here.
func configFiles(t *testing.T) (all []sample) {
	t.Helper()
	names, err := filepath.Glob("*/config.yaml")
	if err != nil || len(names) < 3 {
		t.Fatalf("found %v, %v", names, err)
	}
	for _, n := range names {
		all = append(all, sample{n, read(t, n)})
	}
	return all
}

// configMaps are the configurations in manifests of Kubernetes.
func configMaps(t *testing.T) (all []sample) {
	t.Helper()
	const file = "kubernetes/sallyport.yaml"
	for d := yaml.NewDecoder(strings.NewReader(read(t, file))); ; {
		var object struct {
			Kind string
			Data map[string]string
		}
		if err := d.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if text, ok := object.Data["config.yaml"]; ok && object.Kind == "ConfigMap" {
			all = append(all, sample{file, text})
		}
	}
	if len(all) == 0 {
		t.Errorf("%s: no configuration", file)
	}
	return all
}

// configFences are the blocks of code in the pages that begin with the line
// "# config.yaml".
func configFences(t *testing.T) (all []sample) {
	t.Helper()
	fence := regexp.MustCompile("(?s)```yaml\n(# config.yaml\n.*?)```")
	for _, page := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(read(t, page), -1) {
			all = append(all, sample{page, m[1]})
		}
	}
	return all
}

// metricNames finds the names of our metrics in the files that make them: whole
// ones, and those that are put together with the prefix of their package.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "*", "metrics*.go"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "*", "*", "metrics*.go"))
	if err != nil || len(files)+len(more) < 4 {
		t.Fatalf("found %v and %v, %v", files, more, err)
	}
	text := regexp.MustCompile(`"([a-z0-9_]+)"`)
	known := map[string]bool{}
	for _, file := range slices.Concat(files, more) {
		found := text.FindAllStringSubmatch(read(t, file), -1)
		for _, name := range found {
			known[name[1]] = true
			for _, prefix := range found {
				if strings.HasSuffix(prefix[1], "_") {
					known[prefix[1]+name[1]] = true
				}
			}
		}
	}
	return known
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
