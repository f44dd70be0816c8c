package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A load is one kind of request, as fast as 32 of them at a time are answered.
type load struct {
	name   string
	http2  bool
	path   string
	upload bool
}

var loads = []load{
	{"HTTP/1.1, 1 KiB", false, "/small", false},
	{"HTTP/1.1, 100 KiB", false, "/large", false},
	{"HTTP/1.1, upload of 1 MiB", false, "/upload", true},
	{"HTTP/2, 1 KiB", true, "/small", false},
	{"HTTP/2, 100 KiB", true, "/large", false},
	{"HTTP/2, upload of 1 MiB", true, "/upload", true},
}

const uploadSize = 1 << 20

// An outcome is what one run of a load gave.
type outcome struct {
	requests int
	took     time.Duration
	p99      time.Duration
}

// run puts l in front of addr. Anything but success of every request is an
// error.
func (l load) run(ctx context.Context, addr, dir string, duration time.Duration) (outcome, error) {
	url := "https://" + addr + l.path
	if l.http2 {
		return l.h2load(ctx, url, dir, duration)
	}
	return l.wrk(ctx, url, dir, duration)
}

func (l load) wrk(ctx context.Context, url, dir string, duration time.Duration) (outcome, error) {
	script := filepath.Join(dir, "wrk.lua")
	lines := "done = function(summary, latency, requests)\n" +
		"  print(string.format('RESULT %d %d %d', summary.requests, summary.duration, latency:percentile(99)))\n" +
		"  local e = summary.errors\n" +
		"  if e.connect + e.read + e.write + e.status + e.timeout > 0 then print('FAILED') end\nend\n"
	connections := "32"
	if l.upload {
		lines += fmt.Sprintf("wrk.method = 'POST'\nwrk.body = string.rep('x', %d)\n", uploadSize)
		connections = "8"
	}
	if err := os.WriteFile(script, []byte(lines), 0o600); err != nil {
		return outcome{}, err
	}
	// wrk wants whole seconds; what ends it earlier is SIGINT.
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c"+connections, "-d60s", "-s", script, url)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	stop := time.AfterFunc(duration, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stop.Stop()
	if err := cmd.Wait(); err != nil {
		return outcome{}, fmt.Errorf("wrk: %w: %s", err, out.String())
	}
	m := regexp.MustCompile(`RESULT (\d+) (\d+) (\d+)`).FindStringSubmatch(out.String())
	if m == nil || strings.Contains(out.String(), "FAILED") || m[1] == "0" {
		return outcome{}, fmt.Errorf("wrk: %s", out.String())
	}
	n, _ := strconv.Atoi(m[1])
	took, _ := strconv.Atoi(m[2])
	p99, _ := strconv.Atoi(m[3])
	return outcome{n, time.Duration(took) * time.Microsecond, time.Duration(p99) * time.Microsecond}, nil
}

func (l load) h2load(ctx context.Context, url, dir string, duration time.Duration) (outcome, error) {
	log := filepath.Join(dir, "h2load.log")
	args := []string{"-c8", "-m4", "-t1", "-D", strconv.FormatInt(duration.Milliseconds(), 10) + "ms", "--log-file", log}
	if l.upload {
		body := filepath.Join(dir, "upload")
		if err := os.WriteFile(body, bytes.Repeat([]byte("x"), uploadSize), 0o600); err != nil {
			return outcome{}, err
		}
		args = append(args, "-d", body, "-m1")
	}
	_ = os.Remove(log)
	out, err := exec.CommandContext(ctx, "h2load", append(args, url)...).CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	if !bytes.Contains(out, []byte("Application protocol: h2")) {
		return outcome{}, fmt.Errorf("h2load: no HTTP/2: %s", out)
	}
	return readLog(log, duration)
}

// readLog reads what h2load says of each request: begin, status, microseconds.
func readLog(name string, duration time.Duration) (outcome, error) {
	f, err := os.Open(name)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	var times []int
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			return outcome{}, fmt.Errorf("h2load: log line %q", lines.Text())
		}
		if fields[1] != "200" {
			return outcome{}, fmt.Errorf("h2load: status %s", fields[1])
		}
		us, err := strconv.Atoi(fields[2])
		if err != nil {
			return outcome{}, err
		}
		times = append(times, us)
	}
	if len(times) == 0 {
		return outcome{}, errors.New("h2load: no request")
	}
	slices.Sort(times)
	p99 := time.Duration(times[len(times)*99/100]) * time.Microsecond
	return outcome{len(times), duration, p99}, nil
}
