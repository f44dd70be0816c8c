package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A slowly reads n bytes every pause, as a client on a thin line does.
type slowly struct {
	from  io.Reader
	n     int
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.from.Read(p[:min(s.n, len(p))])
}

// startSpooling has a Mattermost of 4 s to read a request and 10 s to answer, in
// place of 300, and everything else to that scale.
func startSpooling(t *testing.T, edit func(*Config)) *proxyRig {
	t.Helper()
	mm := startMattermostWith(t, func(w *ways) { w.read, w.write = 4*time.Second, 10*time.Second })
	rig := startProxyTo(t, mm, func(c *Config) {
		c.Proxy.Spool.Dir = filepath.Join(t.TempDir(), "spool")
		if edit != nil {
			edit(c)
		}
	})
	rig.spool.budget, rig.spool.step, rig.spool.small = 800*time.Millisecond, 64<<10, 128<<10
	t.Cleanup(func() {
		rig.stop()
		if n := rig.spool.used.Load(); n != 0 || metric(rig.metrics.spoolMetrics.bytes) != 0 {
			t.Errorf("%d bytes of the spool are still held", n)
		}
		if left, _ := os.ReadDir(rig.settings.Load().spool.Dir); len(left) != 0 {
			t.Errorf("files are left: %v", left)
		}
	})
	return rig
}

// slowUpload sends a MiB within 5 s and more, and returns the status and what
// Mattermost took.
func (rig *proxyRig) slowUpload(t *testing.T, c *http.Client, path string, known bool) (int, stored) {
	t.Helper()
	body := pattern(1 << 20)
	r := request(t, http.MethodPost, rig.url(path), "", "Content-Type", "multipart/form-data; boundary=x")
	r.Body = io.NopCloser(&slowly{bytes.NewReader(body), 16 << 10, 80 * time.Millisecond})
	r.ContentLength = -1
	if known {
		r.ContentLength = int64(len(body))
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, stored{}
	}
	defer resp.Body.Close()
	var got stored
	_ = json.NewDecoder(resp.Body).Decode(&got)
	if resp.StatusCode == http.StatusCreated && got.Sum != crc32.ChecksumIEEE(body) {
		t.Errorf("what arrived is something else: %+v", got)
	}
	return resp.StatusCode, got
}

// atOnce runs all of f beside each other: they wait, and cost nothing.
func atOnce(t *testing.T, f map[string]func(t *testing.T)) {
	t.Helper()
	var wait sync.WaitGroup
	defer wait.Wait()
	for name, test := range f {
		begun := make(chan struct{})
		wait.Go(func() {
			t.Run(name, func(t *testing.T) { close(begun); test(t) })
		})
		<-begun
	}
}

// An upload takes longer than Mattermost gives it, at a small scale: 1 MiB in
// 5 s where 4 s are allowed.
func TestSlowUploadOutlivesMattermostsPatience(t *testing.T) {
	t.Parallel()
	rig := startSpooling(t, nil)
	try := func(c *http.Client, path string, known bool) func(*testing.T) {
		return func(t *testing.T) {
			if status, got := rig.slowUpload(t, c, path, known); status != http.StatusCreated || got.Bytes != 1<<20 {
				t.Errorf("status %d, %d bytes", status, got.Bytes)
			}
		}
	}
	atOnce(t, map[string]func(*testing.T){
		"h1": try(rig.h1, "/api/v4/files", true), "h1 unknown length": try(rig.h1, "/api/v4/files", false),
		"h2": try(rig.h2, "/api/v4/files", true), "h2 unknown length": try(rig.h2, "/api/v4/uploads/2", false),
	})
	if n := metric(rig.metrics.transfers.WithLabelValues(spoolUp)); n != 4 {
		t.Errorf("%v of 4 counted", n)
	}
}

// Without a spool, or without room in it, an upload streams, and Mattermost
// breaks it off: which shows that the test above shows something.
func TestSlowUploadWithoutRoomStreams(t *testing.T) {
	t.Parallel()
	try := func(edit func(*Config), reason string) func(*testing.T) {
		return func(t *testing.T) {
			rig := startSpooling(t, edit)
			if status, _ := rig.slowUpload(t, rig.h1, "/api/v4/files", true); status == http.StatusCreated {
				t.Error("it arrived")
			}
			if reason == "" {
				return
			}
			if metric(rig.metrics.spoolMetrics.refused.WithLabelValues(reason)) != 1 {
				t.Error("not counted")
			}
			if len(rig.log.with("slow transfers are not spooled")) == 0 {
				t.Error("not logged")
			}
		}
	}
	atOnce(t, map[string]func(*testing.T){
		"off":       try(func(c *Config) { c.Proxy.Spool.Dir = "" }, ""),
		"max_total": try(func(c *Config) { c.Proxy.Spool.MaxTotal = 128 << 10 }, spoolFull),
		"max_file":  try(func(c *Config) { c.Proxy.Spool.MaxFile = 128 << 10 }, spoolFull),
		"no dir":    try(func(c *Config) { c.Proxy.Spool.Dir = "/dev/null/spool" }, spoolBroken),
	})
}

