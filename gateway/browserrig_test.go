package gateway_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const browserDir = "testdata/browser"

// A browserRig is `sallyport demo` as it is delivered, in a process of its own,
// and a Chromium that visits it.
type browserRig struct {
	addrs struct {
		URL      string `json:"url"`
		MediaUDP string `json:"media_udp"`
		MediaTCP string `json:"media_tcp"`
		TURN     string `json:"turn_udp"`
		API      string `json:"api"`
		Admin    string `json:"admin"`
	}
	artifacts string    // directory of the screenshots
	far, near elsewhere // where demo and browser are; nil is here
	demo      []string  // further flags of the demo
	proxy     *browserProxy

	commands *json.Encoder
	answers  *json.Decoder
}

// A browserProxy is Playwright's: what leads out of the browser.
type browserProxy struct {
	Server   string `json:"server"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// startBrowserRig skips the test, loudly, if a program it needs is missing.
func startBrowserRig(t *testing.T) *browserRig {
	t.Helper()
	rig := &browserRig{demo: []string{"-port", "0", "-media-port", "0", "-api", "127.0.0.1:0", "-admin", "127.0.0.1:0"}}
	rig.start(t)
	return rig
}

func (rig *browserRig) start(t *testing.T) {
	t.Helper()
	node, chromium := browserPrograms(t)
	artifacts, err := filepath.Abs(filepath.Join(browserDir, "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(artifacts, 0o755); err != nil {
		t.Fatal(err)
	}
	rig.artifacts = artifacts
	rig.startDemo(t)
	rig.startChromium(t, node, chromium)
}

func browserPrograms(t *testing.T) (node, chromium string) {
	t.Helper()
	const advice = "the BROWSER TESTS DO NOT RUN: apt-get install chromium nodejs npm, then npm ci in gateway/testdata/browser (make test does both)"
	var err error
	if node, err = exec.LookPath("node"); err != nil {
		t.Skip("SKIPPED, no node: " + advice)
	}
	if chromium, err = exec.LookPath("chromium"); err != nil {
		t.Skip("SKIPPED, no chromium: " + advice)
	}
	if _, err = os.Stat(filepath.Join(browserDir, "node_modules", "playwright-core")); err != nil {
		t.Skip("SKIPPED, no playwright-core: " + advice)
	}
	if testing.Short() {
		t.Skip("SKIPPED: the browser tests take minutes, -short was given")
	}
	return node, chromium
}

// startDemo builds the binary and runs it.
func (rig *browserRig) startDemo(t *testing.T) {
	t.Helper()
	demo := exec.Command(build(t, "sallyport"), append([]string{"demo", "-json", "-log", "info"}, rig.demo...)...)
	var log bytes.Buffer
	demo.Stderr = &log
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.far.do(demo.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = demo.Process.Signal(syscall.SIGINT)
		late := time.AfterFunc(20*time.Second, func() { _ = demo.Process.Kill() })
		defer late.Stop()
		if err := demo.Wait(); err != nil {
			t.Errorf("the demo ended badly: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the demo:\n%s", log.String())
		}
	})
	if err := json.NewDecoder(out).Decode(&rig.addrs); err != nil {
		t.Fatalf("the demo printed no addresses: %v\n%s", err, log.String())
	}
}

// startChromium starts the driver, which starts the browser with a profile of
// its own. The certificate is let through by the hash of its key, because TURN
// over TLS takes no notice of exceptions made for the page.
func (rig *browserRig) startChromium(t *testing.T, node, chromium string) {
	t.Helper()
	args := []string{
		"--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--use-fake-device-for-media-stream", "--auto-select-tab-capture-source-by-title=Slides",
		"--ignore-certificate-errors-spki-list=" + rig.publicKey(t),
	}
	must(t, rig.near.do(func() error {
		if onlyLoopback() {
			args = append(args, "--allow-loopback-in-peer-connection")
		}
		return nil
	}))
	launch, err := json.Marshal(map[string]any{"executablePath": chromium, "args": args, "proxy": rig.proxy})
	if err != nil {
		t.Fatal(err)
	}
	driver := exec.Command(node, "driver.mjs", string(launch))
	driver.Dir, driver.Stderr = browserDir, os.Stderr
	in, err := driver.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := driver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.near.do(driver.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(20*time.Second, func() { _ = driver.Process.Kill() })
		defer late.Stop()
		if err := driver.Wait(); err != nil {
			t.Errorf("the browser's driver ended badly: %v", err)
		}
	})
	rig.commands, rig.answers = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	var version string
	rig.answer(t, "start", &version)
	t.Log("Chromium", version)
	slides, err := filepath.Abs(filepath.Join(browserDir, "slides.html"))
	if err != nil {
		t.Fatal(err)
	}
	rig.do(t, browserCommand{Do: "open", Page: "slides", URL: "file://" + slides}, nil) // what is shared
}

// publicKey returns the hash of the demo's public key as Chromium wants it.
func (rig *browserRig) publicKey(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(rig.addrs.URL)
	if err != nil {
		t.Fatal(err)
	}
	var conn *tls.Conn
	must(t, rig.far.do(func() (err error) {
		conn, err = tls.Dial("tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()})
		return err
	}))
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// onlyLoopback reports whether this machine has no other IPv4 interface.
// Chromium leaves the loopback interface out of ICE unless told otherwise.
func onlyLoopback() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return false
		}
	}
	return true
}

// browserCommand is one line to driver.mjs, where its fields are explained.
type browserCommand struct {
	Do       string `json:"do"`
	Page     string `json:"page,omitempty"`
	URL      string `json:"url,omitempty"`
	Selector string `json:"selector,omitempty"`
	Value    string `json:"value,omitempty"`
	Timeout  int64  `json:"timeout,omitempty"`
	Dark     bool   `json:"dark,omitempty"`
	TURN     string `json:"turn,omitempty"`
	Width    int    `json:"width,omitempty"`
	Height   int    `json:"height,omitempty"`
}

// do performs a command and decodes its value into value, unless that is nil.
func (rig *browserRig) do(t *testing.T, c browserCommand, value any) {
	t.Helper()
	if err := rig.commands.Encode(c); err != nil {
		t.Fatalf("%s: %v", c.Do, err)
	}
	rig.answer(t, strings.TrimSpace(c.Page+" "+c.Do+" "+c.Selector+c.Value), value)
}

func (rig *browserRig) answer(t *testing.T, what string, value any) {
	t.Helper()
	var a struct {
		Value json.RawMessage
		Error string
	}
	if err := rig.answers.Decode(&a); err != nil {
		t.Fatalf("%s: no answer of the browser: %v", what, err)
	}
	if a.Error != "" {
		t.Fatalf("%s: %s", what, a.Error)
	}
	if value != nil {
		if err := json.Unmarshal(a.Value, value); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// admin gets a page of the demo's admin listener.
func (rig *browserRig) admin(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + rig.addrs.Admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

// A serverLoad is what calls cost the demo's process.
type serverLoad struct {
	media int   // goroutines of media, TURN and the application
	all   int   // all goroutines; idle HTTP connections keep some for a while
	heap  int64 // bytes live after a collection
}

func (rig *browserRig) load(t *testing.T) serverLoad {
	t.Helper()
	var l serverLoad
	for _, group := range strings.Split(rig.admin(t, "/debug/pprof/goroutine?debug=1"), "\n\n") {
		var n int
		if _, err := fmt.Sscanf(group, "goroutine profile: total %d\n", &n); err == nil {
			l.all = n
			_, group, _ = strings.Cut(group, "\n")
		}
		if _, err := fmt.Sscanf(group, "%d @", &n); err != nil {
			continue
		}
		for _, owner := range []string{"pion/", "sallyport/sfu", "sallyport/turn", "gateway/demo"} {
			if strings.Contains(group, owner) {
				l.media += n
				break
			}
		}
	}
	for line := range strings.Lines(rig.admin(t, "/debug/pprof/heap?debug=1&gc=1")) {
		_, _ = fmt.Sscanf(line, "# HeapAlloc = %d", &l.heap)
	}
	if l.all == 0 || l.media == 0 || l.heap == 0 {
		t.Fatalf("the profiles cannot be read: %+v", l)
	}
	return l
}
