package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// patience is how long anything that ought to happen may take on a busy
// machine.
const patience = 45 * time.Second

const (
	processClient = "mattermost"
	processKey    = "0123456789abcdef0123456789abcdef"
)

// A process is `sallyport serve` with a configuration file.
type process struct {
	t       *testing.T
	file    string // its configuration
	running *os.Process
	log     *logBook
	ended   chan struct{}
	code    int        // of its exit, once it has ended
	name    string     // of the program
	command []string   // that runs it
	environ []string   // beside ours
	files   []*os.File // that it inherits, as descriptors 3 and up
	socket  string     // for commands; "" if there is none

	// Where it serves, host:port each.
	HTTPS, API, Admin, UDP string
}

// newProcess prepares one; upstream is Mattermost's URL.
func newProcess(t *testing.T, upstream string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, name: "sallyport", file: filepath.Join(dir, "config.yaml"), log: newLogBook(), ended: make(chan struct{})}
	for _, name := range []string{"turn-secret", "client-key"} {
		p.must(os.WriteFile(filepath.Join(dir, name), []byte(processKey), 0o600))
	}
	p.configure(p.configuration(upstream))
	return p
}

// startProcess runs one until the test ends.
func startProcess(t *testing.T, upstream string) *process {
	t.Helper()
	p := newProcess(t, upstream)
	p.start()
	return p
}

// start runs it until it serves.
func (p *process) start() {
	p.t.Helper()
	p.serve()
	p.must(json.Unmarshal([]byte(p.says(`"msg":"serving"`)), p))
}

// configuration is a whole one on free ports.
func (p *process) configuration(upstream string) string {
	return fmt.Sprintf(`domain: localhost
upstream: %[2]s
listen: {https: "127.0.0.1:0", http: "", udp: "127.0.0.1:0"}
tls: {source: selfsigned}
turn: {secret_file: %[1]s/turn-secret}
sfu:
  udp: 127.0.0.1:0
  tcp: 127.0.0.1:0
  api: {listen: "127.0.0.1:0", clients: [{id: %[3]s, key_file: %[1]s/client-key}], store: ""}
proxy: {spool: {dir: ""}}
admin: {listen: "127.0.0.1:0", socket: %[4]q}
log: {level: info}
`, filepath.Dir(p.file), upstream, processClient, p.socket)
}

func (p *process) configure(text string) {
	p.t.Helper()
	p.must(os.WriteFile(p.file, []byte(text), 0o600))
}

// serve starts the process and makes the end of the test its end.
func (p *process) serve() {
	p.t.Helper()
	words := append(p.command, p.name, "serve", "-config", p.file)
	command := exec.Command(words[0], words[1:]...)
	command.Stderr, command.ExtraFiles = p.log, p.files
	command.Env = append(os.Environ(), p.environ...)
	p.must(command.Start())
	p.running = command.Process
	go func() {
		defer close(p.ended)
		err := command.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			p.code = exit.ExitCode()
		} else if err != nil {
			p.code = -1
		}
	}()
	p.t.Cleanup(func() {
		_ = p.running.Signal(syscall.SIGTERM)
		_ = p.running.Signal(syscall.SIGINT)
		select {
		case <-p.ended:
		case <-time.After(patience):
			_ = p.running.Kill()
			<-p.ended
			p.t.Error("sallyport does not end")
		}
		if p.t.Failed() {
			p.t.Logf("log of sallyport:\n%s", p.log)
		}
	})
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	p.must(p.running.Signal(s))
}

// ends waits for the process to exit with a code.
func (p *process) ends(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
		if p.code != code {
			p.t.Errorf("exit code %d, want %d", p.code, code)
		}
	case <-time.After(patience):
		p.t.Fatalf("still running after %s", patience)
	}
}

func (p *process) lives() {
	p.t.Helper()
	select {
	case <-p.ended:
		p.t.Fatalf("ended with code %d", p.code)
	default:
	}
}

// says waits for a line of the log and returns it.
func (p *process) says(text string) string { p.t.Helper(); return p.saysTimes(text, 1) }

// saysTimes waits for the nth such line.
func (p *process) saysTimes(text string, n int) string {
	p.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		line, grown := p.log.find(text, n)
		if line != "" {
			return line
		}
		select {
		case <-grown:
			continue
		case <-p.ended: // and all it had to say is in the log
			if line, _ = p.log.find(text, n); line != "" {
				return line
			}
		case <-late.C:
		}
		p.t.Fatalf("the log does not say %q", text)
	}
}

// get returns the status of a page, or 0.
func (p *process) get(url string) int {
	p.t.Helper()
	response, err := http.Get(url)
	if err != nil {
		p.t.Errorf("GET %s: %v", url, err)
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// call is two participants who hear each other; what it returns joins a third.
func (p *process) call() (a, b *peer.Peer, join func() (*peer.Peer, error)) {
	p.t.Helper()
	plugin, err := peer.DialMux(p.t.Context(), peer.LinkConfig{
		URL: "http://" + p.API, ClientID: processClient, AuthKey: processKey, NoRegister: true,
	})
	p.must(err)
	p.t.Cleanup(func() { _ = plugin.Close() })
	id := peer.NewID()
	join = func() (*peer.Peer, error) {
		one, err := peer.Join(p.t.Context(), plugin, peer.Config{Call: id})
		if err == nil {
			p.t.Cleanup(func() { _ = one.Close() })
		}
		return one, err
	}
	a, err = join()
	p.must(err)
	b, err = join()
	p.must(err)
	p.must(a.Unmute(p.t.Context()))
	p.hears(b, a)
	return a, b, join
}

// hears waits for half a second of what from says.
func (p *process) hears(to, from *peer.Peer) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	track, err := to.WaitTrack(ctx, "voice", from.Session())
	p.must(err)
	p.must(track.WaitPackets(ctx, track.Stats().Packets+25))
}

func (p *process) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// A mattermost answers every request with its name, over and over. It can be
// stopped and started again at the same address.
type mattermost struct {
	t       *testing.T
	name    string
	address string
	server  *http.Server
}

func startMattermost(t *testing.T, name string) *mattermost {
	m := &mattermost{t: t, name: name, address: "127.0.0.1:0"}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mattermost) start() {
	m.t.Helper()
	ln, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.address = ln.Addr().String()
	m.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", m.name, r.Method, body)
	})}
	go func() { _ = m.server.Serve(ln) }()
}

// stop ends it like a process that is killed: every connection is gone.
func (m *mattermost) stop() { _ = m.server.Close() }

// A logBook keeps what is logged, and wakes those who wait for a line.
type logBook struct {
	mu    sync.Mutex // guards the following
	text  bytes.Buffer
	grown chan struct{}
}

func newLogBook() *logBook { return &logBook{grown: make(chan struct{})} }

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.grown)
	b.grown = make(chan struct{})
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// find returns the nth line that contains want, or "" and what is closed when
// there is more to look at.
func (b *logBook) find(want string, n int) (line string, grown <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		if strings.HasSuffix(line, "\n") && strings.Contains(line, want) {
			if n--; n == 0 {
				return line, nil
			}
		}
	}
	return "", b.grown
}
