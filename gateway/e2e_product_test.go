package gateway_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A product is `sallyport serve` as it is delivered, with a configuration file,
// in a process of its own.
type product struct {
	target
	process *os.Process
	log     *logBook
	stop    func() // ends it at once; it must end well. Once.
}

// startProduct builds the binary and runs it on free ports until the test ends.
func startProduct(t *testing.T) *product {
	t.Helper()
	return startProductAt(t, "127.0.0.1")
}

// startProductAt is the same for another local address.
func startProductAt(t *testing.T, ip string) *product {
	t.Helper()
	return startProductTo(t, ip, standIn(t).URL, "")
}

// startProductTo is the same for another upstream, and a directory for its spool.
func startProductTo(t *testing.T, ip, upstream, spool string) *product {
	t.Helper()
	dir, binary := t.TempDir(), build(t, "sallyport")
	for name, content := range map[string]string{
		"turn-secret": e2eTURNSecret, "client-key": e2eClientKey,
		"config.yaml": fmt.Sprintf(`
domain: localhost
upstream: %[2]s
listen: {https: "%[4]s:0", http: "%[4]s:0", udp: "%[4]s:0"}
tls: {source: selfsigned}
turn: {secret_file: %[1]s/turn-secret}
sfu:
  udp: %[4]s:0
  tcp: %[4]s:0
  api: {listen: "127.0.0.1:0", clients: [{id: %[3]s, key_file: %[1]s/client-key}], store: ""}
proxy: {spool: {dir: %[5]q}}
admin: {listen: "127.0.0.1:0"}
`, dir, upstream, e2eClient, ip, spool),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	p := &product{target: target{t: t}, log: newLogBook()}
	command := exec.Command(binary, "serve", "-config", filepath.Join(dir, "config.yaml"))
	command.Env = ownEnvironment()
	p.run(command, command.Start)
	line, err := p.log.await(within(t), `"msg":"serving"`)
	must(t, err)
	p.Addrs = addresses(t, line)
	return p
}

// ownEnvironment is ours without what the product would take for its configuration.
func ownEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SALLYPORT_") })
}

// run starts command by start and makes the end of the test its end.
func (p *product) run(command *exec.Cmd, start func() error) {
	p.t.Helper()
	command.Stderr = p.log
	must(p.t, start())
	p.process = command.Process
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = p.process.Signal(syscall.SIGTERM)
		_ = p.process.Signal(syscall.SIGINT)
		select {
		case err := <-ended:
			if err != nil {
				p.t.Errorf("sallyport ended badly: %v", err)
			}
		case <-time.After(patience):
			_ = p.process.Kill()
			p.t.Error("sallyport does not end")
			<-ended
		}
		for _, bad := range []string{"panic: ", "goroutine 1 [", "fatal error: "} {
			if strings.Contains(p.log.String(), bad) {
				p.t.Errorf("the log has %q", bad)
			}
		}
	}
	p.t.Cleanup(func() {
		p.stop()
		if p.t.Failed() {
			p.t.Logf("log of sallyport:\n%s", p.log)
		}
	})
}

// cpu is the processor time that the process has used so far (proc(5): utime
// and stime, in ticks of 10 ms).
func (p *product) cpu() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.process.Pid))
	must(p.t, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		must(p.t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is the memory of the process, in bytes.
func (p *product) resident() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.process.Pid))
	must(p.t, err)
	var kilobytes int64
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes)
	}
	if kilobytes == 0 {
		p.t.Fatalf("no VmRSS in %s", status)
	}
	return kilobytes << 10
}
