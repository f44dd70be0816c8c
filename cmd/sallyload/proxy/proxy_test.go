package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]outcome{
		"1 200 3000\n2 200 1000\n3 200 2000\n": {3, time.Second, 3 * time.Millisecond},
		"":                                     {},
		"1 502 10\n":                           {},
		"1 200\n":                              {},
		"1 200 soon\n":                         {},
	} {
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readLog(log, time.Second); got != want || (err == nil) != (want.requests > 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestTables(t *testing.T) {
	r := results{}
	for _, v := range []float64{300, 100, 200} {
		r.add(loads[0].name, "sallyport", "cpu", v)
		r.add(loads[0].name, "nginx", "cpu", 2*v)
		r.add("2000 WebSockets", "nginx", "memory", v)
	}
	var out strings.Builder
	r.print(&out, []string{"sallyport", "nginx"}, 3)
	for _, want := range []string{
		"| HTTP/1.1, 1 KiB | Sallyport | 200.0 |  | 0 | 0.0 |\n",
		"| HTTP/1.1, 1 KiB | nginx | 400.0 | **0.50** | 0 | 0.0 |\n",
		"| 2000 WebSockets | nginx | 200.0 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// Children count: nginx works in them.
func TestUsageCountsChildren(t *testing.T) {
	// The shell waits for its child, which has used some time when it says so.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read line'; true`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	got, err := (&target{cmd: cmd}).usage()
	if err != nil || got.cpu == 0 || got.memory == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	_ = in.Close()
	_ = cmd.Wait() // of what read says at the end, nothing
	if got, err := (&target{cmd: cmd}).usage(); err == nil {
		t.Errorf("after its end: %+v", got)
	}
}
