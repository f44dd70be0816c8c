package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestSocket(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "admin.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // by a process that was killed
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	first, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 || first.Addr().String() != path {
		t.Errorf("%v %v at %s", info, err, first.Addr())
	}
	if _, err := ListenSocket(path); !errors.Is(err, errSocketTaken) {
		t.Errorf("a second one: %v", err)
	}
	_ = os.Remove(path)
	second, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the end of the first takes the second's socket along: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenSocket(path); !errors.Is(err, errNotSocket) {
		t.Errorf("over a file: %v", err)
	}
}

func TestCommands(t *testing.T) {
	var drained []string
	fault := errors.New("c.yaml:1:1: one\nc.yaml:2:1: two")
	s := New(Options{Status: sample, Commands: Commands{
		Drain: func(name string, on, last bool) error {
			if name == "" {
				return errors.New("no name")
			}
			drained = append(drained, map[bool]string{true: "+", false: "-"}[on]+name+map[bool]string{true: "!"}[last])
			return nil
		},
		Reload: func() (any, error) { return map[string]int{"applied": 1}, fault },
	}})
	ln, err := ListenSocket(filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunCommands(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", ln.Addr().String())
		},
	}}
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(text))
	}
	list, err := json.Marshal(sample().Upstreams)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/upstreams", "", 200, string(list)},
		{"POST", "/upstreams/drain", `{"upstream":"a"}`, 200, string(list)},
		{"POST", "/upstreams/drain", `{"upstream":"b","last":true}`, 200, string(list)},
		{"POST", "/upstreams/undrain", `{"upstream":"b"}`, 200, string(list)},
		{"POST", "/upstreams/drain", `{}`, 422, `{"errors":["no name"]}`},
		{"POST", "/upstreams/drain", ``, 422, `{"errors":["EOF"]}`},
		{"POST", "/reload", ``, 422, `{"errors":["c.yaml:1:1: one","c.yaml:2:1: two"]}`},
		{"GET", "/reload", ``, 405, "Method Not Allowed"},
		{"GET", "/debug/pprof/", ``, 404, "404 page not found"},
	} {
		if status, got := ask(c.method, c.path, c.body); status != c.status || got != c.want {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, got)
		}
	}
	fault = nil
	if status, got := ask("POST", "/reload", ""); status != 200 || got != `{"applied":1}` {
		t.Errorf("reload: %d %s", status, got)
	}
	s.opts.Commands.Reload = nil
	if status, _ := ask("POST", "/reload", ""); status != 422 {
		t.Errorf("reload without a way to: %d", status)
	}
	if d := cmp.Diff([]string{"+a", "+b!", "-b"}, drained); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The public side of the administrator takes no commands.
	for _, path := range []string{"/reload", "/upstreams", "/upstreams/drain"} {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"upstream":"a"}`)))
		if w.Code != http.StatusNotFound || len(drained) != 3 {
			t.Errorf("%s on admin.listen: %d", path, w.Code)
		}
	}
}
