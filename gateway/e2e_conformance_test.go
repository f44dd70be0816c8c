package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/gateway"
)

// h2spec is the conformance suite of HTTP/2. It is no dependency: the test
// builds it, from the module proxy.
const h2spec = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

// departures are the cases of h2spec in which net/http, whose HTTP/2 we serve,
// answers otherwise, and why that is as well.
var departures = map[string]string{
	"Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                          "a client that repeats a setting in one frame is turned away: PROTOCOL_ERROR",
	"Sends a HEADERS frame that contains the connection-specific header field":                       "answered 400, as RFC 9113 section 8.1.1 allows",
	"Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "answered 400, as RFC 9113 section 8.1.1 allows",
}

// testH2spec: what the RFCs of HTTP/2 and HPACK demand of a server.
func (p *product) testH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for many answers that must not come")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "go", "install", h2spec)
	install.Dir, install.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: the conformance of HTTP/2: %s cannot be had: %v\n%s", h2spec, err, out)
	}
	host, port, _ := strings.Cut(p.HTTPS, ":")
	out, _ := exec.CommandContext(ctx, filepath.Join(dir, "h2spec"), "--host", host, "--port", port, "--tls", "--insecure",
		"--timeout", "8", "--path", "/api/v4/files/1").CombinedOutput() // its exit code counts the departures
	summary := regexp.MustCompile(`\d+ tests, (\d+) passed, .*`).FindSubmatch(out)
	if summary == nil || string(summary[1]) == "0" {
		t.Fatalf("h2spec did not run:\n%s", out)
	}
	t.Logf("%s", summary[0])
	for _, failed := range regexp.MustCompile(`× \d+: ([^\r\n]+)`).FindAllSubmatch(out, -1) {
		if name := strings.TrimSpace(string(failed[1])); departures[name] == "" {
			t.Errorf("%s\n%s", name, out)
		}
	}
}

// TestSmuggling: of requests that two servers could understand differently the
// delivered binary, spoken to over TLS, passes on nothing.
func TestSmuggling(t *testing.T) {
	upstream, take := gateway.Witness(t)
	p := startProductTo(t, "127.0.0.1", upstream, "")
	for name, request := range gateway.MalformedRequests() {
		conn, err := dialTLS(t.Context(), "", p.HTTPS, "http/1.1")
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		if _, err := io.WriteString(conn, request+"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		answer, _ := io.ReadAll(conn)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || strings.Count(string(answer), "HTTP/1.1 ") != 1 {
			t.Errorf("%s: answered %q", name, answer)
		}
		if got := take(); got != "" {
			t.Errorf("%s: Mattermost got %q", name, got)
		}
		_ = conn.Close()
	}
	conn, err := tls.Dial("tcp", p.HTTPS, insecure("http/1.1"))
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET /sound HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	must(t, err)
	if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || !strings.HasPrefix(take(), "GET /sound ") {
		t.Errorf("a sound request is answered %q", answer)
	}
}