// What finds no room still arrives whole, if it is fast enough: the part in the
// file, the part that did not fit, and the rest.
func TestPartlySpooledUploadIsWhole(t *testing.T) {
	rig := startSpooling(t, func(c *Config) { c.Proxy.Spool.MaxFile = 300_000 })
	rig.spool.budget = 0 // nobody is fast
	rig.both(func(t *testing.T, c *http.Client) {
		body := pattern(2 << 20)
		resp, text := ask(t, c, request(t, http.MethodPost, rig.url("/api/v4/files"), string(body)))
		if want := fmt.Sprintf(`"Sum":%d`, crc32.ChecksumIEEE(body)); resp.StatusCode != http.StatusCreated || !strings.Contains(text, want) {
			t.Errorf("%d %s, want %s", resp.StatusCode, text, want)
		}
	})
}

// A fast upload goes on to Mattermost after its first step, while the client
// still sends.
func TestFastUploadIsNotKept(t *testing.T) {
	rig := startSpooling(t, nil)
	rig.spool.budget = time.Hour // everybody is fast
	body, pipe := io.Pipe()
	r := request(t, http.MethodPost, rig.url("/api/v4/uploads/1"), "")
	r.Body, r.ContentLength = body, 1<<20
	answered := make(chan error, 1)
	go func() {
		resp, err := rig.h1.Do(r)
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	half := bytes.Repeat([]byte("x"), 1<<19)
	if _, err := pipe.Write(half); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < len(half); {
		got += len(<-rig.mm.bodies)
	}
	go func() { _, _ = pipe.Write(half); _ = pipe.Close() }()
	for got := 0; got < len(half); {
		got += len(<-rig.mm.bodies)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if n := metric(rig.metrics.transfers.WithLabelValues(spoolUp)); n != 0 {
		t.Errorf("%v uploads counted as slow", n)
	}
}

// A client that leaves takes its file with it, and Mattermost hears nothing.
func TestUploadThatIsAbandonedInTheSpool(t *testing.T) {
	rig := startSpooling(t, nil)
	rig.spool.budget = 0
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "POST /api/v4/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 200_000))
	eventually(t, "the file grows", func() bool { return metric(rig.metrics.spoolMetrics.bytes) == 200_000 })
	_ = conn.Close()
	eventually(t, "the room is free", func() bool { return metric(rig.metrics.spoolMetrics.bytes) == 0 })
	if n := metric(rig.metrics.requests["POST"]["none"]); n != 1 {
		t.Errorf("%v counted as none", n)
	}
}

// An upload that nobody takes leaves nothing in the spool: Mattermost is down, or
// answers without reading it.
func TestSpooledUploadThatIsNotTaken(t *testing.T) {
	rig := startSpooling(t, nil)
	rig.spool.budget = 0
	try := func(path string, want int) {
		rig.both(func(t *testing.T, c *http.Client) {
			if resp, _ := ask(t, c, request(t, http.MethodPost, rig.url(path), string(pattern(600_000)))); resp.StatusCode != want {
				t.Errorf("%s: %s, want %d", path, resp.Status, want)
			}
			eventually(t, "the room is free", func() bool { return rig.spool.used.Load() == 0 })
		})
	}
	try("/plugins/refuse", http.StatusUnauthorized)
	rig.mm.stop()
	try("/api/v4/files", http.StatusBadGateway)
}

// Trailers, 100 Continue and our own limit work as they do without a spool.
func TestSpooledUploadKeepsItsHeaders(t *testing.T) {
	rig := startSpooling(t, func(c *Config) { c.Proxy.MaxBody = 600_000 })
	rig.spool.budget = 0
	rig.both(func(t *testing.T, c *http.Client) {
		r := request(t, http.MethodPost, rig.url("/plugins/mirror/uploads/"), strings.Repeat("x", 300_000), "Expect", "100-continue")
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Check": {"17"}, "X-Forwarded-For": {"192.0.2.1"}}
		got := mirrored(t, c, r)
		if len(got.Body) != 300_000 || !got.Chunked || !cmp.Equal(got.Trailer, http.Header{"X-Check": {"17"}}) || got.Header.Get("Expect") != "" {
			t.Errorf("%d bytes, chunked %v, trailer %v, expect %q", len(got.Body), got.Chunked, got.Trailer, got.Header.Get("Expect"))
		}
		for _, length := range []int64{-1, 700_000} {
			r = request(t, http.MethodPost, rig.url("/plugins/mirror/uploads/"), strings.Repeat("x", 700_000))
			r.ContentLength = length
			if resp, err := c.Do(r); err == nil { // the answer may come before all is sent
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusRequestEntityTooLarge {
					t.Errorf("length %d: %d for too large a body", length, resp.StatusCode)
				}
			}
		}
	})
}

// A disk that fails in the middle is no loss.
func TestSpoolSurvivesItsDisk(t *testing.T) {
	rig := startSpooling(t, nil)
	f, err := rig.spool.open(rig.settings.Load().spool)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.file.Close()
	b := &spooledBody{file: f, more: io.NopCloser(strings.NewReader("what the disk does not take"))}
	if err := b.fill(rig.spool.newPace(100)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "what the disk does not take" {
		t.Errorf("%q, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// The directory is made, for us alone; where that cannot be, the start says so.
func TestSpoolDirectory(t *testing.T) {
	rig := startSpooling(t, nil)
	info, err := os.Stat(rig.settings.Load().spool.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	rig.spool.try("/dev/null/spool")
	if len(rig.log.with("proxy.spool.dir cannot be used")) != 1 {
		t.Error("nobody is told")
	}
	if f, err := openRemoved(t.TempDir()); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(f.Name()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file has a name: %v", err)
	}
}
