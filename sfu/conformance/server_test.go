package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settings are what differs between the servers of this suite. The zero value
// is a server on loopback that lets everybody register.
type settings struct {
	closed bool   // no self-registration
	sfu    string // further keys of section sfu, as YAML flow: "advertise: [203.0.113.10]"
	udp    string // listen address of the media; "" = 127.0.0.1:0
	tcp    string // the same for ICE-TCP, and where HTTPS is, which takes ICE-TCP too
}

// A server is a `sallyport serve` in a process of its own.
type server struct {
	api string // URL
	dir string

	process *os.Process
	log     *logBook
	ended   chan struct{} // closed when it has ended
	result  error         // valid then
}

// build compiles the product.
func build(binary string) error {
	command := exec.Command("go", "build", "-o", binary, "sallyport/cmd/sallyport")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build sallyport: %w\n%s", err, out)
	}
	return nil
}

// start runs a server of its own for a test.
func start(t testing.TB, s settings) *server {
	t.Helper()
	return startIn(t, t.TempDir(), s)
}

// startIn is start with a directory that an earlier server may have left.
func startIn(t testing.TB, dir string, s settings) *server {
	t.Helper()
	ours(t, "a configuration of its own")
	srv, err := launch(shared.binary, dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", srv.log)
		}
	})
	return srv
}

// launch runs the binary with a configuration in dir until kill.
func launch(binary, dir string, s settings) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if s.udp == "" {
		s.udp = "127.0.0.1:0"
	}
	if s.tcp == "" {
		s.tcp = "127.0.0.1:0"
	}
	config := fmt.Sprintf(`
domain: localhost
upstream: http://127.0.0.1:9
listen: {https: "%s", http: "", udp: ""}
tls: {source: selfsigned}
turn: {enabled: false}
sfu: {udp: "%s", tcp: "%s", api: {listen: "127.0.0.1:0", self_registration: %v, store: "%s"}, %s}
admin: {listen: "127.0.0.1:0"}
drain: {timeout: 1m, websocket_spread: 0s}
log: {level: debug}
`, s.tcp, s.udp, s.tcp, !s.closed, filepath.Join(dir, "clients"), s.sfu)
	name := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		return nil, err
	}
	srv := &server{dir: dir, log: &logBook{}, ended: make(chan struct{})}
	command := exec.Command(binary, "serve", "-config", name)
	command.Stderr = srv.log
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SALLYPORT_") })
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start sallyport: %w", err)
	}
	srv.process = command.Process
	go func() {
		srv.result = command.Wait()
		close(srv.ended)
	}()
	if err := srv.await(); err != nil {
		_ = srv.kill()
		return nil, fmt.Errorf("start sallyport: %w\n%s\n%s", err, config, srv.log)
	}
	return srv, nil
}

// await waits until the server serves, and learns where.
func (s *server) await() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.ended:
			return fmt.Errorf("it ended: %v", s.result)
		default:
		}
		for line := range strings.Lines(s.log.String()) {
			var entry struct{ Msg, API string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
				s.api = "http://" + entry.API
				return nil
			}
		}
	}
	return errors.New("it does not serve")
}

// exits waits until the process has ended by itself.
func (s *server) exits(t testing.TB, limit time.Duration) {
	t.Helper()
	select {
	case <-s.ended:
		if s.result != nil {
			t.Fatalf("the server ended badly: %v", s.result)
		}
	case <-time.After(limit):
		t.Fatalf("the server has not ended after %s", limit)
	}
}

// kill ends the server, if it still runs, and reports if it ended badly or had a
// bad word in its log.
func (s *server) kill() error {
	_ = s.process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(3 * time.Second): // it waits for a call
		_ = s.process.Signal(syscall.SIGINT)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.process.Kill()
		<-s.ended
		return errors.New("the server did not end when it was told to")
	}
	if s.result != nil {
		return fmt.Errorf("the server ended badly: %w\n%s", s.result, s.log.plain())
	}
	for _, bad := range []string{"panic: ", "goroutine 1 [", "fatal error: ", "DATA RACE"} {
		if strings.Contains(s.log.String(), bad) {
			return fmt.Errorf("the log of the server has %q:\n%s", bad, s.log.plain())
		}
	}
	return nil
}

// A logBook keeps what is logged.
type logBook struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// plain returns what is no log line of the server's: the words of the runtime.
func (b *logBook) plain() string {
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "{") {
			out.WriteString(line)
		}
	}
	return out.String()
}
