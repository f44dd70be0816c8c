package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// text runs sallyload and returns what it prints.
func text(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, log bytes.Buffer
	status = run(t.Context(), args, &out, &log)
	return status, out.String(), log.String()
}

func TestParseTarget(t *testing.T) {
	for _, x := range []struct {
		name string
		want target
	}{
		{"http://h:1", target{url: "http://h:1"}},
		{"http://h:1#pid=3,4", target{url: "http://h:1", pids: []int{3, 4}}},
		{"http://h:1 rtcd -c x", target{url: "http://h:1", argv: []string{"rtcd", "-c", "x"}}},
		{`a 'b c' "d'e"f ''`, target{argv: []string{"a", "b c", "d'ef", ""}}},
	} {
		x.want.name = x.name
		got, err := parseTarget(x.name)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		if diff := cmp.Diff(x.want, got, cmp.AllowUnexported(target{})); diff != "" {
			t.Errorf("%s: %s", x.name, diff)
		}
	}
	for _, bad := range []string{"", "  ", "'open", "http://h:1#pid=x", "http://h:1#1", "http://h:1#pid=1 command"} {
		if got, err := parseTarget(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func TestAnnouncement(t *testing.T) {
	for line, want := range map[string]map[string]string{
		`{"msg":"serving","api":"127.0.0.1:1","n":3}`: {"msg": "serving", "api": "127.0.0.1:1"},
		"up now api=127.0.0.1:1 admin=127.0.0.1:2":    {"api": "127.0.0.1:1", "admin": "127.0.0.1:2"},
		`{"msg":"serving"}`:                           nil,
		"api= x":                                      nil,
		"api":                                         nil,
		"":                                            nil,
	} {
		if diff := cmp.Diff(want, announcement(line)); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

func TestWatchReadsLines(t *testing.T) {
	w := &watch{found: make(chan map[string]string, 1)}
	for _, part := range []string{"first\nap", "i=h:1\n", "api=h:2\nlast"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := <-w.found; got["api"] != "h:1" {
		t.Errorf("announced %v, want the first", got)
	}
	if got := w.tail(); got != "first\napi=h:1\napi=h:2\nlast" {
		t.Errorf("tail %q", got)
	}
	for range 100 {
		fmt.Fprint(w, strings.Repeat("x", 10_000))
	}
	if len(w.line) > 1<<17 {
		t.Errorf("%d bytes of a line without end are kept", len(w.line))
	}
}

// A command that does not serve is explained by what it printed.
func TestTargetThatEnds(t *testing.T) {
	for _, name := range []string{"'" + os.Args[0] + "' -test.run NoSuchTest", "/does/not/exist"} {
		status, _, stderr := text(t, name)
		if status != 1 || !strings.Contains(stderr, "start target") {
			t.Errorf("%s: status %d, %q", name, status, stderr)
		}
	}
}

// A command with a URL is up when it answers there.
func TestTargetWithURL(t *testing.T) {
	up := httptest.NewServer(http.NotFoundHandler())
	defer up.Close()
	target, err := parseTarget(up.URL + " sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	s, err := target.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.url != up.URL || len(s.pids) != 1 {
		t.Errorf("%+v", s)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := readProcesses(s.pids); err == nil {
		t.Error("the command still runs")
	}
}

// Who gives up waiting leaves no process behind.
func TestTargetIsStoppedWhenGivenUp(t *testing.T) {
	target, err := parseTarget("sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := target.start(ctx); err == nil {
		t.Errorf("started %+v", s)
	}
}

func TestTURNTemplate(t *testing.T) {
	s := turnServer{urls: "turn:{udp},turns:{https}?transport=tcp"}
	got, err := s.servers(0, map[string]string{"udp": "h:1", "https": "h:2"})
	if err != nil || strings.Join(got[0].URLs, " ") != "turn:h:1 turns:h:2?transport=tcp" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := s.servers(0, map[string]string{"udp": "h:1"}); err == nil {
		t.Errorf("without an address: %v", got)
	}
}

func TestMedians(t *testing.T) {
	var runs []*Report
	for _, us := range []float64{30, 10, 20} {
		runs = append(runs, &Report{Packets: Packets{Received: 1}, Server: &Server{PerOut: us}})
	}
	if m := medianOf(runs); m.CPUPerOut != 20 {
		t.Errorf("median %v, want 20", m.CPUPerOut)
	}
	if m := medianOf(runs[:2]); m.CPUPerOut != 20 {
		t.Errorf("median of two %v, want 20", m.CPUPerOut)
	}
	if medianOf(nil) != nil || ratio(1, 0) != nil || *ratio(1, 2) != 0.5 {
		t.Error("nothing has a median, or a ratio to nothing")
	}
}

// Every load of a suite is one that the flags allow, under a name of its own.
func TestSuites(t *testing.T) {
	for name, loads := range suites {
		seen := map[string]bool{}
		for _, s := range loads {
			o := (options{duration: 1, turn: turnServer{urls: "turn:h"}}).load(s)
			if err := o.validate(); err != nil || seen[s.name] {
				t.Errorf("%s: %s: %v", name, s.name, err)
			}
			seen[s.name] = true
		}
	}
	some, err := suite("standard:TCP,1x50")
	if err != nil || len(some) != 2 || some[0].name != "1x50x2" || some[1].name != "6x8x2 TCP" {
		t.Errorf("%v, %v", some, err)
	}
}

// At least one participant of a call verifies, and they are spread.
func TestVerifies(t *testing.T) {
	for _, x := range []struct {
		users, percent, want int
	}{{1, 0, 1}, {8, 10, 1}, {50, 10, 5}, {200, 10, 20}, {8, 100, 8}, {3, 34, 2}} {
		o := options{users: x.users, verify: x.percent}
		n := 0
		for i := range x.users {
			if o.verifies(i) {
				n++
			}
		}
		if n != x.want {
			t.Errorf("%d of %d verify at %d %%, want %d", n, x.users, x.percent, x.want)
		}
	}
}

// The table of crowds tells of coming and going.
func TestTableOfCrowds(t *testing.T) {
	c := &Comparison{Machine: "a machine", Names: []string{"one"}, crowds: true, Loads: []Result{{
		Load: "1x2x1", Medians: []*Median{{PerSecond: 50, JoinP95: 12_000, LeaveP95: 34_000, Failed: 5, Missing: 6}}, Runs: make([][]*Report, 1),
	}}}
	var b bytes.Buffer
	if err := c.write(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if !strings.HasSuffix(lines[0], "| leave p95 ms | failed joins | missing tracks |") || !strings.HasSuffix(lines[2], "| 12 | 0 | 34 | 5 | 6 |") {
		t.Errorf("table:\n%s", b.String())
	}
	if n := strings.Count(lines[0], "|"); strings.Count(lines[1], "|") != n || strings.Count(lines[2], "|") != n {
		t.Errorf("columns differ:\n%s", b.String())
	}
}
