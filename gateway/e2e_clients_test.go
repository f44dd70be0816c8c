package gateway_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
)

// TestRealClients: programs that people use, through the delivered binary, with
// a Mattermost that has its ways.
func TestRealClients(t *testing.T) {
	p := startProductTo(t, "127.0.0.1", gateway.StandIn(t), t.TempDir())
	t.Run("curl", p.testCurlFiles)
	t.Run("h2load", p.testH2load)
	t.Run("h2spec", p.testH2spec)
	t.Run("Chromium", p.testChromium)
}

// testCurlFiles: ranges, revalidation, compression, trailers, 100 Continue and
// downloads that go on where they stopped, in both protocols.
func (p *product) testCurlFiles(t *testing.T) {
	needPrograms(t, "curl")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "upload"), make([]byte, 3<<20), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "part"), gateway.BigFile()[:1<<20], 0o600))
	curl := func(protocol string, args ...string) string {
		args = append([]string{protocol, "--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "40"}, args...)
		command := exec.CommandContext(within(t), "curl", args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Errorf("curl %s: %v\n%s", args, err, out)
		}
		return string(out)
	}
	at := func(path string) string { return "https://" + p.HTTPS + path }
	for _, protocol := range []string{"--http1.1", "--http2"} {
		for _, x := range []struct {
			want string
			args []string
		}{
			{"abcdef0123 206", []string{"--range", "10-19", "--write-out", " %{http_code}", at("/api/v4/files/1")}},
			{"304", []string{"--header", `If-None-Match: "v1"`, "--write-out", "%{http_code}", at("/api/v4/files/1")}},
			{`"v1" 131072`, []string{"--head", "--output", "head", "--write-out", "%header{etag} %header{content-length}", at("/api/v4/files/1")}},
			{"131072 gzip", []string{"--compressed", "--output", "js", "--write-out", "%{size_download} %header{content-encoding}", at("/static/main.js")}},
			{"body", []string{at("/plugins/trailers")}},
			{"201", []string{"--header", "Expect: 100-continue", "--form", "files=@upload", "--output", "answer", "--write-out", "%{http_code}", at("/api/v4/files")}},
			{"206", []string{"--continue-at", "1048576", "--output", "part", "--write-out", "%{http_code}", at("/api/v4/files/big")}},
		} {
			got := curl(protocol, x.args...)
			if x.args[0] == "--compressed" { // counted as they come
				got = regexp.MustCompile(`^\d+`).ReplaceAllString(got, "131072")
			}
			if got != x.want {
				t.Errorf("curl %s %s: %q, want %q", protocol, x.args, got, x.want)
			}
		}
		if js, err := os.ReadFile(filepath.Join(dir, "js")); err != nil || len(js) != 131072 {
			t.Errorf("%s: %d bytes decompressed, %v", protocol, len(js), err)
		}
		if whole, err := os.ReadFile(filepath.Join(dir, "part")); err != nil || !bytes.Equal(whole, gateway.BigFile()) {
			t.Errorf("%s: a download that went on is %d bytes, %v", protocol, len(whole), err)
		}
		must(t, os.Truncate(filepath.Join(dir, "part"), 1<<20))
	}
}

// testH2load: a few hundred requests over a few connections, none fails.
func (p *product) testH2load(t *testing.T) {
	needPrograms(t, "h2load")
	for _, protocol := range [][]string{nil, {"--h1"}} {
		args := append(protocol, "-n", "600", "-c", "6", "-m", "10", "-t", "1", "https://"+p.HTTPS+"/api/v4/system/ping", "https://"+p.HTTPS+"/api/v4/files/1")
		out, err := exec.CommandContext(within(t), "h2load", args...).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("600 succeeded, 0 failed, 0 errored, 0 timeout")) {
			t.Errorf("h2load %s: %v\n%s", args, err, out)
		}
	}
}

// testChromium: a page, a WebSocket, an upload, a download, events.
func (p *product) testChromium(t *testing.T) {
	node, chromium := browserPrograms(t)
	rig := &browserRig{}
	rig.addrs.URL = "https://" + p.HTTPS + "/plugins/page"
	var err error
	rig.artifacts, err = filepath.Abs(filepath.Join(browserDir, "artifacts"))
	must(t, err)
	must(t, os.MkdirAll(rig.artifacts, 0o755))
	rig.startChromium(t, node, chromium)
	page := rig.visit(t, browserCommand{Page: "mattermost", Width: 800, Height: 500}, nil)
	page.wait(`window.results?.done`)
	var got map[string]any
	page.eval(`results`, &got)
	page.screenshot("mattermost")
	if diff := cmp.Diff(map[string]any{
		"protocol": "h2", "ping": "OK", "compressed": "11.0.0", "websocket": `{"action":"ping","seq":1}`,
		"upload": "201 true true", "download": fmt.Sprintf("%x", sha256.Sum256(gateway.BigFile())),
		"range": "206 abcdef0123", "events": "0 1 2", "done": true,
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
