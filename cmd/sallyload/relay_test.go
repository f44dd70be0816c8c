package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// Three servers get bursts of packets in turn: the JSON has what each took, the table
// what it amounts to, and nothing but what was asked for is measured.
func TestRelays(t *testing.T) {
	name, flags := gatewayTarget(t)
	file := filepath.Join(t.TempDir(), "out.json")
	status, stdout, stderr := text(t, append(flags, "-suite", "relay:turn-tls up 1x160,turn-udp down 1x1000,turn-tcp latency", "-runs", "1",
		"-names", "one,two", "-json", file, name, name, name)...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r Relays
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Loads) != 2 || len(r.Latency) != 1 || len(r.Idle) != 0 || r.Loads[0].name() != "turn-udp down 1x1000" || r.Loads[1].name() != "turn-tls up 1x160" {
		t.Fatalf("measured %s", b)
	}
	for _, l := range r.Loads {
		for i, s := range l.Subjects {
			if s.CPU <= 0 || len(s.Runs) != 1 || s.PerSecond[0] < 100 || s.Loss < 0 || s.Loss > 50 { // this machine may be busy
				t.Errorf("%s, subject %d: %+v", l.name(), i, s)
			}
		}
		if len(l.Subjects) != 3 || l.Ratio == nil {
			t.Errorf("%s: %+v", l.name(), l)
		}
	}
	if s := r.Latency[0].Subjects; len(s) != 3 || s[0].P50 <= 0 || s[0].P99 < s[0].P50 {
		t.Errorf("latency %+v", s)
	}
	for _, want := range []string{"| way | direction | flows | bytes | packets/s | one µs/packet |", "| TURN/UDP | down | 1 | 1000 |", "| TURN/TLS | up | 1 | 160 |", "| TURN/TCP |", "added p99 ms: one | two |", "Medians of 1 runs"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in the tables:\n%s", want, stdout)
		}
	}
}

func TestIdleAllocations(t *testing.T) {
	name, flags := gatewayTarget(t)
	o, err := parse(append(flags, name), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSubject(t.Context(), o, o.targets[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	}()
	x, err := s.idle(t.Context(), 20)
	if err != nil || x.Failed != 0 || x.MemoryMiB <= 0 {
		t.Errorf("%+v, %v", x, err)
	}
	s.turn.password = "wrong"
	if x, err := s.idle(t.Context(), 2); err == nil || x.Failed != 2 || !strings.Contains(err.Error(), peer.ErrNoRelay.Error()) {
		t.Errorf("with a wrong password: %+v, %v", x, err)
	}
}

func TestSpent(t *testing.T) {
	bursts := []burst{{9 * time.Millisecond, 1000}, {11 * time.Millisecond, 1000}, {90 * time.Millisecond, 1000}}
	s := spent(bursts, delivery{sent: 3000, came: 1500})
	if s.CPU != 22 || s.Loss != 50 {
		t.Errorf("%+v; want 22 µs for each of the packets that arrived, and a loss of 50 %%", s)
	}
	c := Relayed{Subjects: []Spent{{CPU: 8}, {CPU: 20}, {CPU: 5}}}
	if c.conclude(); *c.Ratio != 0.4 || *c.Alone != 0.2 {
		t.Errorf("ratios %v and %v, want 0.4 and 0.2", *c.Ratio, *c.Alone)
	}
	if m := middle([]int{4, 1, 2, 8}, func(n int) float64 { return float64(n) }); m != 3 {
		t.Errorf("median %v, want 3", m)
	}
}

// The threads' time is the process's.
func TestSpentBy(t *testing.T) {
	exact, err := spentBy([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := readProcess(os.Getpid())
	if err != nil || exact <= 0 || (exact-p.cpu).Abs() > time.Second {
		t.Errorf("%v by thread, %v in all; %v", exact, p.cpu, err)
	}
	if _, err := spentBy([]int{1 << 30}); err == nil {
		t.Error("a process that is not there was read")
	}
}
