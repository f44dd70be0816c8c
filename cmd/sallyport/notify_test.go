package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/admin"
)

// A fakeManager is a service manager's end of the notify socket.
type fakeManager struct {
	t    *testing.T
	conn *net.UnixConn
	name string
}

func newManager(t *testing.T) *fakeManager {
	t.Helper()
	m := &fakeManager{t: t, name: filepath.Join(t.TempDir(), "n")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.name, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	return m
}

// hears waits for a message that matches, and returns it. Those before it are
// lost, unless they match never: that is wrong.
func (m *fakeManager) hears(want, never string) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 1024)
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", want, err)
		}
		got := string(b[:n])
		if regexp.MustCompile("^(" + want + ")$").MatchString(got) {
			return got
		}
		if never != "" && regexp.MustCompile(never).MatchString(got) {
			m.t.Fatalf("heard %q while waiting for %s", got, want)
		}
	}
}

// TestServiceManager: what systemd hears from the start to the end.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := newProcess(t, "http://"+startMattermost(t, "one").address)
	p.environ = []string{"NOTIFY_SOCKET=" + m.name, "WATCHDOG_USEC=4000000"}
	p.serve()
	m.hears("READY=1", "RELOADING|STOPPING")
	m.hears("WATCHDOG=1", "STOPPING")
	m.hears(`STATUS=serving: 0 WebSockets, . of 1 upstreams up, 0 sessions in 0 calls \(0 relayed\), certificate for \d+ days`, "STOPPING")

	p.signal(syscall.SIGHUP)
	m.hears(`RELOADING=1\nMONOTONIC_USEC=\d{6,}`, "READY")
	m.hears("READY=1", "RELOADING")
	p.configure("domain: localhost\nlistn: {}\n")
	p.signal(syscall.SIGHUP)
	m.hears("RELOADING=1\n.*", "READY")
	m.hears("READY=1", "RELOADING") // though it was refused: what serves is the old configuration
	m.hears("STATUS=serving.*; the last reload was refused", "STOPPING")
	m.hears("WATCHDOG=1", "STOPPING")

	p.signal(syscall.SIGTERM)
	m.hears(`STOPPING=1\nEXTEND_TIMEOUT_USEC=\d{9,}`, "READY") // the drain may take longer than TimeoutStopSec=
	p.ends(0)
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		var log bytes.Buffer
		ill := errors.New("500: no answer from: TURN")
		health := []error{nil, nil, ill, context.DeadlineExceeded, nil}
		asked := 0
		ctx, stop := context.WithCancel(t.Context())
		r := &reporter{
			status: func() string { return "serving" },
			alive: func(limit context.Context) error {
				asked++
				if asked == len(health) {
					stop()
				}
				if health[asked-1] == context.DeadlineExceeded {
					<-limit.Done()
					return limit.Err()
				}
				return health[asked-1]
			},
			watchdog: 20 * time.Second, logger: slog.New(slog.NewTextHandler(&log, nil)),
			tell: func(s string) { said = append(said, s) },
		}
		r.run(ctx)
		if d := cmp.Diff([]string{"WATCHDOG=1", "STATUS=serving", "WATCHDOG=1", "WATCHDOG=1"}, said); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
		if got := strings.Count(log.String(), "no sign of life"); got != 2 {
			t.Errorf("%d complaints:\n%s", got, &log)
		}
	})
}

func TestWatchdogTime(t *testing.T) {
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 30 * time.Second}, {"30000000", "1", 0}, {"x", "", 0}, {"-5", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := watchdogTime(); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestStatusLine(t *testing.T) {
	s := admin.Status{
		State: admin.Draining, WebSockets: 240, Upstreams: []admin.Upstream{{Up: true}, {}},
		Media: admin.Media{Enabled: true, Sessions: 12, Calls: 3, Paths: map[string]int{"udp": 10, "relay": 2}},
	}
	if got, want := statusLine(s), "draining: 240 WebSockets, 1 of 2 upstreams up, 12 sessions in 3 calls (2 relayed), no certificate"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
