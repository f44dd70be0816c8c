package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu"
	"sallyport/sfu/peer"
	"sallyport/sfu/rtcd"
)

// serve runs an SFU with its API on loopback and returns the API's address.
func serve(t *testing.T) (string, *sfu.Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	sockets, err := sfu.Listen(sfu.Config{Mode: "rtcd", UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	media, err := sfu.New(sockets, sfu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	api, err := rtcd.New(rtcd.Config{SelfRegistration: true, Store: t.TempDir()}, media, rtcd.Options{Metrics: registry, Gatherer: registry})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	parts.Go(func() {
		if err := media.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() {
		if err := api.Run(ctx, ln); err != nil {
			t.Error(err)
		}
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), media
}

// command runs sallyload and decodes its report.
func command(ctx context.Context, t *testing.T, args ...string) (int, Report, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(ctx, args, &stdout, &stderr)
	var r Report
	if stdout.Len() > 0 {
		d := json.NewDecoder(&stdout)
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("output is not one report: %v", err)
		}
	}
	return status, r, stderr.String()
}

func TestLoad(t *testing.T) {
	for _, path := range []string{"udp", "tcp"} {
		t.Run(path, func(t *testing.T) {
			api, media := serve(t)
			status, r, stderr := command(t.Context(), t, "-api", api, "-calls", "2", "-users", "3", "-unmuted", "2", "-screen", "-camera",
				"-video-kbps", "300", "-path", path, "-ramp", "10ms", "-warm", "200ms", "-duration", "2s", "-pid", strconv.Itoa(os.Getpid()))
			if status != 0 {
				t.Fatalf("status %d: %s", status, stderr)
			}
			if r.Joins.Failed != 0 || r.Joins.Wanted != 6 || r.Joins.TimeUS.P50 <= 0 {
				t.Errorf("joins %+v", r.Joins)
			}
			if r.Leaves.Failed != 0 || r.Leaves.TimeUS.P50 <= 0 {
				t.Errorf("leaves %+v", r.Leaves)
			}
			if r.Tracks != (Tracks{Wanted: 20, Got: 20}) {
				t.Errorf("tracks %+v, want 20: each call has 2 voices, a screen and 2 cameras, with 2 receivers", r.Tracks)
			}
			p := r.Packets
			if p.Sent < 2*2*50 || p.Expected != 2*p.Sent || p.Received > p.Expected || p.Loss > 2 || p.Foreign != 0 {
				t.Errorf("packets %+v", p)
			}
			if r.LatencyUS.P50 <= 0 || r.LatencyUS.P99 < r.LatencyUS.P50 {
				t.Errorf("latency %+v", r.LatencyUS)
			}
			for way, n := range r.Paths {
				if !strings.HasPrefix(way, path+" ") || n != 6 {
					t.Errorf("paths %v, want 6 over %s", r.Paths, path)
				}
			}
			if r.Server == nil || r.Server.MemoryMiB <= 0 || len(r.Server.ProcessList) != 1 {
				t.Errorf("server %+v", r.Server)
			}
			if n := media.Count(); n != 0 {
				t.Errorf("%d sessions left", n)
			}
		})
	}
}

func TestInterruptPrintsReport(t *testing.T) {
	api, _ := serve(t)
	o, err := parse([]string{"-api", api, "-calls", "1", "-users", "2", "-warm", "0", "-duration", "10m"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &load{options: o, server: &server{url: api}, stderr: new(bytes.Buffer)}
	var watcher sync.WaitGroup
	watcher.Go(func() {
		defer cancel()
		l.poll(t.Context(), time.Minute, func() bool {
			phase := l.phase.Load()
			if phase == nil || *phase != "measuring" {
				return false
			}
			return l.packets().Received > 20
		})
		if s := l.status(); !strings.HasPrefix(s, "measuring: 2 of 2 joined, 0 failed, 2 tracks, ") {
			t.Errorf("progress %q", s)
		}
	})
	r, err := l.run(ctx)
	watcher.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if r.Packets.Received <= 20 || r.Packets.Loss > 2 || r.Seconds <= 0 || r.Seconds > 60 {
		t.Errorf("interrupted after %v s with %+v", r.Seconds, r.Packets)
	}
}

// A join that fails is reported, and so is its reason.
func TestFailedJoins(t *testing.T) {
	api, _ := serve(t)
	status, r, _ := command(t.Context(), t, "-api", api, "-calls", "1", "-users", "2", "-path", "turn-tcp", "-turn", "turn:127.0.0.1:1?transport=tcp", "-turn-user", "u", "-turn-pass", "p", "-settle", "0", "-warm", "0", "-duration", "1ms")
	if status != 1 || r.Joins.Failed != 2 || len(r.Joins.Errors) == 0 {
		t.Errorf("status %d, joins %+v", status, r.Joins)
	}
	for text := range r.Joins.Errors {
		if !strings.Contains(text, "session …") {
			t.Errorf("error %q names a session", text)
		}
	}
}

func TestNoServer(t *testing.T) {
	refused := httptest.NewServer(http.NotFoundHandler())
	defer refused.Close()
	for _, api := range []string{refused.URL, "http://127.0.0.1:1"} {
		if status, _, stderr := command(t.Context(), t, "-api", api); status != 1 || !strings.Contains(stderr, "connect to rtcd API") {
			t.Errorf("%s: status %d, %q", api, status, stderr)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, x := range []struct{ args, want string }{
		{"-calls 0", "at least 1"},
		{"-calls 1000 -users 1000", "at most 20000"},
		{"-users 2 -unmuted 3", "not between 0 and -users"},
		{"-duration 0s", "-duration must be positive"},
		{"-path tunnel", "unknown path"},
		{"-path turn-tls", "needs -turn"},
		{"-pid 12x", "no process ID"},
		{"-port 70000", "is none"},
		{"-video-kbps 1", "want 100 to 100000"},
		{"-auth-key-file /does/not/exist", "no such file"},
		{"-bogus", "flag provided but not defined"},
		{"one two", "need -compare"},
		{"-compare one", "wants two targets, got 1"},
		{"-compare one two three", "wants two targets, got 3"},
		{"-pid 1 command", "that is running"},
		{"http://127.0.0.1:1#pid=x", "want #pid=NUMBER"},
		{"-suite relay one two", "wants three targets, got 2"},
		{"-suite relay one two three", "needs -turn"},
		{"-suite most", "unknown suite"},
		{"-suite standard:99x99", "no load of suite"},
		{"-verify 101", "no percentage"},
		{"-srtp null", "unknown SRTP"},
		{"-runs -1", "negative"},
	} {
		status, _, stderr := command(t.Context(), t, strings.Fields(x.args)...)
		if status != 2 || !strings.Contains(stderr, x.want) {
			t.Errorf("%s: status %d, %q; want 2 and %q", x.args, status, stderr, x.want)
		}
	}
	if status, _, stderr := command(t.Context(), t, "-help"); status != 0 || !strings.Contains(stderr, "-unmuted") {
		t.Errorf("-help: status %d, %q", status, stderr)
	}
}

func TestOptions(t *testing.T) {
	secret := t.TempDir() + "/secret"
	if err := os.WriteFile(secret, []byte("s3cr3t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"-users", "5", "-unmuted", "3", "-screen", "-camera", "-turn", "turn:h:1,turns:h:2", "-turn-secret-file", secret,
		"-auth-key-file", secret, "-pid", "1 2,3", "-path", "turn-tls"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if n := o.published(); n != 6 {
		t.Errorf("%d tracks a call, want 3 voices, a screen and 2 cameras", n)
	}
	if o.path != peer.TURNTLS || o.link.AuthKey != "s3cr3t" || fmt.Sprint(o.pids) != "[1 2 3]" {
		t.Errorf("%+v", o)
	}
	servers, err := o.turn.servers(o.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := servers[0]; len(s.URLs) != 2 || !strings.HasSuffix(s.Username, ":sallyload") || len(s.Credential) != 28 {
		t.Errorf("servers %+v", servers)
	}
}

// The vector was made by another implementation of the TURN REST scheme.
func TestCredentials(t *testing.T) {
	user, password := credentials("s3cr3t", time.Unix(1700000000, 0))
	if user != "1700000000:sallyload" || password != "Wc2+9Sb+3A4YNEqSY8uT/a9L+t4=" {
		t.Errorf("%s %s", user, password)
	}
}

func TestParseStat(t *testing.T) {
	line := "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1000000 300 18446744073709551615\n"
	p, err := parseStat(7, []byte(line))
	if err != nil || p.cpu != 3*time.Second || p.memory != 300*uint64(os.Getpagesize()) {
		t.Errorf("%+v, %v; want 3s and 300 pages", p, err)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 1 2", strings.Replace(line, " 250 ", " x ", 1)} {
		if p, err := parseStat(7, []byte(bad)); err == nil {
			t.Errorf("%q reads as %+v", bad, p)
		}
	}
	if _, err := readProcesses([]int{os.Getpid(), 1 << 30}); err == nil {
		t.Error("a process that is not there was read")
	}
}
