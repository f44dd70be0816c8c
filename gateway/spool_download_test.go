package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

// slowDownload takes some of 16 MiB, and the rest 3 s after Mattermost would
// have given up.
func (rig *proxyRig) slowDownload(t *testing.T, c *http.Client) ([]byte, error) {
	t.Helper()
	resp, err := c.Do(request(t, http.MethodGet, rig.url("/api/v4/files/big"), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, bigSize)
	if _, err := io.ReadFull(resp.Body, got[:1<<20]); err != nil {
		return nil, err
	}
	time.Sleep(rig.mm.ways.write + 3*time.Second)
	n, err := io.ReadFull(resp.Body, got[1<<20:])
	return got[:1<<20+n], err
}

// A download takes longer than Mattermost gives it, at a small scale.
func TestSlowDownloadOutlivesMattermostsPatience(t *testing.T) {
	t.Parallel()
	want := bigFile()
	rig := startSpooling(t, nil)
	rig.spool.budget = 0 // slow at the first look
	try := func(c *http.Client) func(*testing.T) {
		return func(t *testing.T) {
			if got, err := rig.slowDownload(t, c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	}
	atOnce(t, map[string]func(*testing.T){
		"h1": try(rig.h1), "h2": try(rig.h2),
		"without spool": func(t *testing.T) {
			rig := startSpooling(t, func(c *Config) { c.Proxy.Spool.Dir = "" })
			if got, err := rig.slowDownload(t, rig.h1); err == nil {
				t.Errorf("%d bytes arrived", len(got))
			}
		},
	})
	if n := metric(rig.metrics.transfers.WithLabelValues(spoolDown)); n != 2 {
		t.Errorf("%v of 2 counted", n)
	}
}

// readsAhead is the body of an answer of n bytes to a client that is slow.
func readsAhead(rig *proxyRig, n int, body io.ReadCloser) io.ReadCloser {
	rig.spool.budget = 0
	return rig.spool.download(rig.settings.Load().spool, &http.Response{ContentLength: int64(n), Body: body})
}

// What does not fit the spool comes behind it.
func TestPartlySpooledDownloadIsWhole(t *testing.T) {
	rig := startSpooling(t, func(c *Config) { c.Proxy.Spool.MaxFile = 300_000 })
	want := pattern(1 << 20)
	body := readsAhead(rig, len(want), io.NopCloser(bytes.NewReader(want)))
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// A fault of Mattermost's reaches the client behind all that came before it.
func TestSpooledDownloadThatBreaksOff(t *testing.T) {
	rig := startSpooling(t, nil)
	fault, want := errors.New("upstream died"), pattern(500_000)
	in, out := io.Pipe()
	go func() {
		_, _ = out.Write(want)
		_ = out.CloseWithError(fault)
	}()
	body := readsAhead(rig, 1<<20, in)
	if got, err := io.ReadAll(body); !errors.Is(err, fault) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	_ = body.Close()
}

// A client that leaves ends the reading ahead.
func TestSpooledDownloadThatIsAbandoned(t *testing.T) {
	rig := startSpooling(t, nil)
	in, out := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		_, err := out.Write(pattern(500_000))
		if err == nil {
			_, err = out.Write([]byte("one more"))
		}
		wrote <- err
	}()
	body := readsAhead(rig, 1<<20, in)
	for range 2 { // at the first look the client is slow
		if _, err := io.ReadFull(body, make([]byte, 100_000)); err != nil {
			t.Error(err)
		}
	}
	_ = body.Close()
	<-wrote // at the latest then: the goroutine is gone, nobody else reads
	select {
	case <-body.(*aheadBody).filled:
	default:
		t.Error("still reading ahead")
	}
}
