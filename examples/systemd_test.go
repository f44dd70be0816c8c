package examples

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A host is a copy of this machine on which systemd runs as PID 1, with a network
// of its own and nothing else started.
type host struct {
	t   *testing.T
	dir string // the same inside
	pid string // of its systemd, outside
}

// bootHost starts one that lives as long as the test, or skips the test.
func bootHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: systemd as PID 1 takes root")
	}
	for _, program := range []string{"/lib/systemd/systemd", "unshare", "nsenter", "findmnt", "ip", "pivot_root", "curl", "openssl", "nginx"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: %v", err)
		}
	}
	h := &host{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(h.dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/pid1")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	boot := exec.Command(script, h.dir)
	boot.Stdout, boot.Stderr = &out, &out
	if err := boot.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- boot.Wait() }()
	t.Cleanup(func() {
		_ = boot.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	for limit := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("SKIPPED, NOT TESTED: systemd does not run as PID 1 here: %v\n%s", err, &out)
		default:
		}
		if h.pid = systemdBelow(boot.Process.Pid); h.pid != "" {
			if state, _ := h.run("systemctl is-system-running"); strings.Contains(state, "running") || strings.Contains(state, "degraded") {
				return h
			}
		}
		if time.Now().After(limit) {
			t.Skipf("SKIPPED, NOT TESTED: systemd as PID 1 does not come up\n%s", &out)
		}
	}
}

// systemdBelow returns the descendant of pid that is PID 1 of its namespace.
func systemdBelow(pid int) string {
	for range 3 { // the script's subshell, unshare, systemd
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if _, scanned := fmt.Sscan(string(children), &pid); err != nil || scanned != nil {
			return ""
		}
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) == "systemd\n" {
			return fmt.Sprint(pid)
		}
	}
	return ""
}

// run runs commands there, as root.
func (h *host) run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "nsenter", "-t", h.pid, "-m", "-p", "-u", "-i", "-n", "-C", "--",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"SSL_CERT_FILE="+h.dir+"/ca.pem", "CURL_CA_BUNDLE="+h.dir+"/ca.pem",
		"bash", "-euc", `sudo() { "$@"; }; cd `+h.dir+"\n"+script)
	out, err := command.CombinedOutput()
	return string(out), err
}

// must is run for what has to succeed.
func (h *host) must(script string) string {
	h.t.Helper()
	out, err := h.run(script)
	if err != nil {
		log, _ := h.run("systemctl --no-pager status sallyport nginx || true; journalctl --no-pager -o cat -n 30 -u sallyport -u nginx")
		h.t.Fatalf("%s\n%v\n%s\n%s", script, err, out, log)
	}
	return out
}

// until waits for a line of shell to succeed.
func (h *host) until(condition string) {
	h.t.Helper()
	h.must(`for i in $(seq 600); do ` + condition + ` && exit 0; sleep .1; done; echo 'in vain: ` + strings.ReplaceAll(condition, "'", "") + `'; exit 1`)
}

// standIn is the variable that makes TestStandIn Mattermost.
const standIn = "SALLYPORT_TEST_STANDIN"

// TestStandIn is no test: it is Mattermost, in a process with another network.
func TestStandIn(t *testing.T) {
	if os.Getenv(standIn) == "" {
		t.Skip("for other tests")
	}
	_ = http.ListenAndServe("127.0.0.1:8065", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = fmt.Fprintf(w, `{"status":"OK","for":"%15s"}`, r.Header.Get("X-Forwarded-For"))
		} else if c, err := websocket.Accept(w, r, nil); err == nil {
			_, _, _ = c.Read(r.Context())
		}
	}))
}

// startMattermost starts one on h.
func (h *host) startMattermost() {
	h.t.Helper()
	command := exec.Command("nsenter", "-t", h.pid, "-n", "--", os.Args[0], "-test.run", "^TestStandIn$")
	command.Env = append(os.Environ(), standIn+"=1")
	if err := command.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	h.until("curl -s -o /dev/null http://127.0.0.1:8065/")
}

// fence returns the block of code of a page that holds mark.
func fence(t *testing.T, page, mark string) string {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```[a-z]+\n(.*?)```").FindAllStringSubmatch(read(t, filepath.Join(root, page)), -1) {
		if strings.Contains(m[1], mark) {
			return m[1]
		}
	}
	t.Fatalf("%s has no block with %s", page, mark)
	return ""
}
