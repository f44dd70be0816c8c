package gateway

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A waitingUpload is in the spool of a gateway, with its second half to come.
type waitingUpload struct {
	gateway *testGateway
	body    []byte
	rest    *io.PipeWriter
	answer  chan string
}

// startWaitingUpload is a gateway that spools all it can, with an upload in there.
func startWaitingUpload(t *testing.T, protocol string) *waitingUpload {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	tg := startGateway(t, func(c *Config) { c.Proxy.Spool.Dir = dir })
	tg.proxy.spool.budget = 0 // nobody is fast
	u := &waitingUpload{gateway: tg, body: pattern(3 << 20), answer: make(chan string, 1)}
	body, rest := io.Pipe()
	u.rest = rest
	r := request(t, http.MethodPost, "https://"+tg.Addrs().HTTPS+"/api/v4/files", "")
	r.Body, r.ContentLength = body, int64(len(u.body))
	c := client(nil, protocol)
	t.Cleanup(c.CloseIdleConnections)
	go func() {
		resp, err := c.Do(r)
		if err != nil {
			_ = body.CloseWithError(err)
			u.answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		u.answer <- fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)), " ", err)
	}()
	if _, err := rest.Write(u.body[:len(u.body)/2]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "half of it is in the spool", func() bool {
		return metric(tg.metrics.spoolMetrics.bytes) == float64(len(u.body)/2) && len(openIn(dir)) == 1
	})
	return u
}

// finish sends the rest and looks whether the upload arrived as it was.
func (u *waitingUpload) finish(t *testing.T) {
	t.Helper()
	if _, err := u.rest.Write(u.body[len(u.body)/2:]); err != nil {
		t.Error(err)
	}
	_ = u.rest.Close()
	sum, err := json.Marshal(stored{int64(len(u.body)), crc32.ChecksumIEEE(u.body)})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := <-u.answer, fmt.Sprintf("201 %s <nil>", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	u.spoolIsEmpty(t)
}

func (u *waitingUpload) spoolIsEmpty(t *testing.T) {
	t.Helper()
	dir := u.gateway.cfg.Proxy.Spool.Dir
	eventually(t, "the spool is empty", func() bool {
		return u.gateway.proxy.spool.used.Load() == 0 && metric(u.gateway.metrics.spoolMetrics.bytes) == 0
	})
	names, err := os.ReadDir(dir)
	if open := openIn(dir); len(open) > 0 || len(names) > 0 || err != nil {
		t.Errorf("left in %s: %v, open %v, %v", dir, names, open, err)
	}
}

// openIn lists the files below dir that this process has open, named or not.
func openIn(dir string) (open []string) {
	all, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range all {
		if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, dir+"/") {
			open = append(open, name)
		}
	}
	return open
}

// An upload that waits in the spool through a reload keeps the limits that it began
// with, and goes to the Mattermost that is there when it has come: the one of then
// may be gone.
func TestSpooledUploadOutlivesAReload(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(strings.ReplaceAll(protocol, "/", ""), func(t *testing.T) {
			u := startWaitingUpload(t, protocol)
			tg, next := u.gateway, startMattermost(t)
			cfg := tg.config()
			cfg.Upstream = []string{next.url()}
			cfg.Proxy.MaxBody = 1 << 20
			before := cfg.Proxy.Spool.Dir
			cfg.Proxy.Spool = Spool{Dir: filepath.Join(t.TempDir(), "elsewhere"), MaxFile: spoolStep, MaxTotal: spoolStep}
			if c, err := tg.Reload(cfg); err != nil || len(c.Restart) > 0 || len(c.Applied) != 5 {
				t.Fatalf("%+v, %v", c, err)
			}
			tg.mm.stop()
			u.finish(t)
			if open := openIn(before); len(open) > 0 {
				t.Errorf("still open: %v", open)
			}
		})
	}
}

// A stop lets an upload come in that waits in the spool. One without time for that
// leaves nothing behind either.
func TestSpooledUploadAtTheEnd(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(strings.ReplaceAll(protocol, "/", ""), func(t *testing.T) {
			u := startWaitingUpload(t, protocol)
			u.gateway.Drain()
			eventually(t, "it stops", func() bool { return len(u.gateway.log.with("msg=stopping")) == 1 })
			u.finish(t)
			if err := u.gateway.wait(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("at once", func(t *testing.T) {
		u := startWaitingUpload(t, "http/1.1")
		u.gateway.cancel()
		if err := u.gateway.wait(); err != nil {
			t.Error(err)
		}
		_ = u.rest.Close()
		if got := <-u.answer; strings.HasPrefix(got, "2") {
			t.Errorf("half an upload is answered %s", got)
		}
		u.spoolIsEmpty(t)
	})
}
