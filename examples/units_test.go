package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits: systemd takes the units as they are.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	units, err := filepath.Glob("systemd/*.s[eo]*")
	if err != nil || len(units) < 4 {
		t.Fatalf("found %v, %v", units, err)
	}
	dir := t.TempDir()
	var copies []string
	for _, unit := range units {
		text := strings.ReplaceAll(read(t, unit), "/usr/local/bin/sallyport", "/bin/true") // which is not installed here
		name := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, name)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, copies...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			t.Error(line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
